"""Compares schedulers on scenarios drawn at random, and finds a small one where they differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from simserve.errors import InputError, SimserveError
from simserve.parity.case import Case
from simserve.parity.case_file import Record
from simserve.parity.fuzz_draw import draw_case
from simserve.parity.shrink import shrink
from simserve.parity.verify import FAST, CaseReport, compare_case
from simserve.policy.registry import SCHEDULERS

Oracle = Callable[[Case], list[Record]]
"""Gives the records that are right for a case."""

PLAIN = "chunked-prefill-plain"
"""The scheduler here that is written plainly: the oracle where no vLLM is."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """A minimal case on which ``scheduler`` does not do what the oracle's ``records`` say."""

    case: Case
    scheduler: str
    records: list[Record]
    report: CaseReport


@dataclass(frozen=True, slots=True)
class FuzzReport:
    """How many scenarios, and how many steps of the oracle, were compared; what differed."""

    cases: int
    steps: int
    divergence: Divergence | None = None


def fuzz(
    count: int,
    seed: int,
    oracle: Oracle,
    schedulers: Sequence[str] = (FAST,),
    on_progress: Callable[[int, int], None] | None = None,
) -> FuzzReport:
    """Compare ``schedulers`` with ``oracle`` on ``count`` scenarios; stop where they differ."""
    steps = 0
    for number in range(count):
        case = draw_case(seed, number)
        expected = _asked(oracle, case)
        steps += sum(record["type"] == "step" for record in expected)
        for scheduler in schedulers:
            if not report_on(case, expected, scheduler).same:
                return FuzzReport(number + 1, steps, _smallest(case, oracle, scheduler))
        if on_progress is not None:
            on_progress(number + 1, count)
    return FuzzReport(count, steps)


def _asked(oracle: Oracle, case: Case) -> list[Record]:
    try:
        return oracle(case)
    except InputError:
        raise
    except SimserveError as error:
        raise SimserveError(f"{case.name}: the oracle: {error}") from None


def report_on(case: Case, expected: list[Record], scheduler: str) -> CaseReport:
    """Return how a scheduler compares; a crash of it is a difference like any other."""
    try:
        return compare_case(case, expected, SCHEDULERS[scheduler])
    except Exception as error:  # noqa: BLE001 (whatever it is, it is what we look for)
        steps = sum(record["type"] == "step" for record in expected)
        return CaseReport(case.name, steps, 0, f"{scheduler} ended with {error!r}")


def _smallest(case: Case, oracle: Oracle, scheduler: str) -> Divergence:
    def diverges(candidate: Case) -> bool:
        try:
            expected = oracle(candidate)
        except SimserveError:  # it never ends, or is no case: not what is being looked for
            return False
        return not report_on(candidate, expected, scheduler).same

    small = replace(shrink(case, diverges), name=f"{case.name}-small")
    records = oracle(small)
    return Divergence(small, scheduler, records, report_on(small, records, scheduler))
