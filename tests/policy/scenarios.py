"""Random scenarios over the whole space of scheduler settings, for property tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from simserve.parity.case import Case, CaseStepTime
from simserve.policy.limits import SchedulerLimits
from simserve.records.clock import NEVER_PS, PS_PER_NS, PsArray
from simserve.records.requests import RequestTable, SegmentTable


@st.composite
def cases(draw: st.DrawFn, max_requests: int = 24, whole_prompts: bool = False) -> Case:
    """Draw a small case: tight limits, shared prefixes, repeated outputs, ties, pressure."""
    block_size = draw(st.sampled_from([1, 2, 4, 16]))
    max_model_len = draw(st.integers(8, 96))
    chunked = not whole_prompts and draw(st.booleans())
    max_num_seqs = draw(st.integers(1, 8))
    smallest_budget = max_num_seqs if chunked else max(max_num_seqs, max_model_len)
    least_blocks = -(-max_model_len // block_size) + 1
    limits = SchedulerLimits(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=draw(st.integers(smallest_budget, smallest_budget + 40)),
        max_model_len=max_model_len,
        num_blocks=draw(st.integers(least_blocks, 2 * least_blocks + 4)),
        block_size=block_size,
        enable_prefix_caching=draw(st.booleans()),
        enable_chunked_prefill=chunked,
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 3, 16])),
        long_prefill_token_threshold_adaptive=draw(st.booleans()),
        scheduling_policy=draw(st.sampled_from(["fcfs", "priority"])),
        # Off, two requests of equal rank can preempt each other for ever, as in vLLM.
        scheduler_reserve_full_isl=True,
        watermark=draw(st.sampled_from([0.0, 0.05, 0.2])),
        max_num_active_seqs=draw(st.sampled_from([None, 1, 3])),
        prefill_schedule_interval=1 if whole_prompts else draw(st.sampled_from([1, 1, 2, 3, 7])),
        async_scheduling=not whole_prompts and draw(st.booleans()),
    )
    count = draw(st.integers(1, max_requests))
    rows = [draw(_request(max_model_len)) for _ in range(count)]
    return Case(
        "drawn",
        limits,
        CaseStepTime(draw(st.integers(1, 9)) * 1_000_000, draw(st.integers(0, 9)) * 1000, 7),
        _table(rows, draw(st.booleans()), draw(_patience(count)) if draw(st.booleans()) else None),
    )


@st.composite
def _patience(draw: st.DrawFn, count: int) -> list[int]:
    """Draw how many nanoseconds each client waits before it gives up; most do not."""
    waits = st.sampled_from([NEVER_PS, NEVER_PS, 1, 900, 1000, 5000, 20_000, 100_000])
    return draw(st.lists(waits, min_size=count, max_size=count))


@st.composite
def _request(
    draw: st.DrawFn, max_model_len: int
) -> tuple[int, list[tuple[int, int]], int, int, int]:
    gap_ns = draw(st.sampled_from([0, 0, 1, 900, 1000, 5000, 100_000]))
    # Few segments, so that prompts share prefixes and contain other requests' outputs.
    entries = draw(
        st.lists(
            st.tuples(st.integers(0, 5), st.integers(1, max_model_len // 3 + 1)),
            min_size=1,
            max_size=3,
        )
    )
    output_segment = draw(st.integers(0, 60))
    return gap_ns, entries, draw(st.integers(1, 40)), output_segment, draw(st.integers(0, 2))


def _table(
    rows: list[tuple[int, list[tuple[int, int]], int, int, int]],
    named: bool,
    patience_ns: list[int] | None,
) -> RequestTable:
    entries = [entry for row in rows for entry in row[1]]
    sizes = [len(row[1]) for row in rows]
    return RequestTable(
        arrival_ps=np.cumsum([row[0] for row in rows], dtype=np.int64) * PS_PER_NS,
        prompt_tokens=np.array([sum(n for _, n in row[1]) for row in rows], dtype=np.int64),
        output_tokens=np.array([row[2] for row in rows], dtype=np.int64),
        segments=SegmentTable(
            offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            segment=np.array([s for s, _ in entries], dtype=np.int64),
            tokens=np.array([n for _, n in entries], dtype=np.int64),
        ),
        output_segment=np.array([row[3] for row in rows], dtype=np.int64),
        priority=np.array([row[4] for row in rows], dtype=np.int64),
        request_id=tuple(f"q{i}" for i in range(len(rows))) if named else None,
        give_up_ps=None if patience_ns is None else _ps(patience_ns),
    )


def _ps(patience_ns: list[int]) -> PsArray:
    return np.array([NEVER_PS if ns == NEVER_PS else ns * PS_PER_NS for ns in patience_ns])
