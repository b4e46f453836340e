"""A trace as a workload asks for it: a part of the file, faster or slower, bursts and all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simserve.errors import InputError
from simserve.inputs.workload import ArrivalsSpec, TraceSpec
from simserve.records.clock import PS_PER_S
from simserve.records.requests import RequestTable
from simserve.traffic.arrivals import first_arrivals_ps
from simserve.traffic.limits import LONGEST_SPAN_DAYS, LONGEST_SPAN_PS
from simserve.traffic.streams import random_stream
from simserve.traffic.trace_formats import Part, TraceFile, read_trace


def replayed(trace: TraceSpec, arrivals: ArrivalsSpec | None, seed: int) -> TraceFile:
    """Return the trace as it is replayed.

    A trace without times needs ``arrivals``, or a rate, which then is that of Poisson arrivals.
    One with times refuses ``arrivals``.

    Raises:
        InputError: if the file cannot be used, or not in this way.
    """
    found = _read(trace, seed)
    if not found.timed:
        _refuse_times(trace, "time_scale")
        if arrivals is None and trace.rate_per_s is not None:
            arrivals = ArrivalsSpec(rate_per_s=trace.rate_per_s)
            note = f"the file has no times: Poisson arrivals at {trace.rate_per_s:g}/s"
            found = replace(found, notes=(*found.notes, note))
        else:
            _refuse_times(trace, "rate_per_s")
        return replace(found, requests=_timed(trace, found.requests, arrivals, seed))
    if arrivals is not None:
        allowed = (
            "nothing: the trace has times of its own (workload.trace.rate_per_s makes them "
            "faster or slower, format lengths leaves them out)"
        )
        raise InputError(trace.file, "workload.arrivals", "a value", allowed)
    return replace(found, requests=_scaled(trace, found))


def read_part(trace: TraceSpec, seed: int) -> TraceFile:
    """Return the part of a trace that is asked for, at its speed.

    The requests of a trace without times all come at 0.

    Raises:
        InputError: if the file cannot be used, or not in this way.
    """
    found = _read(trace, seed)
    if found.timed:
        return replace(found, requests=_scaled(trace, found))
    _refuse_times(trace, "rate_per_s", "time_scale")
    return found


def _read(trace: TraceSpec, seed: int) -> TraceFile:
    part = Part(head=trace.head, from_s=trace.from_s or 0.0, to_s=trace.to_s)
    return read_trace(
        trace.file,
        trace.format,
        part,
        block_tokens=trace.block_tokens,
        columns=trace.columns,
        rate_per_s=trace.rate_per_s,
        skip_incomplete=bool(trace.skip_incomplete),
        seed=seed,
    )


def _refuse_times(trace: TraceSpec, *keys: str) -> None:
    """Refuse what changes the speed of a file that has no times."""
    for key in keys:
        if getattr(trace, key) is not None:
            allowed = "nothing: the file has no times; see workload.arrivals"
            raise InputError(trace.file, f"trace.{key}", getattr(trace, key), allowed)


def mean_rate_per_s(requests: RequestTable) -> float | None:
    """Return requests per second of the time from the first to the last; None without time."""
    span_ps = int(requests.arrival_ps[-1])
    return len(requests) / (span_ps / PS_PER_S) if span_ps else None


def _timed(
    trace: TraceSpec, requests: RequestTable, arrivals: ArrivalsSpec | None, seed: int
) -> RequestTable:
    if arrivals is None:
        allowed = "arrivals, such as {rate_per_s: 5}, or --rate: the file has no times"
        raise InputError(trace.file, "workload.arrivals", "nothing", allowed)
    rng, phases = random_stream(seed, "arrivals"), random_stream(seed, "arrival phases")
    arrival_ps = first_arrivals_ps(arrivals, len(requests), rng, phases)
    return replace(requests, arrival_ps=arrival_ps)


def _scaled(trace: TraceSpec, found: TraceFile) -> RequestTable:
    requests, scale = found.requests, trace.time_scale
    if trace.rate_per_s is not None and not found.rescaled:
        rate_per_s = mean_rate_per_s(requests)
        if rate_per_s is None:
            got = "requests that all come at once"
            raise InputError(trace.file, "trace.rate_per_s", got, "a trace with a span")
        scale = rate_per_s / trace.rate_per_s
    if scale is None:
        return requests
    if not float(requests.arrival_ps[-1]) * scale <= LONGEST_SPAN_PS:
        span_days = float(requests.arrival_ps[-1]) * scale / PS_PER_S / 86_400
        got = f"times over {span_days:.3g} days"
        raise InputError(trace.file, None, got, f"at most {LONGEST_SPAN_DAYS} days")
    arrival_ps = np.rint(requests.arrival_ps * scale).astype(np.int64)
    return replace(requests, arrival_ps=arrival_ps)
