"""A workload and a seed become requests: the one door of this package."""

from __future__ import annotations

import numpy as np

from simserve.errors import InputError
from simserve.inputs.workload import LengthSpec, PrefixSpec, WorkloadSpec
from simserve.records.clock import PsArray
from simserve.records.requests import IntArray, RequestTable, SegmentTable
from simserve.traffic.arrivals import arrivals_within_ps, first_arrivals_ps
from simserve.traffic.lengths import draw_lengths
from simserve.traffic.limits import MOST_REQUESTS, MOST_TOKENS, check_count
from simserve.traffic.streams import random_stream
from simserve.traffic.trace_formats import load_trace


def generate(workload: WorkloadSpec, seed: int) -> RequestTable:
    """Return the requests of a workload, in order of arrival.

    A trace is read as it stands and uses no seed. Otherwise arrival times, prompt lengths,
    output lengths and prefixes each come from a stream of their own: changing one part of
    the workload leaves the others' numbers alone.

    Raises:
        InputError: if the trace or the seed cannot be used, or there is too much of it.
    """
    if workload.trace is not None:
        return load_trace(workload.trace.file, workload.trace.format, workload.trace.head)
    arrival_ps = _arrival_times_ps(workload, seed)
    count = len(arrival_ps)
    prompts = _lengths("prompt_tokens", workload.prompt_tokens, count, seed)
    outputs = _lengths("output_tokens", workload.output_tokens, count, seed)
    segments = None
    if workload.prefix is not None:
        segments = _prefixed(workload.prefix, prompts, random_stream(seed, "prefixes"))
        prompts = prompts + workload.prefix.tokens
        check_count("prefix.tokens and prompt_tokens", int(prompts.max()), MOST_TOKENS)
    return RequestTable(
        arrival_ps=arrival_ps, prompt_tokens=prompts, output_tokens=outputs, segments=segments
    )


def _arrival_times_ps(workload: WorkloadSpec, seed: int) -> PsArray:
    rng = random_stream(seed, "arrivals")
    if workload.arrivals is not None:
        if workload.num_requests is not None:
            return first_arrivals_ps(workload.arrivals, workload.num_requests, rng)
        if workload.duration_s is not None:
            return arrivals_within_ps(workload.arrivals, workload.duration_s, rng)
    raise InputError("workload", None, "no arrivals", "arrivals with num_requests or duration_s")


def _lengths(which: str, spec: LengthSpec | None, count: int, seed: int) -> IntArray:
    if spec is None:
        raise InputError("workload", which, "nothing", "tokens: an integer, or {median, p95}")
    return draw_lengths(which, spec, count, random_stream(seed, which))


def _prefixed(prefix: PrefixSpec, tails: IntArray, rng: np.random.Generator) -> SegmentTable:
    """Return prompts of a shared prefix, drawn uniformly, and a tail that nobody shares.

    Prefixes are segments 0 to ``count - 1``; the tail of request ``i`` is ``count + i``.
    """
    check_count("prefix.count", prefix.count, MOST_REQUESTS)
    check_count("prefix.tokens", prefix.tokens, MOST_TOKENS)
    count = len(tails)
    segment = np.empty(2 * count, dtype=np.int64)
    segment[0::2] = rng.integers(0, prefix.count, count)
    segment[1::2] = prefix.count + np.arange(count)
    tokens = np.empty(2 * count, dtype=np.int64)
    tokens[0::2], tokens[1::2] = prefix.tokens, tails
    return SegmentTable(
        offsets=np.arange(0, 2 * count + 1, 2, dtype=np.int64), segment=segment, tokens=tokens
    )
