"""Latency models that read every context: the engine hands them what the scheduler batches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, given, settings

from simserve.engine.cluster import Cluster
from simserve.engine.world import StepObserver
from simserve.latency.model import DecodeLine
from simserve.parity.case import Case
from simserve.policy.cohort import CohortScheduler
from simserve.policy.plain import PlainScheduler
from simserve.policy.router import RoundRobin
from simserve.policy.scheduler import Scheduler
from simserve.records.run_record import RunRecord
from simserve.records.step import StepShape
from tests.policy.scenarios import cases
from tests.policy.test_cohort_equals_plain import assert_same_run

QUICK = settings(max_examples=150, suppress_health_check=list(HealthCheck))
BASE_PS, PER_TOKEN_PS, SPAN = 1_000_000, 70, 5


class LongestContext:
    """A decode step costs what its longest context does, times the batch."""

    reads_contexts = True

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def step_s(self, shape: StepShape) -> float:
        assert shape.decode_contexts is not None
        assert int(shape.decode_contexts.sum()) == shape.decode_context_tokens
        self.seen.append(tuple(shape.decode_contexts.tolist()))
        longest = max(shape.decode_contexts.tolist(), default=0)
        return (BASE_PS + shape.tokens * 1000 + longest) * 1e-12

    def decode_line(self, decode_seqs: int, decode_context_tokens: int) -> DecodeLine:
        raise AssertionError("a model that reads contexts is not asked for the sum alone")

    def uneven_decode_line(self, decode_slots: int, contexts: npt.NDArray[np.int64]) -> DecodeLine:
        self.seen.append(tuple(contexts.tolist()))
        seqs, total, longest = len(contexts), int(contexts.sum()), int(contexts.max())
        base_ps = BASE_PS + PER_TOKEN_PS * (seqs * longest - total)
        return DecodeLine(base_ps, PER_TOKEN_PS, total + SPAN * seqs)


class Spectator:
    """Makes every step a row of its own."""

    def on_step(self, *_: object) -> None:
        """See nothing."""

    def on_abort(self, *_: object) -> None:
        """See nothing."""

    def on_complete(self, *_: object) -> None:
        """See nothing."""


def served(
    case: Case,
    scheduler: type[Scheduler],
    model: LongestContext,
    observer: StepObserver | None = None,
) -> RunRecord:
    return Cluster(case.requests, case.limits, scheduler, model, RoundRobin(), 1, observer).run()


@QUICK
@given(cases())
def test_both_schedulers_give_the_same_contexts_in_the_same_order(case: Case) -> None:
    quick, plain = LongestContext(), LongestContext()
    one = served(case, CohortScheduler, quick, Spectator())
    other = served(case, PlainScheduler, plain, Spectator())
    assert quick.seen == plain.seen
    assert_same_run(one, other)


@QUICK
@given(cases())
def test_a_stretch_costs_what_its_steps_do_one_by_one(case: Case) -> None:
    single = served(case, CohortScheduler, LongestContext(), Spectator())
    stretched = served(case, CohortScheduler, LongestContext())
    assert_same_run(single, stretched)


class NotInterested(LongestContext):
    """Can read contexts, and does not want to."""

    reads_contexts = False

    def step_s(self, shape: StepShape) -> float:
        self.seen.append(() if shape.decode_contexts is None else (1,))
        return BASE_PS * 1e-12

    def decode_line(self, decode_seqs: int, decode_context_tokens: int) -> DecodeLine:
        return DecodeLine(BASE_PS, PER_TOKEN_PS, decode_context_tokens)


@settings(QUICK, max_examples=20)
@given(cases())
def test_contexts_are_not_collected_for_a_model_that_does_not_want_them(case: Case) -> None:
    model = NotInterested()
    served(case, CohortScheduler, model)
    assert set(model.seen) == {()}
