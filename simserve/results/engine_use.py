"""How the engine was used: KV blocks, batch, busy time, and what the prefix cache saved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simserve.records.clock import NEVER_PS, PS_PER_S
from simserve.records.run_record import RunRecord
from simserve.records.step_log import StepLog


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineUse:
    """Use of all replicas together; a fraction is None where it has no denominator.

    Held blocks are those that running requests reference: cached blocks that nobody uses
    count as free. Means over time run from the first arrival to the end, idle time included.
    """

    replicas: int
    steps: int
    kv_peak_frac: float | None  # of the fullest replica
    kv_mean_frac: float | None  # over time and replicas
    batch_mean_seqs: float | None  # sequences per step, over steps
    busy_frac: float | None  # share of time inside a step
    preemptions: int
    preempted_requests: int
    waiting_max: int  # longest queue of one replica


def engine_use(record: RunRecord) -> EngineUse:
    """Return how the replicas were used."""
    logs = [log for log in record.steps if len(log)]
    steps = sum(log.total_steps for log in logs)
    start_ps = int(record.requests.arrival_ps[0]) if len(record.requests) else 0
    span_s = (record.end_ps - start_ps) / PS_PER_S * len(record.steps)
    busy_s = sum(float(log.duration_per_step_ps().sum()) for log in logs) / PS_PER_S
    seqs = sum(float(((log.decode_seqs + log.prefill_seqs) * log.steps).sum()) for log in logs)
    held = [_held_frac(log, record.end_ps) for log in logs]
    preemptions = record.outcomes.preemptions
    return EngineUse(
        replicas=len(record.steps),
        steps=steps,
        kv_peak_frac=max(peak for peak, _ in held) if held else None,
        kv_mean_frac=sum(area_s for _, area_s in held) / span_s if held and span_s > 0 else None,
        batch_mean_seqs=seqs / steps if steps else None,
        busy_frac=busy_s / span_s if span_s > 0 else None,
        preemptions=int(preemptions.sum()),
        preempted_requests=int((preemptions > 0).sum()),
        waiting_max=max((int(log.waiting.max()) for log in logs), default=0),
    )


def _held_frac(log: StepLog, end_ps: int) -> tuple[float, float]:
    """Return the peak held share of one replica, and the share summed over seconds."""
    held = log.num_blocks - log.free_per_step()
    ends_ps = log.end_per_step_ps()
    last_of_row = np.cumsum(log.steps) - 1
    idle_ps = np.append(log.start_ps[1:], end_ps) - ends_ps[last_of_row]
    area = np.dot(held.astype(np.float64), log.duration_per_step_ps())
    area += np.dot((log.num_blocks - log.free_blocks_end).astype(np.float64), idle_ps)
    peak = max(int(held.max()), int((log.num_blocks - log.free_blocks_end).max()))
    return peak / log.num_blocks, float(area) / log.num_blocks / PS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixUse:
    """What the prefix cache saved at first admissions; None where nothing was admitted.

    ``block_hit_frac`` compares whole blocks: cached ones with those of the prompt that a cache
    can hold at all (a partial last block is never cached).
    """

    cached_tokens: int
    prompt_tokens: int
    token_hit_frac: float | None
    block_hit_frac: float | None


def prefix_use(record: RunRecord, block_size: int) -> PrefixUse:
    """Return the hit rates of the requests that were admitted at least once."""
    admitted = record.outcomes.first_scheduled_ps != NEVER_PS
    cached = record.outcomes.cached_tokens[admitted]
    prompt = record.requests.prompt_tokens[admitted]
    cached_tokens, prompt_tokens = int(cached.sum()), int(prompt.sum())
    blocks = int((prompt // block_size).sum())
    return PrefixUse(
        cached_tokens=cached_tokens,
        prompt_tokens=prompt_tokens,
        token_hit_frac=cached_tokens / prompt_tokens if prompt_tokens else None,
        block_hit_frac=int((cached // block_size).sum()) / blocks if blocks else None,
    )
