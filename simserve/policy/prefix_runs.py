"""KV blocks with prefix sharing, kept as runs: the fast twin of ``plain_blocks``.

The cached contents form a tree. An *edge* is a run of consecutive blocks of one token
sequence; a *copy* is one set of physical blocks that holds an edge's contents. All blocks of
a copy have the same users, so a copy has one reference count and, when unused, one place in
the eviction order. Edges are split where a hit or a duplicate needs it. Blocks themselves
have no names here: only their number and their contents can be observed.

The real free queue (a list of blocks, see vLLM's ``block_pool.py``) puts unpublished blocks in
front and published ones at the back. So it always reads: unpublished blocks, a mere count,
then published ones, last used last, each run from its tail to its head. A parent is never
evicted before its children, since every table gives its blocks back tail first.
"""

from __future__ import annotations

from simserve.policy.token_stream import BlockKey, TokenStream


class Edge:
    """A run of ``blocks`` cached contents, from block number ``start`` of ``stream``."""

    __slots__ = ("at", "blocks", "children", "copies", "key", "parent", "start", "stream")

    def __init__(
        self,
        parent: Edge | None,
        key: BlockKey,
        stream: TokenStream,
        at: int,
        start: int,
        blocks: int,
    ) -> None:
        self.parent = parent or self  # the root is its own parent
        self.key = key
        self.stream = stream
        self.at = at  # segment index of the first token
        self.start = start
        self.blocks = blocks
        self.children: dict[BlockKey, Edge] = {}
        self.copies: list[Copy] = []  # in order of publication


class Copy:
    """Physical blocks that hold one edge's contents.

    ``before`` is the copy that was cut off this one's head by a split: whoever held this
    copy then holds that one too. ``older`` and ``newer`` link the unused copies.
    """

    __slots__ = ("before", "edge", "newer", "older", "users")

    before: Copy  # set by a split
    older: Copy  # both set while unused; a used copy's say nothing
    newer: Copy

    def __init__(self, edge: Edge, users: int) -> None:
        self.edge = edge
        self.users = users


Hit = list[tuple[Edge, int]]
"""Edges from the root down, with how many of their blocks are hit: all, except in the last."""


class BlockTable:
    """The blocks of one request: published runs, then unpublished blocks (a count).

    Each entry is (copy, first block number): the request holds everything from there to the
    copy's end, including pieces that splits have cut off the copy's head since.
    """

    __slots__ = ("entries", "published", "tip")

    def __init__(self, root: Edge) -> None:
        self.entries: list[tuple[Copy, int]] = []
        self.published = 0
        self.tip = root  # the edge that ends with the last published block


class RunPool:
    """The KV blocks of one replica."""

    def __init__(self, usable_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.free = usable_blocks
        self.cached_contents = 0  # distinct published contents
        self._unpublished = usable_blocks  # free blocks without contents: first to go
        root_stream = TokenStream([0], [0], False)
        self.root = Edge(None, (), root_stream, 0, 0, 0)
        sentinel = Copy(self.root, 1)
        sentinel.older = sentinel.newer = sentinel
        self._unused = sentinel  # ring: .newer is the first to be evicted

    # -- looking

    def lookup(self, stream: TokenStream, max_blocks: int) -> tuple[Hit, int, int]:
        """Return the cached prefix of ``stream``: (edges, blocks, how many of them are unused).

        At most ``max_blocks`` blocks. Changes nothing.
        """
        hit: Hit = []
        found = unused = at = 0
        size = self.block_size
        children = self.root.children
        while found < max_blocks and children:
            at = stream.segment_at(found * size, at)
            child = children.get(stream.block_key(found * size, at, size))
            if child is None:
                break
            blocks = min(child.blocks, max_blocks - found)
            same = stream.common_tokens(child.stream, at, (found + blocks) * size)
            blocks = same // size - found
            hit.append((child, blocks))
            found += blocks
            if not child.copies[0].users:
                unused += blocks
            if blocks < child.blocks:
                break
            children = child.children
        return hit, found, unused

    # -- taking

    def take(self, blocks: int) -> None:
        """Take ``blocks`` free blocks; contents cached in them are dropped, oldest first."""
        self.free -= blocks
        unpublished = self._unpublished - blocks
        if unpublished >= 0:
            self._unpublished = unpublished
            return
        self._unpublished = 0
        edge = self._unused.newer.edge
        if edge.blocks + unpublished > 0 and len(edge.copies) == 1:
            edge.blocks += unpublished  # by far the most frequent: a few off one tail
            self.cached_contents += unpublished
        else:
            self._evict(-unpublished)

    def share(self, table: BlockTable, hit: Hit) -> None:
        """Give the blocks of ``hit`` to an empty table."""
        for edge, blocks in hit:
            shared = edge if blocks == edge.blocks else self._split(edge, blocks)
            copy = shared.copies[0]
            if not copy.users:
                self._unlink(copy)
                self.free -= shared.blocks
            copy.users += 1
            table.entries.append((copy, shared.start))
            table.tip = shared
            table.published += blocks

    def publish(self, table: BlockTable, stream: TokenStream, full_blocks: int) -> None:
        """Make the table's first ``full_blocks`` blocks findable."""
        while table.published < full_blocks:
            blocks = full_blocks - table.published
            tip = table.tip
            if not tip.children and self._owns_alone(table, tip):
                tip.blocks += blocks
                tip.stream = stream
                self.cached_contents += blocks
                table.published = full_blocks
                return
            start = table.published
            token = start * self.block_size
            at = stream.segment_at(token) if len(stream.ends) > 1 else 0
            key = stream.block_key(token, at, self.block_size)
            edge = tip.children.get(key)
            if edge is None:
                edge = tip.children[key] = Edge(tip, key, stream, at, start, blocks)
                self.cached_contents += blocks
            else:
                limit = (start + min(blocks, edge.blocks)) * self.block_size
                same = stream.common_tokens(edge.stream, at, limit) // self.block_size - start
                if same < edge.blocks:
                    edge = self._split(edge, same)
            copy = Copy(edge, 1)
            edge.copies.append(copy)
            table.entries.append((copy, start))
            table.tip = edge
            table.published += edge.blocks

    # -- giving back

    def release(self, table: BlockTable, unpublished: int) -> None:
        """Take back a table's blocks, of which ``unpublished`` were never published."""
        self.free += unpublished
        self._unpublished += unpublished
        for last, start in reversed(table.entries):
            copy = last
            while True:
                copy.users -= 1
                if not copy.users:
                    self._link_newest(copy)
                    self.free += copy.edge.blocks
                if copy.edge.start <= start:
                    break
                copy = copy.before
        table.entries = []
        table.published = 0
        table.tip = self.root

    # -- mechanism

    def _owns_alone(self, table: BlockTable, tip: Edge) -> bool:
        copies = tip.copies
        return len(copies) == 1 and copies[0].users == 1 and copies[0] is table.entries[-1][0]

    def _evict(self, blocks: int) -> None:
        ring = self._unused
        while blocks:
            copy = ring.newer
            edge = copy.edge
            alone = len(edge.copies) == 1
            gone = min(blocks, edge.blocks)
            if gone < edge.blocks:
                if alone:
                    edge.blocks -= gone
                    self.cached_contents -= gone
                    return
                self._split(edge, edge.blocks - gone)  # copy and edge now name the tail
            self._unlink(copy)
            edge.copies.remove(copy)
            if alone:
                del edge.parent.children[edge.key]
                self.cached_contents -= gone
            blocks -= gone

    def _split(self, edge: Edge, blocks: int) -> Edge:
        """Cut ``edge`` after ``blocks`` blocks and return the new head.

        The old objects stay with the tail, so that whoever holds an edge or a copy to its
        end still does.
        """
        parent = edge.parent
        head = Edge(parent, edge.key, edge.stream, edge.at, edge.start, blocks)
        parent.children[edge.key] = head
        edge.parent = head
        edge.start += blocks
        edge.blocks -= blocks
        token = edge.start * self.block_size
        edge.at = edge.stream.segment_at(token, edge.at)
        edge.key = edge.stream.block_key(token, edge.at, self.block_size)
        head.children = {edge.key: edge}
        for tail in edge.copies:
            front = Copy(head, tail.users)
            if hasattr(tail, "before"):
                front.before = tail.before
            tail.before = front
            head.copies.append(front)
            if not tail.users:  # the tail goes first, the head right after it
                newer = tail.newer
                front.older, front.newer = tail, newer
                tail.newer = newer.older = front
        return head

    def _link_newest(self, copy: Copy) -> None:
        ring = self._unused
        newest = ring.older
        copy.older, copy.newer = newest, ring
        newest.newer = ring.older = copy

    def _unlink(self, copy: Copy) -> None:
        older, newer = copy.older, copy.newer
        older.newer, newer.older = newer, older
        copy.older = copy.newer = self._unused  # an old link would keep dropped copies alive
