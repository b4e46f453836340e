"""What bounds a scheduler: the engine's limits, in vLLM's spelling, resolved to numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerLimits:
    """The settings of one replica's scheduler and KV pool.

    ``num_blocks`` counts as vLLM's ``num_gpu_blocks`` does: block 0 is the null block, which
    is never handed out, so ``num_blocks - 1`` are usable. A ``long_prefill_token_threshold``
    of 0 is off. ``scheduling_policy`` is ``fcfs`` or ``priority``. Prefill happens in at most
    every ``prefill_schedule_interval``-th step while others decode.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    num_blocks: int
    block_size: int = 16
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    long_prefill_token_threshold_adaptive: bool = False
    scheduling_policy: str = "fcfs"
    scheduler_reserve_full_isl: bool = True
    watermark: float = 0.0
    max_num_active_seqs: int | None = None
    async_scheduling: bool = False
    prefill_schedule_interval: int = 1

    @property
    def usable_blocks(self) -> int:
        """Blocks that requests can hold."""
        return self.num_blocks - 1

    @property
    def max_running(self) -> int:
        """Requests that may run at once."""
        return self.max_num_active_seqs or self.max_num_seqs

    @property
    def watermark_blocks(self) -> int:
        """Free blocks that an admission must leave while others run."""
        return int(self.watermark * self.num_blocks)
