"""Draws small scenarios over the whole space of scheduler settings.

Everything is tight, so that limits bind: a few blocks, a few tokens of budget, short contexts.
Prompts share segments, repeat other requests' outputs, and arrive together or exactly when a
step ends. Scenario ``number`` of a seed does not depend on how many are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from simserve.parity.case import Case, CaseRequest, CaseStepTime, Prompt, table_of
from simserve.policy.limits import SchedulerLimits
from simserve.records.clock import PS_PER_NS

Value = TypeVar("Value")

MOST_REQUESTS = 24

BASE_NS = 1_000_000
"""A step's fixed cost; arrivals a multiple of it apart fall on step ends where it is all."""

GAPS_NS = (0, 0, 0, 1, 900, 5_000, 100_000, BASE_NS, BASE_NS, 3 * BASE_NS, 40 * BASE_NS)

IMPATIENT_SHARE = 0.3
"""Scenarios in which clients give up."""

PATIENCE_NS = (None, 1, BASE_NS, BASE_NS, 2 * BASE_NS, 5_300_000, 12 * BASE_NS, 40 * BASE_NS)
"""How long clients wait: a time that ends with a step where that can be, or within one."""


def draw_case(seed: int, number: int) -> Case:
    """Return scenario ``number`` of ``seed``: one that vLLM would accept and finish."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number])))
    limits = _limits(rng)
    rows = _rows(rng, limits)
    if not limits.scheduler_reserve_full_isl and can_livelock(limits, rows):
        rows = [row._replace(arrival_ns=row.arrival_ns + i) for i, row in enumerate(rows)]
    return Case(f"fuzz-{seed}-{number}", limits, _step_time(rng), table_of(rows))


def can_livelock(limits: SchedulerLimits, rows: Sequence[CaseRequest]) -> bool:
    """Return whether two requests could preempt each other for ever, as in vLLM.

    Equals in rank do so under the priority policy, where admission does not check that the
    whole prompt fits.
    """
    if limits.scheduling_policy != "priority" or limits.scheduler_reserve_full_isl:
        return False
    return len({(row.priority, row.arrival_ns) for row in rows}) < len(rows)


def is_valid(limits: SchedulerLimits, rows: Sequence[CaseRequest]) -> bool:
    """Return whether vLLM would accept the settings and the requests, and finish."""
    active = limits.max_num_active_seqs
    return (
        bool(rows)
        and min(limits.max_num_seqs, limits.prefill_schedule_interval) >= 1
        and limits.max_num_batched_tokens >= limits.max_num_seqs
        and (limits.enable_chunked_prefill or _covers_whole_prompts(limits))
        and limits.long_prefill_token_threshold <= limits.max_model_len
        and (active is None or 1 <= active <= limits.max_num_seqs)
        and limits.usable_blocks * limits.block_size >= limits.max_model_len
        and all(1 <= row.prompt_tokens < limits.max_model_len for row in rows)
        and all(row.output_tokens >= 1 for row in rows)
        and all(row.give_up_ns is None or row.give_up_ns > 0 for row in rows)
        and not can_livelock(limits, rows)
    )


def _covers_whole_prompts(limits: SchedulerLimits) -> bool:
    return limits.max_num_batched_tokens >= limits.max_model_len


def _limits(rng: np.random.Generator) -> SchedulerLimits:
    block_size = _one_of(rng, (1, 2, 3, 4, 4, 8, 16))
    max_model_len = _within(rng, 8, 96)
    chunked = rng.random() < 0.75
    max_num_seqs = _within(rng, 1, 8)
    smallest_budget = max_num_seqs if chunked else max(max_num_seqs, max_model_len)
    least_blocks = -(-max_model_len // block_size) + 1
    most_blocks = _one_of(rng, (least_blocks, 2 * least_blocks + 4, 20 * least_blocks))
    return SchedulerLimits(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=smallest_budget + _one_of(rng, (0, _within(rng, 0, 40), 400)),
        max_model_len=max_model_len,
        num_blocks=_within(rng, least_blocks, most_blocks),
        block_size=block_size,
        enable_prefix_caching=rng.random() < 0.75,
        enable_chunked_prefill=chunked,
        long_prefill_token_threshold=min(_one_of(rng, (0, 0, 1, 3, 16)), max_model_len),
        long_prefill_token_threshold_adaptive=rng.random() < 0.5,
        scheduling_policy="priority" if rng.random() < 0.4 else "fcfs",
        scheduler_reserve_full_isl=rng.random() < 0.6,
        watermark=(0.0, 0.0, 0.05, 0.2, 0.5)[_within(rng, 0, 4)],
        max_num_active_seqs=_within(rng, 1, max_num_seqs) if rng.random() < 0.3 else None,
        async_scheduling=rng.random() < 0.5,
        prefill_schedule_interval=_one_of(rng, (1, 1, 1, 2, 3, 6)),
    )


def _step_time(rng: np.random.Generator) -> CaseStepTime:
    per_token_ns, per_context_ns = _one_of(rng, (0, 0, 700, 90_000)), _one_of(rng, (0, 0, 7))
    return CaseStepTime(BASE_NS * PS_PER_NS, per_token_ns * PS_PER_NS, per_context_ns * PS_PER_NS)


def _rows(rng: np.random.Generator, limits: SchedulerLimits) -> list[CaseRequest]:
    count = _within(rng, 1, MOST_REQUESTS)
    ids = rng.permutation(count).tolist()  # equal ranks are decided by the ids as text
    rows: list[CaseRequest] = []
    arrival_ns = 0
    for i in range(count):
        arrival_ns += _one_of(rng, GAPS_NS)
        row = CaseRequest(
            f"r{ids[i]}",
            arrival_ns,
            _prompt(rng, limits, rows),
            _one_of(rng, (1, 2, _within(rng, 1, 12), _within(rng, 1, 40), limits.max_model_len)),
            _one_of(rng, (None, i + 100, _within(rng, 0, 8))),
            _within(rng, 0, 2),
        )
        rows.append(row)
    if rng.random() < IMPATIENT_SHARE:
        rows = [row._replace(give_up_ns=_one_of(rng, PATIENCE_NS)) for row in rows]
    return rows


def _prompt(rng: np.random.Generator, limits: SchedulerLimits, rows: list[CaseRequest]) -> Prompt:
    """Draw a prompt: a few of few segments, or an earlier request's turn and what follows."""
    most, size = limits.max_model_len - 1, limits.block_size
    lengths = (1, size, 2 * size, size + 1, most, _within(rng, 1, most // 3 + 1))
    fresh = [(_within(rng, 0, 5), _one_of(rng, lengths)) for _ in range(_one_of(rng, (1, 1, 2, 3)))]
    if rows and rng.random() < 0.35:
        before = rows[_within(rng, 0, len(rows) - 1)]
        entries = [*before.prompt]
        if before.output_segment is not None:
            entries.append((before.output_segment, before.output_tokens))
        fresh = entries + fresh[: _within(rng, 0, 2)]
    return cut(fresh, most)


def cut(entries: Sequence[tuple[int, int]], most_tokens: int) -> Prompt:
    """Return the first ``most_tokens`` tokens of ``entries``."""
    kept = []
    for segment, tokens in entries:
        if most_tokens < 1:
            break
        kept.append((segment, min(tokens, most_tokens)))
        most_tokens -= tokens
    return tuple(kept)


def _one_of(rng: np.random.Generator, values: Sequence[Value]) -> Value:
    return values[int(rng.integers(len(values)))]


def _within(rng: np.random.Generator, least: int, most: int) -> int:
    return int(rng.integers(least, most + 1))
