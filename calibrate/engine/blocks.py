"""Which KV blocks each request has: the ids behind the numbers that a scheduler counts.

The scheduler's allocator only counts blocks. Here every admission, growth, preemption and
finish that it decides is carried out with real block ids, and after every step the number in
use must be the scheduler's. Block 0 is never handed out: padding rows write there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from simserve.errors import InputError, SimserveError
from simserve.policy.limits import SchedulerLimits
from simserve.policy.scheduler import Admission, Scheduled

IntArray = npt.NDArray[np.int64]
# Rows of the table are a multiple of this wide, so that kernels see one alignment.
_WIDTH_MULTIPLE = 16


class BlockCountError(SimserveError):
    """The blocks handed out here are not as many as the scheduler says: a bug in either."""


class BlockTables:
    """The block tables of all running requests, one row each.

    ``table`` is ``int32[max_running + 1, width]``; row 0 is of padding: block 0 throughout.
    Prefixes are never shared.

    Raises:
        InputError: if the limits ask for prefix caching.
    """

    def __init__(self, limits: SchedulerLimits) -> None:
        if limits.enable_prefix_caching:
            raise InputError(
                "engine",
                "enable_prefix_caching",
                True,
                "False: the reference engine does not share blocks between requests",
            )
        self.block_size = limits.block_size
        self.usable_blocks = limits.usable_blocks
        blocks_per_row = -(-limits.max_model_len // limits.block_size)
        self.width = -(-blocks_per_row // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE
        self.table = np.zeros((limits.max_running + 1, self.width), dtype=np.int32)
        # The last freed block is the first taken: ids of a request soon lie scattered.
        self._free = list(range(limits.usable_blocks, 0, -1))
        self._free_rows = list(range(limits.max_running, 0, -1))
        self._row: dict[int, int] = {}
        self._held: dict[int, int] = {}

    @property
    def free_blocks(self) -> int:
        """Blocks that nobody has."""
        return len(self._free)

    def row(self, request: int) -> int:
        """Return the row of a running request in ``table``."""
        return self._row[request]

    def blocks_of(self, request: int) -> list[int]:
        """Return the block ids of a running request, in the order of its tokens."""
        held: list[int] = self.table[self._row[request], : self._held[request]].tolist()
        return held

    def apply(
        self,
        admitted: Iterable[Admission],
        preempted: Iterable[int],
        scheduled: Sequence[Scheduled],
        free_blocks: int,
    ) -> None:
        """Carry out a planned step: the preempted leave, the admitted come, all grow.

        Raises:
            BlockCountError: if not ``free_blocks`` are free afterwards.
        """
        for request in preempted:
            self._leave(request)
        for request, cached_tokens, _ in admitted:
            if cached_tokens:
                raise BlockCountError(f"request {request} shares {cached_tokens} cached tokens")
            self._row[request] = self._free_rows.pop()
            self._held[request] = 0
        for request, new_tokens, past_tokens, _ in scheduled:
            self._grow(request, past_tokens + new_tokens)
        self.check(free_blocks)

    def finish(self, requests: Iterable[int], free_blocks: int) -> None:
        """Take back the blocks of finished requests; one that was preempted has none.

        Raises:
            BlockCountError: if not ``free_blocks`` are free afterwards.
        """
        for request in requests:
            if request in self._row:
                self._leave(request)
        self.check(free_blocks)

    def check(self, free_blocks: int) -> None:
        """Compare the number of free blocks with the scheduler's.

        Raises:
            BlockCountError: if they differ.
        """
        if len(self._free) != free_blocks:
            raise BlockCountError(
                f"{len(self._free)} of {self.usable_blocks} blocks are free, the scheduler "
                f"counts {free_blocks}"
            )

    def _grow(self, request: int, tokens: int) -> None:
        row, held = self._row[request], self._held[request]
        needed = -(-tokens // self.block_size)
        if needed > held:
            if needed - held > len(self._free):
                raise BlockCountError(f"request {request} needs a block and none is free")
            taken = [self._free.pop() for _ in range(needed - held)]
            self.table[row, held:needed] = taken
            self._held[request] = needed

    def _leave(self, request: int) -> None:
        row, held = self._row.pop(request), self._held.pop(request)
        self._free.extend(self.table[row, :held].tolist())
        self._free_rows.append(row)
