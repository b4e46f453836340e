"""What a request holds, block by block: the memory half of the ``PlainScheduler``."""

from __future__ import annotations

from simserve.policy.limits import SchedulerLimits
from simserve.policy.plain_blocks import PlainBlocks
from simserve.policy.scheduler import RequestView


class PlainRequest:
    """What the scheduler remembers of a request."""

    def __init__(self, view: RequestView) -> None:
        self.view = view
        self.known_tokens = view.prompt_tokens  # prompt and delivered output
        self.computed_tokens = 0
        self.prefilling = True
        self.blocks: list[int] = []
        self.published_blocks = 0
        self.contents: list[int] = []  # of its full blocks, chained
        self.preemptions = 0
        self.placeholders = 0  # tokens sampled, not delivered
        self.tokens_in_flight = 0  # tokens of planned steps that are not delivered
        self.stale_tokens = 0  # those of them that were in flight at a preemption
        self.held = False  # its last token is in flight: nothing more to plan

    @property
    def rank(self) -> tuple[int, int, str]:
        """Place in a priority queue: smaller is better."""
        return (self.view.priority, self.view.arrival_ps, self.view.request_id)


class PlainMemory:
    """The pool of blocks, the running requests that hold them, and what stands in them."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self.limits = limits
        self.pool = PlainBlocks(limits.usable_blocks)
        self.running_queue: list[PlainRequest] = []  # in order of admission
        self._content_ids: dict[tuple[int, tuple[int, ...]], int] = {}

    @property
    def free_blocks(self) -> int:
        """KV blocks that nobody uses."""
        return self.pool.free

    @property
    def cached_contents(self) -> int:
        """Distinct contents in the prefix cache."""
        return len(self.pool.holders)

    def _allocate(
        self,
        request: PlainRequest,
        new_tokens: int,
        hits: list[int] | None = None,
        admission: bool = False,
    ) -> bool:
        """Give a request blocks for ``new_tokens`` more tokens; False if they are not there."""
        limits, pool, hits = self.limits, self.pool, hits or []
        size = limits.block_size
        unused_hits = sum(not pool.users[block] for block in hits)
        reserve = limits.watermark_blocks if admission and self.running_queue else 0
        held = len(request.blocks) + len(hits)

        def fits(total_tokens: int) -> bool:
            needed = max(-(-total_tokens // size) - held, 0)
            return needed + unused_hits + reserve <= pool.free

        computed = request.computed_tokens + len(hits) * size
        total = min(computed + new_tokens, limits.max_model_len)
        whole = min(request.known_tokens, limits.max_model_len)
        if admission and limits.scheduler_reserve_full_isl and not fits(whole):
            return False
        if not fits(total):
            return False
        pool.share(hits)
        request.blocks += hits
        request.published_blocks = max(request.published_blocks, len(hits))
        request.blocks += pool.take(max(-(-total // size) - len(request.blocks), 0))
        if limits.enable_prefix_caching:
            self._publish_up_to(request, computed + new_tokens)
        return True

    def _publish_up_to(self, request: PlainRequest, tokens: int) -> None:
        full_blocks = min(tokens, request.known_tokens) // self.limits.block_size
        self._know_contents(request, full_blocks)
        for k in range(request.published_blocks, full_blocks):
            self.pool.publish(request.blocks[k], request.contents[k])
        request.published_blocks = max(request.published_blocks, full_blocks)

    def _hits(self, request: PlainRequest) -> list[int]:
        if not self.limits.enable_prefix_caching:
            return []
        usable = (request.known_tokens - 1) // self.limits.block_size
        self._know_contents(request, usable)
        hits = []
        for content in request.contents[:usable]:
            block = self.pool.find(content)
            if block is None:
                break
            hits.append(block)
        return hits

    def _know_contents(self, request: PlainRequest, full_blocks: int) -> None:
        """Name each full block by (name of the block before, its tokens)."""
        size, stream = self.limits.block_size, request.view.stream
        while len(request.contents) < full_blocks:
            token = len(request.contents) * size
            at = stream.segment_at(token)
            tokens: list[int] = []
            for k in range(token, token + size):
                at = stream.segment_at(k, at)
                tokens += [stream.segments[at], k - (stream.ends[at - 1] if at else 0)]
            before = request.contents[-1] if request.contents else -1
            name = self._content_ids.setdefault((before, tuple(tokens)), len(self._content_ids))
            request.contents.append(name)
