"""Serves a request table for real: the simulator's scheduler decides, kernels run, time passes.

The two loops are those of ``simserve.engine.replica``. A step ends, and the next one starts,
at one reading of the clock, when its tokens have been handed on; who has arrived by then is in
the next plan. So the record says exactly what the scheduler saw, and a simulator that is fed
the recorded durations must decide the same.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from calibrate.engine.blocks import BlockTables
from calibrate.engine.measured import MeasuredSteps
from calibrate.engine.recorder import Recorder
from calibrate.engine.runner import PreparedStep, Runner
from calibrate.engine.timeline import Ticket, Timeline, timeline_for
from simserve.errors import InputError, SimserveError
from simserve.policy.limits import SchedulerLimits
from simserve.policy.registry import load_scheduler
from simserve.policy.scheduler import RequestView, Scheduler, StepPlan
from simserve.policy.token_stream import TokenStream
from simserve.records.requests import RequestTable
from simserve.records.run_record import RunMeta, RunRecord

SCHEDULER = "chunked-prefill"
"""The scheduler that replays run on unless told otherwise."""


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """A replay's record, what was measured of every step, and when it began (Unix seconds)."""

    record: RunRecord
    steps: MeasuredSteps
    began_unix_s: float


@dataclass(slots=True)
class _Step:
    """A step under way."""

    number: int
    start_ps: int
    admitted: list[int]
    tokens: list[tuple[int, bool]]  # who gets one when it ends, and whether by decoding
    plan: StepPlan
    prepared: PreparedStep | None = None  # None: nothing to compute
    ticket: Ticket | None = None


class Replay:
    """One replay of ``requests`` within ``limits`` on a runner.

    Raises:
        InputError: if the limits do not fit the runner's, or ask for prefix caching; or if
            requests wait for answers, or are given up.
    """

    def __init__(
        self,
        runner: Runner,
        requests: RequestTable,
        limits: SchedulerLimits,
        scheduler: str = SCHEDULER,
    ) -> None:
        _check_fits(runner.limits, limits)
        if requests.users is not None:
            raise InputError("engine", "users", requests.users, "arrivals that wait for nobody")
        if requests.give_up_ps is not None:
            raise InputError("engine", "requests", "clients that give up", "patient ones")
        self._runner, self._limits, self._requests = runner, limits, requests
        self._scheduler: Scheduler = load_scheduler(scheduler)(limits)
        self._hold: Callable[[list[int]], None] = getattr(self._scheduler, "hold", _cannot_hold)
        self._blocks = BlockTables(limits)
        self._recorder = Recorder(requests, limits.max_model_len)
        self._measured = MeasuredSteps()
        self._arrivals = _Arrivals(requests, self._recorder)
        self._sampled = [0] * len(requests)  # tokens, those in flight included
        self._time: Timeline
        self._now_ps = 0

    def run(self) -> ReplayResult:
        """Serve every request and return what happened.

        Raises:
            SimserveError: if requests are left that the scheduler never plans, if it counts
                other blocks than were handed out, if a token is none of the vocabulary, or a
                logit no number.
        """
        with torch.inference_mode(), _no_collecting():
            began_unix_s = time.time()
            self._time = timeline_for(self._runner.setup.device)
            (self._serve_ahead if self._limits.async_scheduling else self._serve_in_turn)()
            self._runner.check_finite()
        left = self._scheduler.running + self._scheduler.waiting
        if left:
            raise SimserveError(f"replay: {left} requests were never finished")
        meta = RunMeta(measured_on=str(self._runner.setup.device))
        record = self._recorder.record(
            self._limits.usable_blocks, self._limits.async_scheduling, meta
        )
        return ReplayResult(record, self._measured, began_unix_s)

    # -- the two loops

    def _serve_in_turn(self) -> None:
        """Plan a step, run it, hand on its tokens, again."""
        while True:
            step = self._begin(self._now_ps)
            if step is not None:
                self._start(step, self._now_ps)
                self._end(step)
            elif not self._sleep():
                return

    def _serve_ahead(self) -> None:
        """Plan each step while the one before it runs, before its tokens are known."""
        flight: _Step | None = None
        while True:
            if flight is not None:
                self._hold(self._last_tokens(flight))
            following = self._begin(self._now_ps)
            if flight is not None:
                self._end(flight)
            elif following is None and not self._sleep():
                return
            if following is not None:
                self._start(following, self._now_ps)
            flight = following

    def _sleep(self) -> bool:
        """Wait for the next arrival; return False if there is none."""
        arrival_ps = self._arrivals.next_ps
        if arrival_ps is None:
            return False
        self._time.idle_until(arrival_ps)
        self._now_ps = arrival_ps
        return True

    # -- one step

    def _begin(self, planned_ps: int) -> _Step | None:
        """Plan a step with all who have arrived by ``planned_ps``, and launch it."""
        clock, scheduler = self._time.now_ps, self._scheduler
        begin_ps = clock()
        for view in self._arrivals.until(planned_ps):
            scheduler.add(view)
        plan = scheduler.plan_step()
        if plan is None:
            return None
        scheduled = list(scheduler.last_scheduled()) if plan.tokens else []
        scheduled_ps = clock()
        self._blocks.apply(plan.admitted, plan.preempted, scheduled, plan.free_blocks)
        done = set(plan.prefill_done)
        step = _Step(
            number=self._recorder.plan(plan),
            start_ps=planned_ps,
            admitted=[admission.request for admission in plan.admitted],
            tokens=[(s.request, s.decode) for s in scheduled if s.decode or s.request in done],
            plan=plan,
        )
        for request, _ in step.tokens:
            self._sampled[request] += 1
        prepared_ps = launched_ps = scheduled_ps
        if scheduled:
            step.prepared = self._runner.prepare(scheduled, self._blocks)
            prepared_ps = clock()
            step.ticket = self._time.launch(step.prepared.work, step.prepared.copy_out)
            launched_ps = clock()
        self._measured.planned(
            scheduled,
            step.prepared.graph_size if step.prepared else 0,
            (scheduled_ps - begin_ps, prepared_ps - scheduled_ps, launched_ps - prepared_ps),
        )
        return step

    def _start(self, step: _Step, start_ps: int) -> None:
        step.start_ps = start_ps
        self._recorder.start(step.number, start_ps, step.admitted)

    def _end(self, step: _Step) -> None:
        """Wait for a step's tokens, hand them on, and read the clock once more."""
        if step.ticket is not None and step.prepared is not None:
            self._time.wait(step.ticket)
            ready_ps = self._time.now_ps()
            self._check_tokens(step.prepared)
            self._hand_on(step)
            self._now_ps = self._time.now_ps()
            self._measured.ended(step.number, step.ticket.device_s, self._now_ps - ready_ps)
        else:  # a step without work takes no time
            self._hand_on(step)
        self._recorder.close(step.number, self._now_ps, self._scheduler.free_blocks)

    def _hand_on(self, step: _Step) -> None:
        finished = self._recorder.deliver(step.number, step.tokens)
        self._scheduler.complete_step(step.plan, finished)
        self._blocks.finish(finished, self._scheduler.free_blocks)

    def _last_tokens(self, step: _Step) -> list[int]:
        """Return the requests whose last token a step samples."""
        stop = self._recorder.stop_tokens
        return [r for r, _ in step.tokens if self._sampled[r] == stop[r]]

    def _check_tokens(self, prepared: PreparedStep) -> None:
        sampled = prepared.sampled.numpy()
        most = self._runner.setup.model.vocab_size
        if len(sampled) and (sampled.min() < 0 or sampled.max() >= most):
            raise SimserveError(f"replay: a sampled token is not one of {most}")


class _Arrivals:
    """Requests in the order in which they arrive, as schedulers may see them."""

    def __init__(self, requests: RequestTable, recorder: Recorder) -> None:
        self._views = _views(requests)
        self._recorder = recorder
        self._next = next(self._views, None)
        self._skip_rejected()

    @property
    def next_ps(self) -> int | None:
        """When the next request arrives; None if all have."""
        return None if self._next is None else self._next.arrival_ps

    def until(self, time_ps: int) -> Iterator[RequestView]:
        """Yield all that arrive by ``time_ps`` and were not yielded yet."""
        while self._next is not None and self._next.arrival_ps <= time_ps:
            yield self._next
            self._next = next(self._views, None)
            self._skip_rejected()

    def _skip_rejected(self) -> None:
        """Pass over requests without room for a single token: they are refused at the door."""
        while self._next is not None and self._recorder.stop_tokens[self._next.request] < 1:
            self._recorder.reject(self._next.request)
            self._next = next(self._views, None)


def _views(requests: RequestTable) -> Iterator[RequestView]:
    for request in range(len(requests)):
        yield RequestView(
            request=request,
            prompt_tokens=int(requests.prompt_tokens[request]),
            stream=TokenStream.unshared(request),
            priority=0 if requests.priority is None else int(requests.priority[request]),
            arrival_ps=int(requests.arrival_ps[request]),
            request_id="" if requests.request_id is None else requests.request_id[request],
        )


def _check_fits(room: SchedulerLimits, limits: SchedulerLimits) -> None:
    """Refuse limits that the runner's buffers and cache were not made for."""
    for name in ("block_size", "max_model_len"):
        if getattr(limits, name) != getattr(room, name):
            allowed = f"{getattr(room, name)}, as the runner was made"
            raise InputError("engine", name, getattr(limits, name), allowed)
    for name in ("num_blocks", "max_num_batched_tokens", "max_running"):
        if getattr(limits, name) > getattr(room, name):
            allowed = f"at most {getattr(room, name)}, as the runner was made"
            raise InputError("engine", name, getattr(limits, name), allowed)


def _cannot_hold(requests: Sequence[int]) -> None:
    raise SimserveError("async scheduling needs a scheduler with a method hold()")


@contextmanager
def _no_collecting() -> Iterator[None]:
    """Let no garbage collection fall into a measured step."""
    gc.collect()
    gc.freeze()
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was:
            gc.enable()
