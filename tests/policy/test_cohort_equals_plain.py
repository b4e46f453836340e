"""The fast scheduler against the plain one: the same steps on any workload."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings

from simserve.engine.cluster import Cluster
from simserve.engine.invariants import LawChecker
from simserve.parity.case import Case
from simserve.parity.case_writer import CaseWriter
from simserve.parity.verify import serve_case
from simserve.policy.cohort import CohortScheduler
from simserve.policy.plain import PlainScheduler
from simserve.policy.router import RoundRobin
from simserve.records.run_record import ABORTED, FINISHED, REJECTED, RunRecord
from tests.policy.scenarios import cases

THOROUGH = settings(max_examples=400, suppress_health_check=list(HealthCheck))


@THOROUGH
@given(cases())
def test_cohort_plans_the_same_steps_as_the_plain_scheduler(case: Case) -> None:
    plain, cohort = CaseWriter(), CaseWriter()
    plain_run = serve_case(case, PlainScheduler, plain)
    cohort_run = serve_case(case, CohortScheduler, cohort)
    assert cohort.records == plain.records
    assert_same_run(plain_run, cohort_run)


@THOROUGH
@given(cases())
def test_stretches_equal_single_steps(case: Case) -> None:
    single = serve_case(case, CohortScheduler, CaseWriter())
    stretched = serve_case(case, CohortScheduler)
    assert_same_run(single, stretched)
    assert all(len(a) >= len(b) for a, b in zip(single.steps, stretched.steps, strict=True))


@THOROUGH
@given(cases())
def test_every_law_holds_on_every_step(case: Case) -> None:
    for scheduler in (PlainScheduler, CohortScheduler):
        run = Cluster(
            case.requests,
            case.limits,
            scheduler,
            case.step_time,
            RoundRobin(),
            1,
            LawChecker(case.limits),
        ).run()
        assert np.isin(run.outcomes.status, [FINISHED, REJECTED, ABORTED]).all()
        served = run.outcomes.status == FINISHED
        requests, outcomes = run.requests, run.outcomes
        arrival, first = requests.arrival_ps[served], outcomes.first_scheduled_ps[served]
        token, finish = outcomes.first_token_ps[served], outcomes.finish_ps[served]
        assert (arrival <= first).all() and (first < token).all() and (token <= finish).all()
        room = case.limits.max_model_len - requests.prompt_tokens
        asked = np.minimum(requests.output_tokens, room)[served]
        assert (outcomes.generated_tokens[served] == asked).all()


def assert_same_run(one: RunRecord, other: RunRecord) -> None:
    """Assert that two runs have the same outcomes, gaps and steps, whatever their rows."""
    for name in one.outcomes.__slots__:
        a, b = getattr(one.outcomes, name), getattr(other.outcomes, name)
        assert (a == b).all(), name
    for name in one.gaps.__slots__:
        assert getattr(one.gaps, name).tolist() == getattr(other.gaps, name).tolist(), name
    for mine, theirs in zip(one.steps, other.steps, strict=True):
        left, right = mine.expand(), theirs.expand()
        for name, column in left.items():
            assert column.tolist() == right[name].tolist(), name
    assert one.end_ps == other.end_ps
