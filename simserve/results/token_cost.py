"""Whose GPU time was it: the time of every step given to input, cached input or output tokens.

A step of decodes alone belongs to output, one of prefill alone to input (the first output
token included). A mixed step is divided in the ratio of what its two halves would take alone,
by the latency model that priced the run: so weights and host time, which both need, are shared.
Of a prefill's time, cached input gets what the step would be shorter by without the prefix
that it found in the cache. Everything is in integer picoseconds, and sums to the run's steps
exactly.

A run ends without successors, so its replicas idle at the end as they would not in operation.
Idle time is therefore observed while requests come, from the first arrival to the last, and goes
with the work in the proportion seen there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simserve.latency.model import StepLatencyModel
from simserve.records.clock import PsArray
from simserve.records.run_record import RunRecord
from simserve.records.step import StepShape
from simserve.records.step_log import StepLog
from simserve.results.step_parts import equal_chunks
from simserve.results.token_times import finished_requests

S_PER_HOUR = 3600
TOKENS_PER_MTOK = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuTime:
    """Picoseconds of all replicas together: of every step, and the idle time that goes with it."""

    input_ps: int  # prompt tokens that were computed
    cached_ps: int  # prompt tokens that were found in the cache
    output_ps: int
    idle_ps: int  # outside any step, in the proportion of the window that was observed

    @property
    def busy_ps(self) -> int:
        """Time inside a step."""
        return self.input_ps + self.cached_ps + self.output_ps

    @property
    def total_ps(self) -> int:
        """The time of replicas that the work takes, between steps included."""
        return self.busy_ps + self.idle_ps

    @property
    def busy_frac(self) -> float:
        """Share of the time inside a step; 0 of no time."""
        return self.busy_ps / self.total_ps if self.total_ps else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCount:
    """What the finished requests got; work for others falls on them."""

    requests: int
    input_tokens: int  # not found in the cache
    cached_tokens: int
    output_tokens: int

    @property
    def prompt_tokens(self) -> int:
        """Input tokens, cached or not."""
        return self.input_tokens + self.cached_tokens

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.prompt_tokens + self.output_tokens


def count_served(record: RunRecord) -> TokenCount:
    """Return the tokens of the finished requests; a cache hit counts at first admission."""
    done = finished_requests(record)
    cached = int(record.outcomes.cached_tokens[done].sum())
    return TokenCount(
        requests=int(done.sum()),
        input_tokens=int(record.requests.prompt_tokens[done].sum()) - cached,
        cached_tokens=cached,
        output_tokens=int(record.outcomes.generated_tokens[done].sum()),
    )


def attribute(record: RunRecord, model: StepLatencyModel, until_ps: int | None = None) -> GpuTime:
    """Return whose time the steps of a run were; ``model`` divides the mixed ones.

    Idle time is observed until ``until_ps``; to the end of the run if that is not given, or no
    later than the first arrival.
    """
    parts = [_of_replica(log, model) for log in record.steps]
    input_ps, cached_ps, output_ps = (sum(column) for column in zip((0, 0, 0), *parts, strict=True))
    busy_ps = input_ps + cached_ps + output_ps
    return GpuTime(
        input_ps=input_ps,
        cached_ps=cached_ps,
        output_ps=output_ps,
        idle_ps=_idle_beside(busy_ps, record, until_ps),
    )


def _idle_beside(busy_ps: int, record: RunRecord, until_ps: int | None) -> int:
    """Return the idle time that goes with ``busy_ps`` in the proportion of the window."""
    start_ps = int(record.requests.arrival_ps[0]) if len(record.requests) else 0
    stop_ps = record.end_ps if until_ps is None or until_ps <= start_ps else until_ps
    span_ps = max(stop_ps - start_ps, 0) * len(record.steps)
    inside_ps = sum(
        int(np.clip(stop_ps - log.start_ps, 0, _row_ps(log)).sum()) for log in record.steps
    )
    # In Python's integers: the product of two times has no room in 64 bits.
    return busy_ps * (span_ps - inside_ps) // inside_ps if inside_ps else span_ps


def _row_ps(log: StepLog) -> PsArray:
    """Return how long every row took: ``int64[rows]``."""
    growth = log.duration_growth_ps * (log.steps * (log.steps - 1) // 2)
    return np.asarray(log.steps * log.duration_ps + growth)


def _of_replica(log: StepLog, model: StepLatencyModel) -> tuple[int, int, int]:
    row_ps = _row_ps(log)
    with_prefill = np.flatnonzero(log.prefill_seqs > 0)
    input_ps = cached_ps = 0
    for row in with_prefill.tolist():
        prefill, cached = _prefill_shares(log, row, model)
        prefill_ps = round(int(row_ps[row]) * prefill)
        of_cached_ps = round(prefill_ps * cached)
        cached_ps += of_cached_ps
        input_ps += prefill_ps - of_cached_ps
    return input_ps, cached_ps, int(row_ps.sum()) - input_ps - cached_ps


def _prefill_shares(log: StepLog, row: int, model: StepLatencyModel) -> tuple[float, float]:
    """Return the share of prefill in a step, and within it that of the prefix found in cache.

    The log keeps sums, so the chunks of a step are taken to be alike.
    """
    chunks, new = int(log.prefill_seqs[row]), int(log.prefill_tokens[row])
    past = int(log.prefill_context_tokens[row]) - new
    prefill_s = model.step_s(_prefill(chunks, new, past))
    cached = 0.0
    found = min(int(log.hit_tokens[row]), past)
    if found:
        without_s = model.step_s(_prefill(chunks, new, past - found))
        cached = max(0.0, 1 - without_s / prefill_s)
    decodes = int(log.decode_seqs[row])
    if not decodes:
        return 1.0, cached
    decode_s = model.step_s(StepShape(decodes, int(log.decode_context_tokens[row])))
    return prefill_s / (prefill_s + decode_s), cached


def _prefill(chunks: int, new: int, past: int) -> StepShape:
    return StepShape(0, 0, equal_chunks(chunks, new, past))


def plain_usd_per_mtok(usd_per_hour: float, output_tokens_per_s: float) -> float:
    """Return the textbook sum: dollars per hour over millions of output tokens per hour.

    Everything falls on output tokens, and every hour is a full one: a floor for what a real
    month costs. Four GPUs at $16 an hour each and 3,000 tokens/s are 64 / 10.8 = $5.93.
    """
    return usd_per_hour / (output_tokens_per_s * S_PER_HOUR / TOKENS_PER_MTOK)
