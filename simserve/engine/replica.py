"""One replica: steps follow each other, and time passes.

The loop is ``_advance``: ask the scheduler for a step, price it, deliver its tokens, again.
A replica runs ahead, inside one event of the world, until a step ends at or after the next
instant at which anything can touch it. A stretch of decode steps in which nothing can change
is one row of the log.
"""

from __future__ import annotations

from collections.abc import Generator
from heapq import heappop, heappush
from typing import Protocol

import simpy

from simserve.engine.ledger import RequestLedger
from simserve.engine.pricing import Pricing, steps_to_reach, stretch_ps
from simserve.engine.step_writer import StepWriter
from simserve.errors import SimserveError
from simserve.policy.router import ReplicaView
from simserve.policy.scheduler import RepeatingScheduler, RequestView, Scheduler, StepPlan
from simserve.records.clock import NEVER_PS
from simserve.records.run_record import FINISHED

FAR_PS = 1 << 62
"""Later than anything that happens."""

AFTER_ARRIVALS = 2
"""SimPy priority of a step's end: arrivals at the same instant come first (trap: requests
that arrive together belong in the same step)."""


class Horizon(Protocol):
    """Says until when nothing from outside can touch a replica."""

    def horizon_ps(self) -> int:
        """Return the next instant at which a request may arrive."""
        ...


Flight = tuple[StepPlan, int, int]
"""A planned and running step: the plan, how many equal steps, and when the last one ends."""


class StepObserver(Protocol):
    """Looks on while a run is checked; with one attached, every step is a row of its own."""

    def on_step(self, replica: Replica, plan: StepPlan, start_ps: int, end_ps: int) -> None:
        """See a step that was just planned."""
        ...

    def on_complete(self, replica: Replica, plan: StepPlan, finished: list[int]) -> None:
        """See a step whose tokens were just delivered."""
        ...


class Replica:
    """The state of one replica and its process in the world."""

    def __init__(
        self,
        env: simpy.Environment,
        number: int,
        scheduler: Scheduler,
        pricing: Pricing,
        ledger: RequestLedger,
        usable_blocks: int,
        world: Horizon,
        observer: StepObserver | None = None,
    ) -> None:
        self.number = number
        self.scheduler = scheduler
        self.ledger = ledger
        self.writer = StepWriter(usable_blocks)
        self.now_ps = 0
        self.outstanding = 0
        self.finished = 0
        self._env = env
        self._world = world
        self._pricing = pricing
        self._observer = observer
        repeats = hasattr(scheduler, "repeat_step") and observer is None
        self._repeating: RepeatingScheduler | None = scheduler if repeats else None  # type: ignore[assignment]
        self._steps = 0  # steps planned so far
        self._ticks = 0  # decode steps delivered so far
        self._finish_tick: dict[int, int] = {}  # decoding request -> its last decode step
        self._finishing: dict[int, list[int]] = {}  # decode step -> requests that it finishes
        self._finish_heap: list[int] = []
        self._gap_since: dict[int, int] = {}  # interrupted request -> step of its last token
        self._idle: simpy.Event | None = None

    def view(self) -> ReplicaView:
        """Return what a router may see."""
        return ReplicaView(self.outstanding, self.scheduler.waiting, self.scheduler.free_blocks)

    def submit(self, request: RequestView) -> None:
        """Hand over an arriving request."""
        self.outstanding += 1
        self.ledger.replica[request.request] = self.number
        self.scheduler.add(request)
        if self._idle is not None:
            wake, self._idle = self._idle, None
            _trigger(self._env, wake, 0)

    def serve(self) -> Generator[simpy.Event, None, None]:
        """Run the replica's steps as a process of the world."""
        env = self._env
        while True:
            flight = self._advance(self._world.horizon_ps())
            if flight is None:
                self._idle = env.event()
                yield self._idle
                self.now_ps = int(env.now)
            else:
                yield _trigger(env, env.event(), flight[2] - int(env.now))
                self._complete(flight)

    # -- the core loop

    def _advance(self, until_ps: int) -> Flight | None:
        """Run steps; return the first that ends at or after ``until_ps``, or None when idle."""
        while True:
            plan = self.scheduler.plan_step()
            if plan is None:
                return None
            flight = self._start(plan, until_ps)
            if flight[2] >= until_ps:
                return flight
            self._complete(flight)

    def _start(self, plan: StepPlan, until_ps: int) -> Flight:
        """Price a planned step, and as many equal ones as are sure to follow it in time."""
        start_ps, writer = self.now_ps, self.writer
        writer.new_blocks.append(plan.new_blocks)
        steps, growth_ps = 1, 0
        if plan.prefill:
            duration_ps = self._pricing.step_ps(plan)
            end_ps = start_ps + duration_ps
        elif plan.decode_seqs:
            context, seqs = plan.decode_context_tokens, plan.decode_seqs
            line = self._pricing.decode_line(plan.decode_slots, context)
            base_ps, per_context_ps, context_limit, _ = line
            duration_ps = base_ps + per_context_ps * context
            end_ps = start_ps + duration_ps
            if end_ps < until_ps and self._repeating is not None and duration_ps:
                growth_ps = per_context_ps * seqs
                most = min(self._steps_to_finish(), (context_limit - context) // seqs + 1)
                span_ps = until_ps - start_ps
                if most > 1 and most * (duration_ps + growth_ps * most) > span_ps:
                    most = min(most, steps_to_reach(span_ps, duration_ps, growth_ps))
                if most > 1:
                    more_blocks = self._repeating.repeat_step(most - 1)
                    writer.new_blocks.extend(more_blocks)
                    steps += len(more_blocks)
                    end_ps = start_ps + stretch_ps(steps, duration_ps, growth_ps)
        else:
            duration_ps, end_ps = 0, start_ps  # requests were preempted, none scheduled
        self._log(plan, steps, duration_ps, growth_ps)
        self._steps += steps
        if plan.admitted:
            self._note_admissions(plan, start_ps)
        if self._observer is not None:
            self._observer.on_step(self, plan, start_ps, end_ps)
        return plan, steps, end_ps

    def _complete(self, flight: Flight) -> None:
        """Deliver a flight's tokens: first tokens, finishes, interruptions."""
        plan, steps, end_ps = flight
        self.now_ps = end_ps
        last_step = self._steps - 1
        if plan.preempted:
            self._interrupt_preempted(plan.preempted, last_step)
        finished: list[int] = []
        if plan.decode_seqs:
            self._ticks += steps
            if plan.skipped:
                self._interrupt_skipped(plan.skipped, last_step)
            if self._gap_since:
                self._resume_decoding(plan.skipped, self._steps - steps)
            due = self._finishing.pop(self._ticks, None)
            if due:
                finished += due
        elif self._finish_tick:
            for request in self._finish_tick:
                self._gap_since.setdefault(request, last_step - 1)
        for request in plan.prefill_done:
            self._deliver_prefill(request, end_ps, last_step, finished)
        if finished:
            self._finish(finished, end_ps, last_step)
        scheduler = self.scheduler
        scheduler.complete_step(plan, finished)
        if finished:
            row = self.writer.row_count - 1
            self.writer.finishes.extend((row, len(finished), scheduler.free_blocks))
        if self._observer is not None:
            self._observer.on_complete(self, plan, finished)

    # -- details of starting

    def _steps_to_finish(self) -> int:
        """Return in how many decode steps the next request finishes."""
        heap = self._finish_heap
        while heap[0] not in self._finishing:
            heappop(heap)
        return heap[0] - self._ticks

    def _log(self, plan: StepPlan, steps: int, duration_ps: int, growth_ps: int) -> None:
        writer = self.writer
        writer.rows.extend(
            (
                steps,
                self.now_ps,
                duration_ps,
                growth_ps,
                plan.decode_seqs,
                plan.decode_context_tokens,
                plan.running,
                plan.waiting,
                plan.free_blocks,
            )
        )
        if plan.prefill or plan.preempted:
            tokens = context = hits = 0
            for _, new_tokens, past_tokens in plan.prefill:
                tokens += new_tokens
                context += new_tokens + past_tokens
            for _, cached_tokens, _ in plan.admitted:
                hits += cached_tokens
            writer.mixed.extend(
                (
                    writer.row_count,
                    len(plan.prefill),
                    tokens,
                    context,
                    len(plan.admitted),
                    hits,
                    len(plan.preempted),
                )
            )
        writer.row_count += 1

    def _note_admissions(self, plan: StepPlan, start_ps: int) -> None:
        ledger = self.ledger
        for request, cached_tokens, _ in plan.admitted:
            if ledger.first_scheduled_ps[request] == NEVER_PS:
                ledger.first_scheduled_ps[request] = start_ps
                ledger.cached_tokens[request] = cached_tokens

    # -- details of delivering

    def _deliver_prefill(self, request: int, end_ps: int, step: int, finished: list[int]) -> None:
        ledger = self.ledger
        generated = ledger.generated_tokens[request] + 1
        ledger.generated_tokens[request] = generated
        if generated == 1:
            ledger.first_token_ps[request] = end_ps
            ledger.first_token_step[request] = step
        else:
            ledger.note_gap(request, self._gap_since.pop(request), step, False)
        left = ledger.stop_tokens[request] - generated
        if left:
            self._set_finish(request, self._ticks + left)
        else:
            finished.append(request)

    def _set_finish(self, request: int, tick: int) -> None:
        self._finish_tick[request] = tick
        due = self._finishing.get(tick)
        if due is None:
            self._finishing[tick] = [request]
            heappush(self._finish_heap, tick)
        else:
            due.append(request)

    def _unset_finish(self, request: int) -> int:
        tick = self._finish_tick.pop(request)
        due = self._finishing[tick]
        due.remove(request)
        if not due:
            del self._finishing[tick]
        return tick

    def _interrupt_preempted(self, preempted: list[int], step: int) -> None:
        ledger = self.ledger
        for request in preempted:
            ledger.preemptions[request] += 1
            if request in self._finish_tick:
                left = self._unset_finish(request) - self._ticks
                ledger.generated_tokens[request] = ledger.stop_tokens[request] - left
                self._gap_since.setdefault(request, step - 1)

    def _interrupt_skipped(self, skipped: list[int], step: int) -> None:
        for request in skipped:
            self._set_finish(request, self._unset_finish(request) + 1)
            self._gap_since.setdefault(request, step - 1)

    def _resume_decoding(self, skipped: list[int], step: int) -> None:
        resumed = [r for r in self._gap_since if r in self._finish_tick and r not in skipped]
        for request in resumed:
            self.ledger.note_gap(request, self._gap_since.pop(request), step, True)

    def _finish(self, finished: list[int], end_ps: int, step: int) -> None:
        ledger = self.ledger
        for request in finished:
            self._finish_tick.pop(request, None)
            ledger.finish_ps[request] = end_ps
            ledger.last_token_step[request] = step
            ledger.generated_tokens[request] = ledger.stop_tokens[request]
            ledger.status[request] = FINISHED
        self.outstanding -= len(finished)
        self.finished += len(finished)

    def stop(self) -> None:
        """Raise unless everything submitted was served."""
        if self.outstanding:
            raise SimserveError(
                f"replica {self.number}: {self.outstanding} requests were never finished: the "
                f"scheduler planned nothing although {self.scheduler.waiting} wait"
            )


def _trigger(env: simpy.Environment, event: simpy.Event, delay_ps: int) -> simpy.Event:
    """Let ``event`` happen after ``delay_ps``, behind all arrivals at that instant."""
    event._ok = True
    event._value = None
    env.schedule(event, priority=AFTER_ARRIVALS, delay=delay_ps)  # type: ignore[arg-type]
    return event
