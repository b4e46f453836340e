"""KV blocks with prefix sharing, one object per block: slow, and easy to check.

The oracle of ``prefix_runs``: a free queue, reference counts, and an index from content to
blocks, as in vLLM's ``v1/core/block_pool.py``.
"""

from __future__ import annotations

from collections import OrderedDict


class PlainBlocks:
    """Blocks 1 to ``usable_blocks``, all free and empty at the start."""

    def __init__(self, usable_blocks: int) -> None:
        self.users = [0] * (usable_blocks + 1)
        self.content: list[int | None] = [None] * (usable_blocks + 1)
        self.free_queue = OrderedDict.fromkeys(range(1, usable_blocks + 1))
        self.holders: dict[int, dict[int, None]] = {}  # content -> blocks, oldest first

    @property
    def free(self) -> int:
        """Blocks that nobody uses."""
        return len(self.free_queue)

    def find(self, content: int) -> int | None:
        """Return the block that was first to hold ``content``, of those that still do."""
        holders = self.holders.get(content)
        return next(iter(holders)) if holders else None

    def take(self, count: int) -> list[int]:
        """Take blocks from the front of the free queue; what they held is forgotten."""
        taken = []
        for _ in range(count):
            block, _ = self.free_queue.popitem(last=False)
            content = self.content[block]
            if content is not None:
                del self.holders[content][block]
                if not self.holders[content]:
                    del self.holders[content]
                self.content[block] = None
            self.users[block] = 1
            taken.append(block)
        return taken

    def share(self, blocks: list[int]) -> None:
        """Add a user to each of ``blocks``."""
        for block in blocks:
            if not self.users[block]:
                del self.free_queue[block]
            self.users[block] += 1

    def publish(self, block: int, content: int) -> None:
        """Make a block findable by its content."""
        self.content[block] = content
        self.holders.setdefault(content, {})[block] = None

    def give_back(self, table: list[int]) -> None:
        """Remove a user from each block of a table, the last block first.

        Blocks without content go to the front of the free queue, the others to its back.
        """
        front: list[int] = []
        back: list[int] = []
        for block in reversed(table):
            self.users[block] -= 1
            if not self.users[block]:
                (front if self.content[block] is None else back).append(block)
        for block in reversed(front):
            self.free_queue[block] = None
            self.free_queue.move_to_end(block, last=False)
        for block in back:
            self.free_queue[block] = None
