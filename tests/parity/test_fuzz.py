"""Random comparison: what is drawn is valid, and what differs is found and made small."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from simserve.errors import SimserveError
from simserve.parity.case import Case, rows_of
from simserve.parity.case_file import load_case, load_expected, save_case, save_expected
from simserve.parity.fuzz import PLAIN, fuzz
from simserve.parity.fuzz_draw import can_livelock, draw_case, is_valid
from simserve.parity.shrink import shrink
from simserve.parity.verify import FAST, compare_case, records_by, serve_case, verify_case
from simserve.policy.cohort import CohortScheduler
from simserve.policy.limits import SchedulerLimits
from simserve.policy.plain import PlainScheduler
from simserve.policy.registry import SCHEDULERS
from simserve.policy.scheduler import StepPlan
from simserve.records.run_record import ABORTED, FINISHED
from tests.parity.faults import FAULTS

SEED = 20
DRAWN = [draw_case(SEED, number) for number in range(300)]


def by_the_plain_rules(case: Case) -> list[dict[str, object]]:
    return records_by(case, PLAIN)


def test_every_drawn_case_is_one_that_vllm_would_take() -> None:
    for case in DRAWN:
        assert is_valid(case.limits, rows_of(case.requests)), case.name


def test_every_setting_takes_several_values() -> None:
    for field in dataclasses.fields(SchedulerLimits):
        values = {getattr(case.limits, field.name) for case in DRAWN}
        assert len(values) > 1, field.name


def test_a_drawn_case_does_not_depend_on_the_others() -> None:
    again = draw_case(SEED, 17)
    assert again.limits == DRAWN[17].limits
    assert rows_of(again.requests) == rows_of(DRAWN[17].requests)
    assert rows_of(draw_case(SEED + 1, 17).requests) != rows_of(again.requests)


def test_a_case_file_reads_back_as_the_case_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "x.case.json"
    for case in DRAWN[:40]:
        save_case(case, path)
        back = load_case(path)
        assert (back.name, back.limits, back.step_time) == (case.name, case.limits, case.step_time)
        assert rows_of(back.requests) == rows_of(case.requests)
        assert by_the_plain_rules(back) == by_the_plain_rules(case)


def test_no_drawn_case_makes_the_schedulers_differ() -> None:
    report = fuzz(250, SEED, by_the_plain_rules)
    assert report.divergence is None
    assert report.cases == 250
    assert report.steps > 10_000


def test_where_admission_reserves_nothing_everything_still_ends() -> None:
    loose = [case for case in DRAWN if not case.limits.scheduler_reserve_full_isl]
    assert len(loose) > 50
    for case in loose:
        run = serve_case(case, CohortScheduler)
        assert np.isin(run.outcomes.status, [FINISHED, ABORTED]).all()


@pytest.mark.parametrize("name", ["first-is-the-victim", "finishes-in-reverse"])
def test_a_wrong_scheduler_is_found_and_its_case_made_small(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = FAULTS[name][1]
    monkeypatch.setitem(SCHEDULERS, FAST, wrong)
    found = fuzz(300, 1, by_the_plain_rules).divergence
    assert found is not None
    assert found.scheduler == FAST
    assert len(found.case.requests) <= 5
    assert is_valid(found.case.limits, rows_of(found.case.requests))
    path = tmp_path / "small.case.json"
    save_case(found.case, path)
    save_expected(found.records, path)
    assert load_expected(path) == found.records
    assert verify_case(path, PlainScheduler).same
    assert verify_case(path, wrong).detail == found.report.detail is not None


def test_a_crash_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    class Crashes(CohortScheduler):
        def plan_step(self) -> StepPlan | None:
            raise ZeroDivisionError("by design")

    monkeypatch.setitem(SCHEDULERS, FAST, Crashes)
    found = fuzz(1, 1, by_the_plain_rules).divergence
    assert found is not None
    assert len(found.case.requests) == 1
    assert found.report.detail == f"{FAST} ended with ZeroDivisionError('by design')"


def test_equals_that_preempt_each_other_for_ever_are_reported_not_waited_for() -> None:
    tied = next(
        case
        for number in range(4000)
        for case in [tied_in_rank(draw_case(SEED, number))]
        if never_ends(case)
    )
    assert can_livelock(tied.limits, rows_of(tied.requests))
    with pytest.raises(SimserveError, match="livelock: nothing ends within"):
        compare_case(tied, [], PlainScheduler)


def tied_in_rank(case: Case) -> Case:
    limits = dataclasses.replace(
        case.limits, scheduling_policy="priority", scheduler_reserve_full_isl=False
    )
    requests = dataclasses.replace(
        case.requests,
        arrival_ps=0 * case.requests.arrival_ps,
        priority=0 * case.requests.arrival_ps,
    )
    return dataclasses.replace(case, limits=limits, requests=requests)


def never_ends(case: Case) -> bool:
    try:
        by_the_plain_rules(case)
    except SimserveError:
        return True
    return False


def test_shrinking_keeps_what_was_looked_for_and_nothing_else() -> None:
    case = next(case for case in DRAWN if len(case.requests) > 10)

    def has_a_long_output(candidate: Case) -> bool:
        return bool((candidate.requests.output_tokens >= 2).any())

    small = shrink(case, has_a_long_output)
    assert small.requests.output_tokens.tolist() == [2]
    assert small.requests.prompt_tokens.tolist() == [1]
    assert small.limits.scheduling_policy == "fcfs"
    assert small.limits.max_num_seqs == 1
