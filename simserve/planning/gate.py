"""Whether a change breaks what is promised, beyond noise: a yes or no for continuous integration.

The changed scenario is replicated, and the baseline's with the same random numbers if it is a
simulated run that can be made again; else its own requests are all there is. A promise counts as
broken where chance is ruled out as the reason (``results.attainment``). What the baseline broke
already is not held against the change, unless it is worse now beyond chance. A change that takes
the steady state away is refused too: its latencies depend on how long it is watched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from simserve.errors import InputError
from simserve.inputs.scenario import Scenario
from simserve.inputs.slo import Objective, Slo
from simserve.planning.changed_deployment import scenario_of_resolved
from simserve.planning.load_tests import LoadTest
from simserve.planning.replications import is_random, replicate
from simserve.results.attainment import Attainment, attainments
from simserve.results.measured import Measurement
from simserve.results.measured_files import read_measured
from simserve.results.promises import GOOD_SHARE
from simserve.results.result import Result
from simserve.results.run_sample import RunSample
from simserve.results.samples import MS_PER_S, FloatArray

REPLICATIONS = 5
"""Runs of the changed scenario unless told otherwise: enough for Student's t to rule out chance."""

Outcome = Literal["kept", "broken", "may be chance", "broken before"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How the baseline kept one promise; ``share`` None: the file says only whether.

    ``steady`` is whether it has a steady state, None if the file cannot tell.
    """

    met: bool
    share: float | None = None
    low: float | None = None
    steady: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRow:
    """One promise: the change, and the baseline (None if that does not say)."""

    now: Attainment
    before: Kept | None
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVerdict:
    """The answer; ``steady`` is False where most replications have no steady state.

    ``steady_before`` is the same of the baseline, None if that does not say.
    """

    baseline: str
    rows: tuple[GateRow, ...]
    replications: int
    steady: bool
    steady_before: bool | None
    notes: tuple[str, ...]

    @property
    def passes(self) -> bool:
        """Whether the change breaks nothing beyond noise."""
        return not self.newly_unsteady and all(row.outcome != "broken" for row in self.rows)

    @property
    def newly_unsteady(self) -> bool:
        """Whether the change takes the steady state away."""
        return not self.steady and self.steady_before is not False


def gate(
    scenario: Scenario,
    baseline: str | Path,
    *,
    replications: int = REPLICATIONS,
    good_share: float = GOOD_SHARE,
    workers: int = 1,
) -> GateVerdict:
    """Return whether ``scenario`` keeps its SLO as the run in ``baseline`` did.

    ``baseline`` is a folder of ``run --out`` or the JSON of a benchmark. ``good_share`` is the
    share of requests of which objectives per request are asked.

    Raises:
        InputError: if there is no SLO, or none that says anything of a request, or the baseline
            cannot be read.
    """
    if scenario.slo is None and not any(one.slo for one in scenario.workload.classes or ()):
        raise InputError("--slo", None, "no objective", "such as 'ttft_p95:500 tpot_p95:50'")
    if not is_random(scenario):
        replications = 1
    asked = _Asked(scenario.slo, good_share, replications, workers)
    before, notes = _baseline(scenario, Path(baseline), asked)
    test = asked.test(scenario)
    if not test.attainments:
        allowed = "an objective on a latency that some request has"
        raise InputError("--slo", None, str(scenario.slo), allowed)
    rows = [
        GateRow(
            now=one,
            before=before.get(one.name),
            outcome=_outcome(one, before.get(one.name)),
        )
        for one in test.attainments
    ]
    return GateVerdict(
        baseline=str(baseline),
        rows=tuple(rows),
        replications=replications,
        steady=test.steady,
        steady_before=next((one.steady for one in before.values()), None),
        notes=tuple(notes),
    )


def _outcome(now: Attainment, before: Kept | None) -> Outcome:
    if not now.surely_missed:
        return "kept" if now.met else "may be chance"
    if before is None or before.met:
        return "broken"
    worse = before.low is not None and now.high < before.low
    return "broken" if worse else "broken before"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked, and over how many replications."""

    slo: Slo | None
    good_share: float
    replications: int
    workers: int

    def test(self, scenario: Scenario) -> LoadTest:
        """Return the replications of a scenario, and how they keep their promises."""
        numbers = range(self.replications if is_random(scenario) else 1)
        runs = tuple(replicate(scenario, numbers, workers=self.workers))
        return LoadTest(load=0.0, runs=runs, attainments=attainments(runs, self.good_share))


def _baseline(scenario: Scenario, source: Path, asked: _Asked) -> tuple[dict[str, Kept], list[str]]:
    """Return how the baseline keeps the promises of ``scenario``, by name, and notes on it."""
    saved = Result.load(source) if source.is_dir() else None
    measured = None if saved is not None else read_measured(source)
    resolved: Mapping[str, Any] | None = saved.facts.resolved if saved is not None else None
    if measured is not None:
        resolved = measured.resolved
    notes = []
    if resolved is not None:
        notes = _unlike(scenario, resolved)
        try:
            again = replace(scenario_of_resolved(resolved), slo=asked.slo)
        except InputError as error:
            notes.append(f"of the baseline only its own run is known ({error})")
        else:
            return _of_test(asked.test(again)), notes
    if saved is not None:
        return _of_result(saved, asked), notes
    if measured is None or asked.slo is None:
        return {}, [*notes, "objectives of classes are not in the baseline"]
    return _of_measurement(asked.slo, measured, asked.good_share), [*measured.notes, *notes]


def _of_test(test: LoadTest) -> dict[str, Kept]:
    return {
        one.name: Kept(
            met=one.met,
            share=one.share,
            low=one.low,
            steady=test.steady,
        )
        for one in test.attainments
    }


def _unlike(scenario: Scenario, resolved: Any) -> list[str]:
    """Return a warning if the baseline was asked something else."""
    now = scenario.resolved()
    return [
        f"the baseline has another {name}"
        for name in ("workload", "seed")
        if now[name] != resolved[name]
    ]


def _of_result(result: Result, asked: _Asked) -> dict[str, Kept]:
    objectives = asked.slo.objectives if asked.slo is not None else ()
    entries = tuple(
        {"metric": one.metric, "percentile": one.percentile, "limit_ms": one.limit_ms}
        for one in objectives
    )
    facts = replace(result.facts, objectives=entries)
    sample = RunSample.of(result.record, result.verdict, facts)
    steady = result.verdict.operating_point
    return {
        one.name: Kept(met=one.met, share=one.share, low=one.low, steady=steady)
        for one in attainments([sample], asked.good_share)
    }


def _of_measurement(slo: Slo, measured: Measurement, good_share: float) -> dict[str, Kept]:
    """Return how a measured run keeps the objectives, under the names that promises have."""
    single = [one for one in slo.objectives if one.percentile is None]
    found = {}
    if single and measured.series_s:
        name = " ".join(f"{one.name}:{one.limit_ms:g}" for one in single)
        within = np.logical_and.reduce([_within(measured, one) for one in single])
        share = float(within.mean())
        found[name] = Kept(met=share >= good_share, share=share)
    for one in slo.objectives:
        value_s = measured.statistics_s.get(one.metric, {}).get(f"p{one.percentile or 0:g}")
        if one.percentile is None:
            continue
        name = f"{one.name}:{one.limit_ms:g}"
        series = measured.series_s.get(one.metric)
        if series is not None:
            there = series[~np.isnan(series)]
            share = float((there * MS_PER_S <= one.limit_ms).mean()) if len(there) else 0.0
            found[name] = Kept(met=share >= one.percentile / 100, share=share)
        elif value_s is not None:
            found[name] = Kept(met=value_s * MS_PER_S <= one.limit_ms)
    return found


def _within(measured: Measurement, objective: Objective) -> FloatArray:
    """Return which requests meet an objective; as in vLLM, one token has a TPOT of 0."""
    values_s = measured.series_s[objective.metric]
    if objective.metric == "tpot":
        failed = np.isnan(measured.series_s["e2el"])
        values_s = np.where(np.isnan(values_s) & ~failed, 0.0, values_s)
    return np.asarray(np.nan_to_num(values_s, nan=np.inf) * MS_PER_S <= objective.limit_ms)


def broken(rows: Sequence[GateRow]) -> list[GateRow]:
    """Return the rows that the change breaks, the worst first."""
    found = [row for row in rows if row.outcome == "broken"]
    return sorted(found, key=lambda row: -row.now.misses_per_allowed)
