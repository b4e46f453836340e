"""What a trace looks like in a dozen numbers, the ones its publishers quote."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simserve.records.clock import PS_PER_S
from simserve.records.requests import IntArray, RequestTable
from simserve.traffic.replay import mean_rate_per_s
from simserve.traffic.segments import infinite_cache_hit_frac, reusable_tokens
from simserve.traffic.trace_formats import TraceFile

# vLLM's default block size on GPUs (vllm/config/cache.py).
ENGINE_BLOCK_TOKENS = 16

_P99 = 99


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthStats:
    """A column of lengths, in tokens."""

    mean: float
    median: float
    p99: float
    max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixStats:
    """What an endless prefix cache would find.

    ``seen_blocks_frac`` is the share of prompt blocks of ``block_tokens`` that an earlier
    prompt had, the figure quoted for Mooncake traces. ``reusable_tokens_frac`` is the share of
    prompt tokens that vLLM could reuse with blocks of ``engine_block_tokens``.
    """

    block_tokens: int
    seen_blocks_frac: float
    engine_block_tokens: int
    reusable_tokens_frac: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceStats:
    """A trace in numbers; None where it has no such thing (times, shared prefixes)."""

    format: str
    requests: int
    span_s: float | None
    rate_per_s: float | None
    gap_cv: float | None  # coefficient of variation of the gaps: 1 is Poisson
    distinct_times: int | None
    prompt_tokens: LengthStats
    output_tokens: LengthStats
    prefix: PrefixStats | None
    notes: tuple[str, ...]


def trace_stats(trace: TraceFile) -> TraceStats:
    """Return the statistics of a trace."""
    requests = trace.requests
    span_s = float(requests.arrival_ps[-1]) / PS_PER_S
    return TraceStats(
        format=trace.format,
        requests=len(requests),
        span_s=span_s if trace.timed else None,
        rate_per_s=mean_rate_per_s(requests) if trace.timed else None,
        gap_cv=gap_cv(requests),
        distinct_times=len(np.unique(requests.arrival_ps)) if trace.timed else None,
        prompt_tokens=_lengths(requests.prompt_tokens),
        output_tokens=_lengths(requests.output_tokens),
        prefix=_prefix(trace),
        notes=trace.notes,
    )


def gap_cv(requests: RequestTable) -> float | None:
    """Return standard deviation over mean of the gaps; None if there is no gap above 0."""
    gaps_s = np.diff(requests.arrival_ps) / PS_PER_S
    if not len(gaps_s) or not gaps_s.any():
        return None
    return float(gaps_s.std() / gaps_s.mean())


def stats_text(stats: TraceStats) -> str:
    """Return the statistics as lines for a terminal."""
    lines = [f"Format    {stats.format}", f"Requests  {stats.requests:,}"]
    if stats.span_s is None:
        lines.append("Times     none: the file has lengths only")
    else:
        rate = "all at once" if stats.rate_per_s is None else f"{stats.rate_per_s:.4g} /s"
        lines.append(f"Span      {stats.span_s:,.1f} s")
        lines.append(f"Rate      {rate}")
        if stats.gap_cv is not None:
            lines.append(f"Gap CV    {stats.gap_cv:.3g} (1 is Poisson)")
        lines.append(f"Times     {stats.distinct_times:,} different")
    for name, lengths in (("Prompt", stats.prompt_tokens), ("Output", stats.output_tokens)):
        lines.append(
            f"{name}    mean {lengths.mean:,.1f}  median {_short(lengths.median)}  "
            f"p99 {_short(lengths.p99)}  max {lengths.max:,} tokens"
        )
    lines += _prefix_lines(stats.prefix)
    lines += [f"Note      {note}" for note in stats.notes]
    return "\n".join(lines)


def _prefix_lines(prefix: PrefixStats | None) -> list[str]:
    if prefix is None:
        return ["Prefixes  not in the file: nothing is shared"]
    return [
        f"Prefixes  {prefix.seen_blocks_frac:.1%} of prompt blocks of {prefix.block_tokens} "
        "tokens seen before",
        f"          {prefix.reusable_tokens_frac:.1%} of prompt tokens reusable by an endless "
        f"cache (blocks of {prefix.engine_block_tokens})",
    ]


def _short(tokens: float) -> str:
    return f"{tokens:,.1f}".removesuffix(".0")


def _lengths(tokens: IntArray) -> LengthStats:
    return LengthStats(
        mean=float(tokens.mean()),
        median=float(np.median(tokens)),
        p99=float(np.percentile(tokens, _P99)),
        max=int(tokens.max()),
    )


def _prefix(trace: TraceFile) -> PrefixStats | None:
    requests = trace.requests
    if requests.segments is None:
        return None
    block_tokens = trace.block_tokens or ENGINE_BLOCK_TOKENS
    reusable = int(reusable_tokens(requests, ENGINE_BLOCK_TOKENS).sum())
    return PrefixStats(
        block_tokens=block_tokens,
        seen_blocks_frac=infinite_cache_hit_frac(requests, block_tokens),
        engine_block_tokens=ENGINE_BLOCK_TOKENS,
        reusable_tokens_frac=reusable / int(requests.prompt_tokens.sum()),
    )
