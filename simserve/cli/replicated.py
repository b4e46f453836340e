"""The options that repeat a run for its intervals, and what they print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simserve.cli.progress import progress
from simserve.errors import InputError

if TYPE_CHECKING:
    from simserve.inputs.scenario import Scenario
    from simserve.planning.calibration import CalibrationBand
    from simserve.planning.precision import PreciseRuns
    from simserve.results.attainment import Attainment
    from simserve.results.result import Result
    from simserve.results.steady_state import SteadyState

Replications = Annotated[
    int | None,
    typer.Option(
        "--replications",
        metavar="N",
        help="Run N times with other seeds: intervals over all of them, and from calibration.",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="PERCENT",
        help="Replicate until every p99 is known to this, e.g. 5% (at most 100 times).",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", help="Processes; all cores if not given."),
]
GoodShare = Annotated[
    str,
    typer.Option(
        "--good-share",
        metavar="PERCENT",
        help="Share of requests of which objectives per request (ttft:500) are asked.",
    ),
]

_FINEST, _COARSEST = 0.001, 1.0


@dataclass(frozen=True, slots=True)
class Replicated:
    """What the replications of a scenario say."""

    state: SteadyState
    kept: tuple[Attainment, ...]
    band: CalibrationBand
    precise: PreciseRuns | None

    def lines(self) -> list[str]:
        """Return the report of all replications."""
        from simserve.report.intervals import replication_lines

        return replication_lines(self.state, self.kept, self.band, self.precise)

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON-able data."""
        from simserve.report.intervals import replications_dict

        return replications_dict(self.state, self.kept, self.band, self.precise)

    @property
    def misses_slo(self) -> bool:
        """Whether an objective was asked for and is not met over all replications."""
        unmet = any(not one.met for one in self.kept)
        return bool(self.kept) and (unmet or self.state.reason is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for: a number of replications, a precision, or neither."""

    replications: int | None
    precision: str | None
    workers: int | None

    @classmethod
    def of_params(cls, params: Mapping[str, Any]) -> Asked:
        """Return what a command's parameters ask for."""
        return cls(**{name: params[name] for name in ("replications", "precision", "workers")})

    def check(self, scenario: Scenario) -> None:
        """Refuse options that cannot be used, before anything is run."""
        from simserve.planning.processes import check_workers
        from simserve.planning.replications import check_count, check_random

        count = self.replications
        if count is not None:
            check_count(count)
        if self.workers is not None:
            check_workers(self.workers)
        if self.precision is not None:
            parse_share(self.precision, "--precision")
            check_random(scenario, "--precision")
        elif count is not None and count > 1:
            check_random(scenario, "--replications")

    def replicated(self, result: Result) -> Replicated | None:
        """Return what the replications say of which ``result`` is the first; None if unasked."""
        from simserve.planning.calibration import calibration_band
        from simserve.planning.precision import run_until_precise
        from simserve.planning.processes import all_cores
        from simserve.planning.replications import replicate
        from simserve.results.attainment import attainments
        from simserve.results.steady_state import steady_state

        scenario = result.scenario
        if scenario is None or (self.replications is None and self.precision is None):
            return None
        workers = self.workers or all_cores()
        runs = [result.sample]
        runs += replicate(scenario, range(1, self.replications or 1), workers=workers)
        precise = None
        if self.precision is not None:
            wanted_frac = parse_share(self.precision, "--precision")
            with progress("replications") as news:
                precise = run_until_precise(
                    scenario, wanted_frac, begun=runs, workers=workers, on_progress=news
                )
            runs = list(precise.state.runs)
        state = precise.state if precise is not None else steady_state(runs)
        # As for a single run: every request must meet what is asked of each.
        kept = attainments(runs, good_share=1.0) if runs[0].promises else ()
        return Replicated(state, kept, calibration_band(scenario, runs, workers=workers), precise)


def parse_share(text: str, where: str) -> float:
    """Return a share such as ``5%`` or ``0.05`` as a fraction.

    Raises:
        InputError: naming the option ``where``, if it is none or out of range.
    """
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        frac = float(number) / (100 if percent else 1)
    except ValueError:
        frac = 0.0
    if not _FINEST <= frac <= _COARSEST:
        raise InputError(where, None, text, "a share such as 5% or 0.05, from 0.1% to 100%")
    return frac
