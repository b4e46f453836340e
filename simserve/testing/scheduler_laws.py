"""The laws that any scheduler must obey, tried on random workloads.

``check_scheduler(MyScheduler)`` drives the class through its protocol alone (no clock, no
latencies) and raises ``LawBrokenError`` with the seed at the first law that does not hold:

- nothing is lost: every request that fits is finished, and until then runs or waits
- a step never holds more tokens than the budget, nor more requests than may run
- a request goes on exactly where it stopped, and never past its known tokens
- blocks are conserved: enough are held for what was computed, and all return in the end
- a scheduler with work is never idle for good
- the same calls give the same decisions, with ``repeat_step`` or without
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, cast

from simserve.engine.invariants import LawBrokenError
from simserve.policy.limits import SchedulerLimits
from simserve.policy.scheduler import (
    Admission,
    RepeatingScheduler,
    Scheduled,
    Scheduler,
    StepPlan,
)
from simserve.testing.trial import Trial, random_trial

SchedulerFactory = Callable[[SchedulerLimits], Scheduler]

STEPS_PER_TOKEN = 20
"""Steps after which a request counts as lost, per token of the workload."""


class Decision(NamedTuple):
    """What must be the same again when the same calls are made."""

    scheduled: tuple[Scheduled, ...]
    admitted: tuple[Admission, ...]
    preempted: tuple[int, ...]
    new_blocks: int
    free_blocks: int


Decisions = dict[int, Decision]
"""By step; a step that repeats the one before is not in it."""


def check_scheduler(
    factory: SchedulerFactory, *, seeds: Iterable[int] = range(20), whole_prompts: bool = False
) -> None:
    """Raise ``LawBrokenError`` unless the schedulers that ``factory`` makes obey the laws.

    ``factory`` is a scheduler class, or anything else that is called with the limits. Every
    seed is one random workload; even ones fit in the KV blocks, odd ones must preempt. With
    ``whole_prompts`` the token budget always holds the longest prompt.
    """
    for seed in seeds:
        trial = random_trial(seed, whole_prompts=whole_prompts)
        first = _Drive(trial, factory(trial.limits)).run()
        again = _Drive(trial, factory(trial.limits)).run()
        _same(seed, first, again, "decided {}, and on the same calls {}")
        scheduler = factory(trial.limits)
        if hasattr(scheduler, "repeat_step"):
            in_stretches = _Drive(trial, scheduler, repeat=True).run()
            _same(seed, first, in_stretches, "step by step decided {}, with repeat_step {}")


def _same(seed: int, first: Decisions, second: Decisions, difference: str) -> None:
    for step, decision in second.items():
        if first.get(step) != decision:
            what = difference.format(first.get(step), decision)
            raise LawBrokenError(f"seed {seed}: step {step}: {what}")


class _Drive:
    """One scheduler, one workload, and the books that are kept beside the scheduler's own."""

    def __init__(self, trial: Trial, scheduler: Scheduler, *, repeat: bool = False) -> None:
        self._trial, self._limits, self._scheduler = trial, trial.limits, scheduler
        self._repeating = cast(RepeatingScheduler, scheduler) if repeat else None
        self._known = [view.prompt_tokens for view in trial.requests]
        self._left = list(trial.output_tokens)
        self._computed: dict[int, int] = {}  # running request -> its tokens in KV blocks
        self._decoding: set[int] = set()
        self._waiting: set[int] = set()
        self._preempted: set[int] = set()  # at least once
        self._arrived = 0
        self._step = 0

    def run(self) -> Decisions:
        """Serve every request and return what was decided, step by step."""
        decisions: Decisions = {}
        tokens = sum(self._known) + sum(self._left)
        while self._arrived < len(self._known) or self._waiting or self._computed:
            self._law(len(decisions) < STEPS_PER_TOKEN * tokens, "requests are never finished")
            self._arrive()
            free_before = self._scheduler.free_blocks
            plan = self._scheduler.plan_step()
            if plan is None:
                self._wait_for_arrival()
                continue
            decisions[self._step] = self._check_plan(plan, free_before)
            repeats = self._repeat(plan)
            self._deliver(plan, 1 + repeats)
            self._step += 1 + repeats
        free, usable = self._scheduler.free_blocks, self._limits.usable_blocks
        self._law(free == usable, f"{free} blocks are free at the end, of {usable}")
        return decisions

    def _law(self, holds: bool, broken: str) -> None:
        if not holds:
            raise LawBrokenError(f"seed {self._trial.seed}: step {self._step}: {broken}")

    def _arrive(self) -> None:
        trial = self._trial
        while (
            self._arrived < len(trial.requests) and trial.arrival_step[self._arrived] <= self._step
        ):
            self._scheduler.add(trial.requests[self._arrived])
            self._waiting.add(self._arrived)
            self._arrived += 1

    def _wait_for_arrival(self) -> None:
        unserved = len(self._waiting) + len(self._computed)
        more = self._arrived < len(self._trial.requests)
        self._law(more or not unserved, f"idle for good with {unserved} requests unserved")
        self._law(not self._computed, f"idle with {len(self._computed)} requests running")
        if more:
            self._step = self._trial.arrival_step[self._arrived]

    # -- laws of a decision

    def _check_plan(self, plan: StepPlan, free_before: int) -> Decision:
        self._follow_queues(plan)
        entries = self._scheduler.last_scheduled()
        self._check_progress(entries)
        self._check_sums(plan, entries)
        self._check_counts()
        self._check_blocks(plan, free_before)
        return Decision(
            tuple(entries),
            tuple(plan.admitted),
            tuple(plan.preempted),
            plan.new_blocks,
            self._scheduler.free_blocks,
        )

    def _follow_queues(self, plan: StepPlan) -> None:
        for request in plan.preempted:
            self._law(request in self._computed, f"request {request} preempted, not running")
            del self._computed[request]
            self._decoding.discard(request)
            self._waiting.add(request)
            self._preempted.add(request)
        for request, cached_tokens, resumed in plan.admitted:
            self._law(request in self._waiting, f"request {request} admitted, not waiting")
            most = self._known[request] - 1 if self._limits.enable_prefix_caching else 0
            self._law(
                0 <= cached_tokens <= most,
                f"request {request} admitted with {cached_tokens} cached tokens, at most {most}",
            )
            self._law(
                resumed == (request in self._preempted),
                f"request {request} admitted as {'resumed' if resumed else 'new'}",
            )
            self._waiting.remove(request)
            self._computed[request] = cached_tokens

    def _check_progress(self, entries: Sequence[Scheduled]) -> None:
        seen: set[int] = set()
        for request, new_tokens, past_tokens, decode in entries:
            self._law(request in self._computed, f"request {request} scheduled, not running")
            self._law(request not in seen, f"request {request} scheduled twice")
            seen.add(request)
            computed, known = self._computed[request], self._known[request]
            self._law(
                past_tokens == computed,
                f"request {request} goes on at token {past_tokens}, has {computed}",
            )
            self._law(
                1 <= new_tokens <= known - computed,
                f"request {request} is given {new_tokens} tokens, lacks {known - computed}",
            )
            self._law(
                decode == (request in self._decoding),
                f"request {request} scheduled as {'decode' if decode else 'prefill'}",
            )
            self._computed[request] = computed + new_tokens

    def _check_sums(self, plan: StepPlan, entries: Sequence[Scheduled]) -> None:
        decodes = [entry for entry in entries if entry.decode]
        prefills = [entry for entry in entries if not entry.decode]
        tokens, budget = sum(e.new_tokens for e in entries), self._limits.max_num_batched_tokens
        self._law(tokens <= budget, f"{tokens} tokens, budget {budget}")
        done = {e.request for e in prefills if self._computed[e.request] == self._known[e.request]}
        skipped = self._decoding - {entry.request for entry in decodes} if decodes else set()
        pairs: dict[str, tuple[object, object]] = {
            "tokens": (plan.tokens, tokens),
            "decode_seqs": (plan.decode_seqs, len(decodes)),
            "decode_context_tokens": (
                plan.decode_context_tokens,
                sum(entry.past_tokens + entry.new_tokens for entry in decodes),
            ),
            "prefill": (
                sorted(plan.prefill),
                sorted((e.request, e.new_tokens, e.past_tokens) for e in prefills),
            ),
            "prefill_done": (sorted(plan.prefill_done), sorted(done)),
            "skipped": (sorted(plan.skipped), sorted(skipped)),
            "running": (plan.running, self._scheduler.running),
            "waiting": (plan.waiting, self._scheduler.waiting),
            "free_blocks": (plan.free_blocks, self._scheduler.free_blocks),
        }
        for name, (planned, found) in pairs.items():
            self._law(planned == found, f"plan.{name} is {planned}, the scheduler makes it {found}")
        self._law(
            plan.decode_slots >= plan.decode_seqs,
            f"{plan.decode_slots} decode slots for {plan.decode_seqs} sequences",
        )

    def _check_counts(self) -> None:
        running, waiting = self._scheduler.running, self._scheduler.waiting
        self._law(
            running == len(self._computed), f"running is {running}, not {len(self._computed)}"
        )
        self._law(waiting == len(self._waiting), f"waiting is {waiting}, not {len(self._waiting)}")
        most = self._limits.max_running
        self._law(running <= most, f"{running} requests run, at most {most} may")

    def _check_blocks(self, plan: StepPlan, free_before: int) -> None:
        size, usable = self._limits.block_size, self._limits.usable_blocks
        free = self._scheduler.free_blocks
        self._law(0 <= free <= usable, f"{free} blocks are free, of {usable}")
        shared = self._trial.shared_tokens
        least = sum(
            max(-(-computed // size) - shared[request] // size, 0)
            for request, computed in self._computed.items()
        )
        self._law(usable - free >= least, f"{usable - free} blocks are held, {least} are needed")
        if not plan.preempted:
            self._law(
                free_before - free == plan.new_blocks,
                f"plan.new_blocks is {plan.new_blocks}, {free_before - free} were taken",
            )

    # -- delivery

    def _repeat(self, plan: StepPlan) -> int:
        """Let the scheduler repeat the step while nothing arrives or finishes; return how often."""
        if self._repeating is None or plan.prefill or not plan.decode_seqs or plan.skipped:
            return 0
        entries = self._scheduler.last_scheduled()
        steps = min(self._left[entry.request] for entry in entries) - 1
        if self._arrived < len(self._trial.requests):
            steps = min(steps, self._trial.arrival_step[self._arrived] - self._step - 1)
        if steps < 1:
            return 0
        free_before = self._scheduler.free_blocks
        taken = self._repeating.repeat_step(steps)
        self._law(len(taken) <= steps, f"{len(taken)} steps repeated, at most {steps} may")
        free = self._scheduler.free_blocks
        self._law(
            free_before - free == sum(taken),
            f"repeat_step says {sum(taken)} blocks, {free_before - free} were taken",
        )
        for entry in entries:
            self._computed[entry.request] += len(taken)
        return len(taken)

    def _deliver(self, plan: StepPlan, steps: int) -> None:
        """Give every sampling request its token of each step, and tell who has finished."""
        sampling = [e.request for e in self._scheduler.last_scheduled() if e.decode]
        sampling += plan.prefill_done
        finished = []
        for request in sampling:
            self._decoding.add(request)
            self._known[request] += steps
            self._left[request] -= steps
            if not self._left[request]:
                finished.append(request)
        self._scheduler.complete_step(plan, finished)
        for request in finished:
            del self._computed[request]
            self._decoding.remove(request)
        self._check_counts()
