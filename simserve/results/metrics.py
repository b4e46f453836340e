"""The metrics of a run, defined as ``vllm bench serve`` 0.33 defines them.

Per finished request: TTFT is first token minus arrival, E2EL last token minus arrival, TPOT
their difference over (output tokens - 1) where there is more than one; ITL is every gap
between two tokens, pooled. vLLM's clock starts when the client sends, after its concurrency
gate; a simulated request has no such gate, so the clock starts at its arrival.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simserve.records.clock import NEVER_PS, PS_PER_S, seconds
from simserve.records.run_record import ABORTED, REJECTED, UNFINISHED, RunRecord
from simserve.results.samples import FloatArray, Sample
from simserve.results.token_times import (
    BoolArray,
    StepClock,
    TokenCounts,
    count_tokens,
    finished_requests,
    left_ps,
    pooled_gaps,
    step_clock,
)

LATENCY_METRICS = ("ttft", "tpot", "itl", "e2el")
"""The names, in the order in which vLLM writes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLatencies:
    """Latencies per request, NaN where there is none: ``float64[requests]``."""

    finished: BoolArray
    wait_s: FloatArray  # arrival until first scheduled
    ttft_s: FloatArray  # arrival until first token
    tpot_s: FloatArray  # NaN with fewer than two tokens
    e2el_s: FloatArray  # arrival until last token


def request_latencies(record: RunRecord) -> RequestLatencies:
    """Return the latencies of every request; only a finished one has TPOT and E2EL."""
    out, arrival_ps = record.outcomes, record.requests.arrival_ps
    finished = finished_requests(record)
    missing = np.isnan(seconds(out.first_token_ps))
    ttft_s = np.where(missing, np.nan, (out.first_token_ps - arrival_ps) / PS_PER_S)
    waiting = np.isnan(seconds(out.first_scheduled_ps))
    wait_s = np.where(waiting, np.nan, (out.first_scheduled_ps - arrival_ps) / PS_PER_S)
    e2el_s = np.where(finished, (out.finish_ps - arrival_ps) / PS_PER_S, np.nan)
    further = np.where(finished & (out.generated_tokens > 1), out.generated_tokens - 1, 1)
    decoding_s = np.where(finished, (out.finish_ps - out.first_token_ps) / PS_PER_S, np.nan)
    tpot_s = np.where(out.generated_tokens > 1, decoding_s / further, np.nan)
    return RequestLatencies(
        finished=finished, wait_s=wait_s, ttft_s=ttft_s, tpot_s=tpot_s, e2el_s=e2el_s
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """The numbers of ``vllm bench serve``; latencies are of finished requests only.

    ``failed`` counts every request that did not finish, ``rejected`` those never taken in,
    ``timed_out`` and ``cancelled`` those that their clients gave up.
    ``max_concurrent_requests`` counts, as vLLM does, everyone seen within a calendar second;
    ``max_in_flight`` is the exact maximum at any instant.
    """

    num_prompts: int
    completed: int
    failed: int
    rejected: int
    unfinished: int
    timed_out: int
    cancelled: int
    total_input_tokens: int
    total_output_tokens: int
    duration_s: float  # first arrival until last completion
    request_throughput: float  # completed per second
    output_throughput: float  # tokens per second
    total_token_throughput: float  # prompt and output tokens per second
    max_output_tokens_per_s: float
    max_concurrent_requests: int
    max_in_flight: int
    offered_rate_per_s: float | None  # None if all arrived at once
    ttft: Sample
    tpot: Sample
    itl: Sample
    e2el: Sample

    def sample(self, name: str) -> Sample:
        """Return the sample of one of ``LATENCY_METRICS``."""
        samples = {"ttft": self.ttft, "tpot": self.tpot, "itl": self.itl, "e2el": self.e2el}
        return samples[name]


def measure(record: RunRecord) -> Metrics:
    """Return the metrics of a run."""
    latencies = request_latencies(record)
    finished, out = latencies.finished, record.outcomes
    clock = step_clock(record)
    counts = count_tokens(record, clock, finished)
    completed = int(finished.sum())
    input_tokens = int(record.requests.prompt_tokens[finished].sum())
    output_tokens = int(out.generated_tokens[finished].sum())
    duration_s = run_duration_s(record, finished)
    tpot_s = latencies.tpot_s[finished]
    return Metrics(
        num_prompts=len(record.requests),
        completed=completed,
        failed=len(record.requests) - completed,
        rejected=int((out.status == REJECTED).sum()),
        unfinished=int((out.status == UNFINISHED).sum()),
        timed_out=int(timed_out(record).sum()),
        cancelled=int(cancelled(record).sum()),
        total_input_tokens=input_tokens,
        total_output_tokens=output_tokens,
        duration_s=duration_s,
        request_throughput=_per_second(completed, duration_s),
        output_throughput=_per_second(output_tokens, duration_s),
        total_token_throughput=_per_second(input_tokens + output_tokens, duration_s),
        max_output_tokens_per_s=_most_tokens_in_a_second(record, finished, clock, counts),
        max_concurrent_requests=_most_seen_in_a_second(record, finished),
        max_in_flight=_most_in_flight(record),
        offered_rate_per_s=offered_rate_per_s(record),
        ttft=Sample(latencies.ttft_s[finished]),
        tpot=Sample(tpot_s[~np.isnan(tpot_s)]),
        itl=pooled_gaps(clock, counts),
        e2el=Sample(latencies.e2el_s[finished]),
    )


def timed_out(record: RunRecord) -> BoolArray:
    """Return whose clients gave up because their time was out: ``bool[requests]``."""
    aborted = record.outcomes.status == ABORTED
    is_timeout = record.requests.is_timeout
    return np.asarray(aborted if is_timeout is None else aborted & is_timeout)


def never_answered(record: RunRecord) -> BoolArray:
    """Return who wanted an answer and got none: rejected or timed out, ``bool[requests]``."""
    return np.asarray(record.outcomes.status == REJECTED) | timed_out(record)


def cancelled(record: RunRecord) -> BoolArray:
    """Return whose clients gave up by their own choice: ``bool[requests]``."""
    return np.asarray((record.outcomes.status == ABORTED) & ~timed_out(record))


def run_duration_s(record: RunRecord, finished: BoolArray) -> float:
    """Return first arrival to last completion (to the last step if nothing finished)."""
    if not len(record.requests):
        return 0.0
    last_ps = int(record.outcomes.finish_ps[finished].max()) if finished.any() else record.end_ps
    return max(last_ps - int(record.requests.arrival_ps[0]), 0) / PS_PER_S


def offered_rate_per_s(record: RunRecord) -> float | None:
    """Return arrivals per second: gaps over the time they span."""
    arrival_ps = record.requests.arrival_ps
    span_ps = int(arrival_ps[-1] - arrival_ps[0]) if len(arrival_ps) else 0
    return (len(arrival_ps) - 1) * PS_PER_S / span_ps if span_ps > 0 else None


def _per_second(count: int, duration_s: float) -> float:
    return count / duration_s if duration_s > 0 else 0.0


def _most_tokens_in_a_second(
    record: RunRecord, finished: BoolArray, clock: StepClock, counts: TokenCounts
) -> float:
    busy = np.flatnonzero(counts.tokens)
    if not len(busy):
        return 0.0
    start_ps = int(record.requests.arrival_ps[finished].min())
    second = (clock.end_ps[busy] - start_ps) // PS_PER_S
    return float(np.bincount(second, weights=counts.tokens[busy]).max())


def _most_seen_in_a_second(record: RunRecord, finished: BoolArray) -> int:
    if not finished.any():
        return 0
    arrival_ps = record.requests.arrival_ps[finished]
    first = (arrival_ps - arrival_ps.min()) // PS_PER_S
    last = (record.outcomes.finish_ps[finished] - arrival_ps.min()) // PS_PER_S
    seconds_seen = int(last.max()) + 2
    change = np.bincount(first, minlength=seconds_seen) - np.bincount(
        last + 1, minlength=seconds_seen
    )
    return int(np.cumsum(change).max())


def _most_in_flight(record: RunRecord) -> int:
    """Count requests in the system; one that leaves as another comes does not meet it."""
    served = record.outcomes.status != REJECTED
    arrival_ps = np.sort(record.requests.arrival_ps[served])
    gone_ps = left_ps(record)
    gone_ps = np.sort(gone_ps[gone_ps != NEVER_PS])
    left = np.searchsorted(gone_ps, arrival_ps, side="right")
    return int((np.arange(1, len(arrival_ps) + 1) - left).max(initial=0))
