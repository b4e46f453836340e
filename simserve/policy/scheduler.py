"""What a scheduler is: it owns queues and KV blocks, and decides each step's work.

It never sees the clock, nor how many tokens a request will generate: the engine tells it
which requests finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from simserve.policy.limits import SchedulerLimits
from simserve.policy.token_stream import TokenStream


class RequestView(NamedTuple):
    """What a scheduler may know of an arriving request.

    ``request`` is its number in the run, ``order`` breaks ties between equal priorities:
    smaller tuples (priority, arrival, id) come first.
    """

    request: int
    prompt_tokens: int
    stream: TokenStream
    priority: int = 0
    arrival_ps: int = 0
    request_id: str = ""


class Admission(NamedTuple):
    """A request taken from the waiting queue, with its prefix-cache hit."""

    request: int
    cached_tokens: int
    resumed: bool


class PlannedPrefill(NamedTuple):
    """``new_tokens`` of a request's known tokens, on top of ``past_tokens`` already computed."""

    request: int
    new_tokens: int
    past_tokens: int


class Scheduled(NamedTuple):
    """One entry of a step in the scheduler's own order; ``decode`` has one new token."""

    request: int
    new_tokens: int
    past_tokens: int
    decode: bool


@dataclass(slots=True)
class StepPlan:
    """The decision for one step.

    A request *decodes* if it ran before and its last step completed its prefill. Every
    decoding request gets one token, except those in ``skipped`` (listed only when others do
    decode). Requests in ``prefill_done`` complete their prefill here and sample a token too.
    ``decode_slots`` is what the step computes for decoding: ``decode_seqs``, or more where
    slots of finished requests are computed along. ``running``, ``waiting`` and ``free_blocks``
    are the scheduler's own properties right after planning. A plan is valid until the next
    call of ``plan_step``.
    """

    decode_seqs: int = 0
    decode_context_tokens: int = 0  # after this step's tokens
    decode_slots: int = 0
    prefill: Sequence[PlannedPrefill] = ()
    prefill_done: Sequence[int] = ()
    skipped: Sequence[int] = ()
    admitted: Sequence[Admission] = ()
    preempted: Sequence[int] = ()
    new_blocks: int = 0
    running: int = 0
    waiting: int = 0
    free_blocks: int = 0
    only_decodes: bool = False  # a promise: no prefill, nobody skipped, admitted or preempted

    @property
    def tokens(self) -> int:
        """Tokens computed in this step."""
        return self.decode_seqs + sum(chunk.new_tokens for chunk in self.prefill)


class Scheduler(Protocol):
    """Decides what each step of one replica computes."""

    def __init__(self, limits: SchedulerLimits) -> None: ...

    @property
    def running(self) -> int:
        """Requests that hold KV blocks."""
        ...

    @property
    def waiting(self) -> int:
        """Requests in the waiting queue."""
        ...

    @property
    def free_blocks(self) -> int:
        """KV blocks that nobody uses; blocks that are cached but unused count as free."""
        ...

    def add(self, request: RequestView) -> None:
        """Put an arriving request into the waiting queue."""
        ...

    def plan_step(self) -> StepPlan | None:
        """Decide the next step and take its KV blocks; None if nothing can be done."""
        ...

    def complete_step(self, plan: StepPlan, finished: list[int]) -> None:
        """Learn that a step's tokens were delivered, and which requests they finished.

        With async scheduling the next step is planned by then; steps complete in order.
        """
        ...

    def last_scheduled(self) -> list[Scheduled]:
        """Return the last planned step request by request, in the order of scheduling."""
        ...


class ContextScheduler(Scheduler, Protocol):
    """A scheduler that knows the contexts of its decodes more quickly than one by one."""

    def decode_contexts(self) -> list[int]:
        """Return the context of each decode of the last planned step, in scheduling order.

        The step's own token is included: these are the ``past_tokens + 1`` of the decodes in
        ``last_scheduled``.
        """
        ...


class AheadScheduler(Scheduler, Protocol):
    """A scheduler that can plan a step before the tokens of the one before are known."""

    def hold(self, requests: list[int]) -> None:
        """Plan nothing more for these requests, running or not: their last token is in flight.

        vLLM's async scheduler knows this from ``max_tokens``; a request that is preempted
        after all (it is not running any more) is not meant.
        """
        ...


class AbortingScheduler(Scheduler, Protocol):
    """A scheduler that can drop requests which nobody wants any more."""

    def abort(self, requests: list[int]) -> None:
        """Drop these requests, running or waiting, and free their blocks.

        Called right before ``complete_step``, as vLLM does with the aborts that came during a
        step. What was planned for them in open steps is computed, and delivered to nobody.
        """
        ...


class RepeatingScheduler(Scheduler, Protocol):
    """A scheduler that can plan a stretch of equal decode-only steps at once."""

    def repeat_step(self, most: int) -> Sequence[int]:
        """Plan up to ``most`` more steps like the last planned one, which only decoded.

        Only as many as are sure to follow while nothing arrives and nothing finishes; none is
        always right. Returns the new blocks that each takes.
        """
        ...
