"""One replica: steps follow each other, and time passes.

The loop is ``_advance``: ask the scheduler for a step, price it, deliver its tokens, again.
A replica runs ahead, inside one event of the world, until a step ends at or after the next
instant at which anything can touch it. A stretch of decode steps in which nothing can change
is one row of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
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


class Flight:
    """A planned step and the equal ones that follow it: one row of the log."""

    __slots__ = (
        "context_limit",
        "duration_ps",
        "end_ps",
        "first_step",
        "growth_ps",
        "last_start_ps",
        "plan",
        "row",
        "start_ps",
        "steps",
    )

    row: int  # in the log, once it is written

    def __init__(
        self,
        plan: StepPlan,
        start_ps: int,
        duration_ps: int,
        growth_ps: int,
        first_step: int,
        context_limit: int,
    ) -> None:
        self.plan = plan
        self.start_ps = self.last_start_ps = start_ps
        self.duration_ps = duration_ps  # of the first step
        self.growth_ps = growth_ps  # added with every further step
        self.end_ps = start_ps + duration_ps
        self.first_step = first_step
        self.context_limit = context_limit  # up to which the growth is the same
        self.steps = 1


class StepObserver(Protocol):
    """Looks on while a run is checked; with one attached, every step is a row of its own."""

    def on_step(self, replica: Replica, flight: Flight, planned_ps: int) -> None:
        """See a step that was just planned, at ``planned_ps``."""
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
        ahead: bool = False,
        observer: StepObserver | None = None,
    ) -> None:
        self.number = number
        self.scheduler = scheduler
        self.ledger = ledger
        self.writer = StepWriter(usable_blocks, ahead)
        self.now_ps = 0
        self.outstanding = 0
        self.finished = 0
        self._env = env
        self._world = world
        self._pricing = pricing
        self._ahead = ahead
        self._observer = observer
        repeats = hasattr(scheduler, "repeat_step") and observer is None
        self._repeating: RepeatingScheduler | None = scheduler if repeats else None  # type: ignore[assignment]
        self._steps = 0  # steps planned so far
        self._ticks = 0  # decode steps delivered so far
        self._finish_tick: dict[int, int] = {}  # decoding request -> its last decode step
        self._finishing: dict[int, list[int]] = {}  # decode step -> requests that it finishes
        self._finish_heap: list[int] = []
        self._left = 0  # requests that finished since the following step was planned
        self._gap_since: dict[int, int] = {}  # interrupted request -> step of its last token
        self._idle: simpy.Event | None = None
        self._hold: Callable[[list[int]], None] = getattr(scheduler, "hold", _hold_nothing)

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
        return self._serve_ahead() if self._ahead else self._serve_in_turn()

    # -- the core loop

    def _serve_in_turn(self) -> Generator[simpy.Event, None, None]:
        """Plan a step, run it, deliver its tokens, again."""
        until_ps = self._world.horizon_ps()
        while True:
            plan = self.scheduler.plan_step()
            if plan is None:
                yield self._sleep()
                self.now_ps = int(self._env.now)
                until_ps = self._world.horizon_ps()
                continue
            flight = self._launch(plan, self.now_ps, self.now_ps)
            if flight.end_ps < until_ps:
                self._extend(flight, until_ps)
            self._log(flight)
            if flight.end_ps >= until_ps:
                yield self._wait(flight.end_ps)
                until_ps = self._world.horizon_ps()
            self._complete(flight)

    def _serve_ahead(self) -> Generator[simpy.Event, None, None]:
        """Plan each step when the one before it starts, before its tokens are known.

        vLLM's async scheduling (``EngineCore.step_with_batch_queue``, two steps in flight).
        """
        flight: Flight | None = None
        until_ps = self._world.horizon_ps()
        while True:
            if flight is not None and flight.last_start_ps >= until_ps:
                yield self._wait(flight.last_start_ps)
                until_ps = self._world.horizon_ps()
            following = self._plan_ahead(flight)
            if flight is not None:
                if flight.end_ps >= until_ps:
                    yield self._wait(flight.end_ps)
                    until_ps = self._world.horizon_ps()
                self._complete(flight)
                if following is not None:
                    self._left = following.plan.running - self.scheduler.running
            elif following is None:
                yield self._sleep()
                self.now_ps = int(self._env.now)
                until_ps = self._world.horizon_ps()
            if following is not None:
                if self.now_ps < until_ps:
                    self._extend(following, until_ps)
                self._log(following)
            flight = following

    def _plan_ahead(self, flight: Flight | None) -> Flight | None:
        """Plan the step after ``flight``, at the start of its last step; None if there is none."""
        planned_ps = start_ps = self.now_ps
        if flight is not None:
            planned_ps, start_ps = flight.last_start_ps, flight.end_ps
            if flight.plan.prefill_done or self._ticks + flight.steps in self._finishing:
                self._hold(self._last_tokens(flight))
        plan = self.scheduler.plan_step()
        return None if plan is None else self._launch(plan, planned_ps, start_ps)

    def _sleep(self) -> simpy.Event:
        """Return an event that happens when a request is submitted."""
        self._idle = self._env.event()
        return self._idle

    def _wait(self, until_ps: int) -> simpy.Event:
        return _trigger(self._env, self._env.event(), until_ps - int(self._env.now))

    # -- a step begins

    def _launch(self, plan: StepPlan, planned_ps: int, start_ps: int) -> Flight:
        """Price a planned step."""
        growth_ps = context_limit = 0
        if plan.prefill:
            duration_ps = self._pricing.step_ps(plan)
        elif plan.decode_seqs:
            context = plan.decode_context_tokens
            line = self._pricing.decode_line(plan.decode_slots, context)
            base_ps, per_context_ps, context_limit, _ = line
            duration_ps = base_ps + per_context_ps * context
            growth_ps = per_context_ps * plan.decode_seqs
        else:
            duration_ps = 0  # requests were preempted, none scheduled
        flight = Flight(plan, start_ps, duration_ps, growth_ps, self._steps, context_limit)
        self._steps += 1
        self.writer.new_blocks.append(plan.new_blocks)
        if plan.admitted:
            self._note_admissions(plan, start_ps)
        if self._observer is not None:
            self._observer.on_step(self, flight, planned_ps)
        return flight

    def _extend(self, flight: Flight, until_ps: int) -> None:
        """Plan more steps like the flight's, as many as are sure to follow it in time.

        A step is planned when the one before it ends, or starts if planned ahead: before
        ``until_ps``, the next instant at which anything can arrive.
        """
        plan, duration_ps, growth_ps = flight.plan, flight.duration_ps, flight.growth_ps
        if self._repeating is None or plan.prefill or not duration_ps:
            return
        most = self._steps_to_finish()
        if most == 1:
            return
        seqs, context_left = plan.decode_seqs, flight.context_limit - plan.decode_context_tokens
        if most * seqs > context_left:
            most = min(most, context_left // seqs + 1)
        span_ps = until_ps - flight.start_ps
        if most * (duration_ps + growth_ps * most) > span_ps:
            reach = steps_to_reach(span_ps, duration_ps, growth_ps) + self._ahead
            if reach < most:
                most = reach
        if self._ahead and self.scheduler.waiting != plan.waiting:
            return  # a row has one length of the queue
        more_blocks = self._repeating.repeat_step(most - 1) if most > 1 else ()
        more = len(more_blocks)
        if not more:
            return
        self.writer.new_blocks.extend(more_blocks)
        self._steps += more
        flight.steps += more
        flight.last_start_ps += stretch_ps(more, duration_ps, growth_ps)
        flight.end_ps = flight.last_start_ps + duration_ps + more * growth_ps
        if self._left:
            # Requests that finished between a row's first plan and its second.
            free = self.scheduler.free_blocks + sum(more_blocks)
            row = self.writer.row_count
            self.writer.leavers.extend((row, self._left, free - plan.free_blocks))

    # -- a step ends

    def _complete(self, flight: Flight) -> None:
        """Deliver a flight's tokens: first tokens, finishes, interruptions."""
        plan, end_ps = flight.plan, flight.end_ps
        last_step = flight.first_step + flight.steps - 1
        self.now_ps = end_ps
        if plan.preempted:
            self._interrupt_preempted(plan.preempted, last_step)
        finished: list[int] = []
        if plan.decode_seqs:
            self._ticks += flight.steps
            if plan.skipped:
                self._interrupt_skipped(plan.skipped, last_step)
            if self._gap_since:
                self._resume_decoding(plan.skipped, flight.first_step)
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
            self.writer.finishes.extend((flight.row, len(finished), scheduler.free_blocks))
        if self._observer is not None:
            self._observer.on_complete(self, plan, finished)

    # -- details of beginning

    def _steps_to_finish(self) -> int:
        """Return in how many decode steps the next request finishes."""
        heap = self._finish_heap
        while heap[0] not in self._finishing:
            heappop(heap)
        return heap[0] - self._ticks

    def _last_tokens(self, flight: Flight) -> list[int]:
        """Return the requests whose last token the flight's last step samples."""
        plan, ledger = flight.plan, self.ledger
        last: list[int] = []
        if plan.decode_seqs:
            due = self._finishing.get(self._ticks + flight.steps, ())
            last = [request for request in due if request not in plan.skipped]
        for request in plan.prefill_done:
            if ledger.generated_tokens[request] + 1 == ledger.stop_tokens[request]:
                last.append(request)
        return last

    def _log(self, flight: Flight) -> None:
        plan, writer = flight.plan, self.writer
        flight.row = writer.row_count
        writer.write_row(
            flight.steps,
            flight.start_ps,
            flight.duration_ps,
            flight.growth_ps,
            plan.decode_seqs,
            plan.decode_context_tokens,
            plan.running,
            plan.waiting,
            plan.free_blocks,
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
                    flight.row,
                    len(plan.prefill),
                    tokens,
                    context,
                    len(plan.admitted),
                    hits,
                    len(plan.preempted),
                )
            )

    def _note_admissions(self, plan: StepPlan, start_ps: int) -> None:
        ledger = self.ledger
        for request, cached_tokens, _ in plan.admitted:
            if ledger.first_scheduled_ps[request] == NEVER_PS:
                ledger.first_scheduled_ps[request] = start_ps
                ledger.cached_tokens[request] = cached_tokens

    # -- details of ending

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

    def _interrupt_preempted(self, preempted: Sequence[int], step: int) -> None:
        ledger = self.ledger
        for request in preempted:
            ledger.preemptions[request] += 1
            if request in self._finish_tick:
                left = self._unset_finish(request) - self._ticks
                ledger.generated_tokens[request] = ledger.stop_tokens[request] - left
                self._gap_since.setdefault(request, step - 1)

    def _interrupt_skipped(self, skipped: Sequence[int], step: int) -> None:
        for request in skipped:
            self._set_finish(request, self._unset_finish(request) + 1)
            self._gap_since.setdefault(request, step - 1)

    def _resume_decoding(self, skipped: Sequence[int], step: int) -> None:
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


def _hold_nothing(requests: list[int]) -> None:
    raise SimserveError("async scheduling needs a scheduler with a method hold()")


def _trigger(env: simpy.Environment, event: simpy.Event, delay_ps: int) -> simpy.Event:
    """Let ``event`` happen after ``delay_ps``, behind all arrivals at that instant."""
    event._ok = True
    event._value = None
    env.schedule(event, priority=AFTER_ARRIVALS, delay=delay_ps)  # type: ignore[arg-type]
    return event
