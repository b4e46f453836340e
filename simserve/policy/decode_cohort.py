"""The decoding requests of a replica as a cohort: a clock, a few sums, two calendars.

Each decoding request gets one token a step, all in lockstep. So the cohort counts its steps
(``clock``), and a request is an ``offset`` from the clock: ``computed tokens = offset + clock``.
Whatever happens once in ``block_size`` tokens happens when ``clock mod block_size`` equals the
request's *phase*, ``-offset mod block_size``.
"""

from __future__ import annotations

from array import array

from simserve.policy.prefix_runs import BlockTable, Edge
from simserve.policy.scheduler import RequestView


class CohortRequest(BlockTable):
    """What a scheduler remembers of a request: its blocks, and how far it is.

    While it decodes, ``offset`` stands for ``computed`` and ``known``: see the module.
    """

    __slots__ = (
        "admission",
        "computed",
        "decoding",
        "held",
        "known",
        "offset",
        "preempted",
        "request",
        "stale",
        "stream",
        "unseen_output",
        "view",
    )

    def __init__(self, view: RequestView, root: Edge, caching: bool) -> None:
        self.entries = []
        self.published = 0
        self.tip = root
        self.view = view
        self.request = view.request
        self.known = view.prompt_tokens  # prompt and delivered output
        self.stream = stream = view.stream
        self.computed = 0  # tokens in its KV blocks
        self.offset = 0
        self.admission = 0  # running number of its last admission
        self.decoding = False
        self.held = False  # runs, but its last token is in flight
        self.stale = False  # waits, with tokens in flight
        self.preempted = False
        # Blocks of generated tokens may be published late if nobody can look for them.
        self.unseen_output = stream.private_output or not caching


class DecodeCohort:
    """The decoding requests of one replica; see the module."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.clock = 0
        self.size = 0
        self.offset_sum = 0
        # New blocks needed when clock mod block_size is p, twice over so that slices wrap.
        self.needs = array("i", [0]) * (2 * block_size)
        # Requests whose generated blocks others may look for, by phase.
        self.seen: list[dict[int, CohortRequest]] = [{} for _ in range(block_size)]
        self.seen_count = 0

    @property
    def context_tokens(self) -> int:
        """Sum of the contexts attended to in the last step, its new tokens included."""
        return self.offset_sum + self.size * self.clock

    def needed_blocks(self) -> int:
        """Return the blocks that the next step needs."""
        return self.needs[self.clock % self.block_size]

    def needed_blocks_of(self, steps: int) -> array[int]:
        """Return the blocks that each of the next ``steps`` steps needs."""
        size = self.block_size
        phase = self.clock % size
        if steps <= size:
            return self.needs[phase : phase + steps]
        cycles, rest = divmod(steps, size)
        return self.needs[phase : phase + size] * cycles + self.needs[phase : phase + rest]

    def steps_within(self, free_blocks: int, most: int) -> int:
        """Return for how many of the next ``most`` steps the free blocks are sure to last."""
        # Each request needs one block in ``block_size`` steps.
        safe = free_blocks // self.size * self.block_size
        if safe:
            return most if most < safe else safe
        phase = self.clock % self.block_size
        for steps in range(min(most, self.block_size)):
            free_blocks -= self.needs[phase + steps]
            if free_blocks < 0:
                return steps
        return min(most, self.block_size)

    def join(self, request: CohortRequest) -> None:
        """Let a request whose prefill is complete decode from the next step on."""
        request.decoding = True
        request.offset = request.computed - self.clock
        self.size += 1
        self._enter(request)

    def leave(self, request: CohortRequest) -> None:
        """Take a request out; its ``computed`` and ``known`` are explicit again."""
        self._exit(request)
        self.size -= 1
        request.decoding = False
        request.computed = request.offset + self.clock
        request.known = request.computed + 1

    def miss(self, request: CohortRequest) -> None:
        """Let a request fall back by one step: it got nothing in the last one."""
        self._exit(request)
        request.offset -= 1
        self._enter(request)

    def all_seen(self) -> list[CohortRequest]:
        """Return every request whose generated blocks others may look for."""
        return [request for phase in self.seen for request in phase.values()]

    def _enter(self, request: CohortRequest) -> None:
        phase = -request.offset % self.block_size
        self.needs[phase] += 1
        self.needs[phase + self.block_size] += 1
        self.offset_sum += request.offset
        if not request.unseen_output:
            self.seen[phase][request.request] = request
            self.seen_count += 1

    def _exit(self, request: CohortRequest) -> None:
        phase = -request.offset % self.block_size
        self.needs[phase] -= 1
        self.needs[phase + self.block_size] -= 1
        self.offset_sum -= request.offset
        if not request.unseen_output:
            del self.seen[phase][request.request]
            self.seen_count -= 1
