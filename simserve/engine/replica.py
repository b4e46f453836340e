"""One replica: steps follow each other, and time passes.

The loop is ``_serve_in_turn``, or ``_serve_ahead`` with async scheduling: ask the scheduler for
a step, price it, deliver its tokens, again. A replica runs ahead, inside one event of the
world, until a step ends at or after the next instant at which anything can touch it. A stretch
of decode steps in which nothing can change is one row of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import simpy

from simserve.engine.deliveries import NOBODY, Deliveries
from simserve.engine.flight import Flight
from simserve.engine.give_ups import GiveUps
from simserve.engine.ledger import RequestLedger
from simserve.engine.pricing import Pricing, steps_to_reach, stretch_ps
from simserve.engine.step_writer import StepWriter
from simserve.engine.world import StepObserver, World
from simserve.errors import SimserveError
from simserve.policy.router import ReplicaView
from simserve.policy.scheduler import RepeatingScheduler, RequestView, Scheduler, StepPlan
from simserve.records.clock import NEVER_PS

AFTER_ARRIVALS = 2
"""SimPy priority of a step's end: arrivals at the same instant come first (trap: requests
that arrive together belong in the same step)."""


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
        world: World,
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
        self._deliveries = Deliveries(ledger)
        self._steps = 0  # steps planned so far
        self._idle: simpy.Event | None = None
        self._contexts = _contexts_of(scheduler) if pricing.reads_contexts else None
        self._give_ups = GiveUps.of(ledger)
        self._drop: Callable[[list[int]], None] = getattr(scheduler, "abort", _drop_nothing)
        self._gave_up = NOBODY  # when the last step ended
        # When somebody arrives, the step after the one under way is planned already. Not taken
        # into a stretch if clients give up: who arrives may be gone when the first one ends.
        self._planned_past = int(ahead and self._give_ups is None)
        self._hold: Callable[[list[int]], None] = getattr(scheduler, "hold", _hold_nothing)

    def view(self) -> ReplicaView:
        """Return what a router may see."""
        return ReplicaView(self.outstanding, self.scheduler.waiting, self.scheduler.free_blocks)

    def submit(self, request: RequestView) -> None:
        """Hand over an arriving request."""
        self.outstanding += 1
        self.ledger.replica[request.request] = self.number
        if self._give_ups is not None:
            self._give_ups.expect(request.request, request.arrival_ps)
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
            if plan.only_decodes and flight.end_ps < until_ps:
                self._extend(flight, until_ps)
            self.writer.write(flight)
            if flight.end_ps >= until_ps:
                yield self._wait(flight.end_ps)
                until_ps = self._world.horizon_ps()
            if self._complete(flight):
                until_ps = self._world.horizon_ps()
                if until_ps <= self.now_ps:  # somebody asks again at once
                    yield self._wait(self.now_ps)
                    until_ps = self._world.horizon_ps()

    def _serve_ahead(self) -> Generator[simpy.Event, None, None]:
        """Plan each step when the one before it starts, before its tokens are known.

        vLLM's async scheduling (``EngineCore.step_with_batch_queue``, two steps in flight).
        """
        scheduler, deliveries = self.scheduler, self._deliveries
        flight: Flight | None = None
        until_ps = self._world.horizon_ps()
        while True:
            left = 0
            if flight is None:
                planned_ps = start_ps = self.now_ps
            else:
                planned_ps, start_ps = flight.last_start_ps, flight.end_ps
                if planned_ps >= until_ps:
                    yield self._wait(planned_ps)
                    until_ps = self._world.horizon_ps()
                last = deliveries.last_tokens(flight)
                if last:
                    self._hold(last)
            plan = scheduler.plan_step()
            following = None if plan is None else self._launch(plan, planned_ps, start_ps)
            if flight is not None:
                if start_ps >= until_ps:
                    yield self._wait(start_ps)
                    until_ps = self._world.horizon_ps()
                if self._complete(flight, plan is None):
                    until_ps = self._world.horizon_ps()
                    left = plan.running - scheduler.running if plan is not None else 0
            elif following is None:
                yield self._sleep()
                self.now_ps = int(self._env.now)
                until_ps = self._world.horizon_ps()
            if following is not None:
                if following.plan.only_decodes and start_ps < until_ps and not self._gave_up:
                    self._extend(following, until_ps, left)
                self.writer.write(following)
            flight = following

    def _sleep(self) -> simpy.Event:
        """Return an event that happens when a request is submitted."""
        self._idle = self._env.event()
        return self._idle

    def _wait(self, until_ps: int) -> simpy.Event:
        return _trigger(self._env, self._env.event(), until_ps - int(self._env.now))

    # -- a step begins

    def _launch(self, plan: StepPlan, planned_ps: int, start_ps: int) -> Flight:
        """Price a planned step."""
        contexts = None if self._contexts is None else self._contexts()
        if plan.prefill:
            duration_ps = self._pricing.step_ps(plan, contexts)
            flight = Flight(plan, start_ps, duration_ps, 0, self._steps)
        elif plan.decode_seqs:
            context = plan.decode_context_tokens
            if contexts is None:
                line = self._pricing.decode_line(plan.decode_slots, context)
            else:
                line = self._pricing.uneven_line(plan.decode_slots, contexts)
            duration_ps = line[0] + line[1] * context
            flight = Flight(plan, start_ps, duration_ps, line[1] * plan.decode_seqs, self._steps)
            flight.context_limit = line[2]
        else:
            flight = Flight(plan, start_ps, 0, 0, self._steps)  # some preempted, none scheduled
        self._steps += 1
        self.writer.new_blocks.append(plan.new_blocks)
        if plan.admitted:
            self._note_admissions(plan, start_ps)
        if self._observer is not None:
            self._observer.on_step(self, flight, planned_ps)
        return flight

    def _extend(self, flight: Flight, until_ps: int, left: int = 0) -> None:
        """Plan more steps like the flight's, as many as are sure to follow it in time.

        A step is planned when the one before it ends, or starts if planned ahead: before
        ``until_ps``, the next instant at which anything can arrive. ``left`` requests have
        finished since the flight's first step was planned.
        """
        plan, duration_ps, growth_ps = flight.plan, flight.duration_ps, flight.growth_ps
        most = self._deliveries.steps_to_finish()
        if most == 1 or not duration_ps or self._repeating is None:
            return
        if most * plan.decode_seqs > flight.context_limit - plan.decode_context_tokens:
            room = flight.context_limit - plan.decode_context_tokens
            most = min(most, room // plan.decode_seqs + 1)
        span_ps = until_ps - flight.start_ps
        if most * (duration_ps + growth_ps * most) > span_ps:
            reach = steps_to_reach(span_ps, duration_ps, growth_ps) + self._planned_past
            if reach < most:
                most = reach
        if self._give_ups is not None:
            span_ps = self._give_ups.next_ps() - flight.start_ps
            if most * (duration_ps + growth_ps * most) > span_ps:
                most = min(most, steps_to_reach(span_ps, duration_ps, growth_ps))
        if most == 1 or (self._ahead and self.scheduler.waiting != plan.waiting):
            return  # a row has one length of the queue
        more_blocks = self._repeating.repeat_step(most - 1)
        more = len(more_blocks)
        self.writer.new_blocks.extend(more_blocks)
        self._steps += more
        flight.steps += more
        flight.last_start_ps += stretch_ps(more, duration_ps, growth_ps)
        flight.end_ps = flight.last_start_ps + duration_ps + more * growth_ps
        if left and more:
            free = self.scheduler.free_blocks + sum(more_blocks)
            self.writer.leavers.extend((self.writer.row_count, left, free - plan.free_blocks))

    # -- a step ends

    def _complete(self, flight: Flight, nothing_follows: bool = False) -> bool:
        """Deliver a flight's tokens; return whether anybody left."""
        plan = flight.plan
        self.now_ps = flight.end_ps
        gave_up = NOBODY if self._give_ups is None else self._abort(flight)
        finished = self._deliveries.deliver(flight)
        scheduler = self.scheduler
        if finished or gave_up or nothing_follows:
            self.outstanding -= len(finished)
            self.finished += len(finished)
            scheduler.complete_step(plan, finished)
            self.writer.finishes.extend(
                (flight.row, len(finished), len(gave_up), scheduler.free_blocks)
            )
            self._world.on_finish(gave_up + finished, flight.end_ps)
        else:
            scheduler.complete_step(plan, NOBODY)
        if self._observer is not None:
            self._observer.on_complete(self, plan, finished)
        return bool(finished or gave_up)

    def _abort(self, flight: Flight) -> list[int]:
        """Drop the requests that clients gave up by the end of a flight; return them."""
        if self._give_ups is None:
            return NOBODY
        gave_up = self._gave_up = self._give_ups.due(flight.end_ps)
        if gave_up:
            self.outstanding -= len(gave_up)
            self._deliveries.abort(gave_up, flight)
            self._drop(gave_up)
            if self._observer is not None:
                self._observer.on_abort(self, gave_up)
        return gave_up

    def _note_admissions(self, plan: StepPlan, start_ps: int) -> None:
        ledger = self.ledger
        for request, cached_tokens, _ in plan.admitted:
            if ledger.first_scheduled_ps[request] == NEVER_PS:
                ledger.first_scheduled_ps[request] = start_ps
                ledger.cached_tokens[request] = cached_tokens

    def stop(self) -> None:
        """Raise unless everything submitted was served."""
        if self.outstanding:
            raise SimserveError(
                f"replica {self.number}: {self.outstanding} requests were never finished: the "
                f"scheduler planned nothing although {self.scheduler.waiting} wait"
            )


def _hold_nothing(requests: list[int]) -> None:
    raise SimserveError("async scheduling needs a scheduler with a method hold()")


def _drop_nothing(requests: list[int]) -> None:
    raise SimserveError("clients that give up need a scheduler with a method abort()")


def _contexts_of(scheduler: Scheduler) -> Callable[[], list[int]]:
    """Return how to ask for the contexts of the decodes of the last planned step."""

    def one_by_one() -> list[int]:
        return [entry.past_tokens + 1 for entry in scheduler.last_scheduled() if entry.decode]

    quick: Callable[[], list[int]] = getattr(scheduler, "decode_contexts", one_by_one)
    return quick


def _trigger(env: simpy.Environment, event: simpy.Event, delay_ps: int) -> simpy.Event:
    """Let ``event`` happen after ``delay_ps``, behind all arrivals at that instant."""
    event._ok = True
    event._value = None
    env.schedule(event, priority=AFTER_ARRIVALS, delay=delay_ps)  # type: ignore[arg-type]
    return event
