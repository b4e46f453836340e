"""What a planner keeps of one run: few numbers, under the digest of what was run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from simserve.inputs.scenario import Scenario
from simserve.planning.run_scenario import run
from simserve.results.attainment import attainments
from simserve.results.intervals import Estimates
from simserve.results.metrics import request_latencies
from simserve.results.promises import GOOD_SHARE, Promise, asked_of, promises
from simserve.results.result import Result
from simserve.results.run_sample import RunSample
from simserve.results.samples import MS_PER_S
from simserve.results.warmup import whole_run

FORMAT = 2
"""Version of ``Outcome``: another one is never taken for it."""
PERCENTILES = (50.0, 95.0, 99.0)
SERVED = "a prompt within the context"


class Kept(msgspec.Struct, frozen=True):
    """One promise: the share of requests that it asks, and that keep it.

    ``required`` is None for per-request objectives. ``low`` to ``high`` is Wilson's interval of
    the share in the ``steady`` part of the run; ``whole`` is the share of the whole run.
    ``used`` is how much of its limit the steady part uses, at the share that is asked; None: more
    than there is, since too many are not answered in time.
    """

    name: str
    required: float | None
    whole: float
    steady: float
    low: float
    high: float
    used: float | None


class Outcome(msgspec.Struct, frozen=True):
    """One run. Latencies are of its steady part; rates of the requests that finish in it."""

    digest: str
    requests: int
    verdict: str
    steady: bool
    kept: tuple[Kept, ...]
    latency_ms: dict[str, dict[str, float]]  # metric → statistic → ms
    requests_per_s: float
    input_tokens_per_s: float
    output_tokens_per_s: float

    def met(self, good_share: float) -> bool:
        """Whether the run keeps every promise, as a whole and in its steady part."""
        return self.met_when_steady(good_share) and all(
            one.whole >= _asked(one, good_share) for one in self.kept
        )

    def met_when_steady(self, good_share: float) -> bool:
        """Whether the steady part of the run keeps every promise."""
        if self.verdict == "overloaded":
            return False
        return all(one.steady >= _asked(one, good_share) for one in self.kept)

    def surely_missed(self, good_share: float) -> bool:
        """Whether a promise is broken beyond chance, or the run is overloaded."""
        if self.verdict == "overloaded":
            return True
        return any(one.high < _asked(one, good_share) for one in self.kept)


def _asked(one: Kept, good_share: float) -> float:
    return good_share if one.required is None else one.required


def outcome_of(scenario: Scenario) -> Outcome:
    """Run ``scenario`` and return what a planner keeps of it."""
    result = run(scenario)
    gaps = scenario.slo is not None and any(one.metric == "itl" for one in scenario.slo.objectives)
    sample = RunSample.of(result.record, result.verdict, result.facts, gaps=gaps)
    return Outcome(
        digest=scenario.digest(),
        requests=len(result.record.requests),
        verdict=result.verdict.name,
        steady=sample.changes or sample.unsteady is None,
        kept=_kept(result, sample),
        latency_ms={name: found for name in sample.latencies if (found := _ms(sample, name))},
        requests_per_s=_per_s(sample, "requests"),
        input_tokens_per_s=_per_s(sample, "requests") * _mean_prompt(result, sample),
        output_tokens_per_s=_per_s(sample, "output_tokens"),
    )


def _kept(result: Result, sample: RunSample) -> tuple[Kept, ...]:
    record, facts = result.record, result.facts
    asked = asked_of(facts.slo(), facts.class_slos(), record)
    whole = promises(asked, record, request_latencies(record), whole_run(record))
    steady = {one.name: one for one in attainments([sample])}
    used = {one.name: _used(one) for one in sample.promises}
    kept = [
        Kept(
            name=one.name,
            required=one.required_share,
            whole=_share(one),
            steady=steady[one.name].share if one.name in steady else _share(one),
            low=steady[one.name].low if one.name in steady else 0.0,
            high=steady[one.name].high if one.name in steady else 1.0,
            used=used[one.name],
        )
        for one in whole
        if len(one.strain.weights)
    ]
    return (*kept, *_served(result))


def _served(result: Result) -> list[Kept]:
    """Return that requests are served at all, as one more promise, if any are refused.

    A percentile lets some requests go: without it a context that is too short for one prompt in
    thirty would keep a p95, and cheaply.
    """
    metrics = result.metrics
    if not metrics.rejected:
        return []
    share = 1 - metrics.rejected / metrics.num_prompts
    shares = {"whole": share, "steady": share, "low": share, "high": share}
    return [Kept(name=SERVED, required=None, **shares, used=0.0)]


def _used(promise: Promise) -> float | None:
    if not len(promise.strain.weights):
        return 0.0
    asked = GOOD_SHARE if promise.required_share is None else promise.required_share
    strain = Estimates([promise.strain]).at_share(asked)
    return strain if math.isfinite(strain) else None


def _share(promise: Promise) -> float:
    return float(promise.kept.amounts.sum() / promise.kept.weights.sum())


def _ms(sample: RunSample, metric: str) -> dict[str, float]:
    series = sample.latencies[metric]
    if not len(series.weights):
        return {}
    estimates = Estimates([series])
    found = {"mean": float(series.amounts.sum() / series.weights.sum()) * MS_PER_S}
    for q in PERCENTILES:
        found[f"p{q:g}"] = estimates.at_share(q / 100) * MS_PER_S
    return found


def _per_s(sample: RunSample, name: str) -> float:
    series = sample.rates[name]
    weight = float(series.weights.sum())
    return float(series.amounts.sum()) / weight if weight else 0.0


def _mean_prompt(result: Result, sample: RunSample) -> float:
    inside = sample.window.mask()
    return float(result.record.requests.prompt_tokens[inside].mean()) if inside.any() else 0.0


def encoded(outcome: Outcome) -> bytes:
    """Return the outcome as compact bytes, the same for the same outcome."""
    return msgspec.json.encode(outcome)


def decoded(content: bytes) -> Outcome:
    """Return the outcome that ``encoded`` wrote."""
    return msgspec.json.decode(content, type=Outcome)


def flat_rows(outcomes: Sequence[Outcome]) -> list[dict[str, float | int | str | bool]]:
    """Return one row per outcome, for a table."""
    rows = []
    for one in outcomes:
        row: dict[str, float | int | str | bool] = {
            "scenario_digest": one.digest,
            "requests": one.requests,
            "verdict": one.verdict,
            "steady": one.steady,
            "requests_per_s": one.requests_per_s,
            "input_tokens_per_s": one.input_tokens_per_s,
            "output_tokens_per_s": one.output_tokens_per_s,
        }
        for kept in one.kept:
            row |= {f"kept {kept.name}": kept.whole, f"kept steady {kept.name}": kept.steady}
        for metric, found in one.latency_ms.items():
            row |= {f"{name}_{metric}_ms": value for name, value in found.items()}
        rows.append(row)
    return rows
