"""A workload and a seed become requests: the one door of this package."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from simserve.errors import InputError
from simserve.inputs.workload import ClassSpec, LengthSpec, WorkloadSpec
from simserve.records.clock import PsArray, to_ps
from simserve.records.requests import IntArray, RequestTable
from simserve.traffic.arrivals import arrivals_within_ps, first_arrivals_ps
from simserve.traffic.lengths import draw_lengths
from simserve.traffic.limits import MOST_TOKENS, check_count
from simserve.traffic.patience import with_patience
from simserve.traffic.replay import replayed
from simserve.traffic.segments import reordered
from simserve.traffic.sessions import (
    Turns,
    draw_turns,
    prompt_lengths,
    segments_of_turns,
    single_turns,
    waiting_order,
    who_wait,
    within_context,
)
from simserve.traffic.shared_texts import Heads, group_heads, prefix_heads
from simserve.traffic.streams import random_stream
from simserve.traffic.users import asked_by_users


def generate(workload: WorkloadSpec, seed: int) -> RequestTable:
    """Return the requests of a workload, in order of arrival.

    A trace is read as it stands; only a pool of clients and a trace without times need the
    seed. Otherwise arrival times, prompt lengths, output lengths and every other part each
    come from a stream of their own: changing one part of the workload leaves the others'
    numbers alone. In a closed loop the order is that in which requests are asked.

    Raises:
        InputError: if the trace or the seed cannot be used, or there is too much of it.
    """
    requests = with_patience(_generate(workload, seed), workload, seed)
    if workload.arrivals is None or workload.arrivals.process != "closed-loop":
        return requests
    return asked_by_users(requests, workload.arrivals, random_stream(seed, "user think times"))


def _generate(workload: WorkloadSpec, seed: int) -> RequestTable:
    if workload.trace is not None:
        replay = replayed(workload.trace, workload.arrivals, seed)
        return replace(replay.requests, notes=replay.notes)
    turns = _turns(workload, seed)
    classes = workload.classes or ()
    kind = _class_of_session(classes, turns, seed)
    said = _lengths("prompt_tokens", workload.prompt_tokens, classes, kind, seed)
    outputs = _lengths("output_tokens", workload.output_tokens, classes, kind, seed)
    heads = _heads(workload, int(turns.session[-1]) + 1, seed)
    prompts = prompt_lengths(turns, said, outputs, heads)
    if workload.sessions is not None and workload.sessions.max_context_tokens is not None:
        most = workload.sessions.max_context_tokens
        keep = within_context(turns, prompts, outputs, most)
        turns, kind = turns.only(keep), kind[keep]
        said, outputs, prompts = said[keep], outputs[keep], prompts[keep]
    parts = "prefix.tokens and " if workload.prefix is not None else ""
    check_count(f"{parts}prompt_tokens", int(prompts.max()), MOST_TOKENS)
    return _in_order(workload, turns, kind, said, outputs, prompts, heads)


def _turns(workload: WorkloadSpec, seed: int) -> Turns:
    """Return who asks when; sessions that can hold the first ``num_requests`` requests.

    The first ``n`` requests belong to the first ``n`` sessions, for these alone start ``n``
    requests by the time the last of them starts.
    """
    rng, phases = random_stream(seed, "arrivals"), random_stream(seed, "arrival phases")
    start_ps: PsArray
    if workload.arrivals is not None and workload.num_requests is not None:
        start_ps = first_arrivals_ps(workload.arrivals, workload.num_requests, rng, phases)
    elif workload.arrivals is not None and workload.duration_s is not None:
        start_ps = arrivals_within_ps(workload.arrivals, workload.duration_s, rng, phases)
    else:
        allowed = "arrivals with num_requests or duration_s"
        raise InputError("workload", None, "no arrivals", allowed)
    if workload.sessions is None:
        return single_turns(start_ps)
    return draw_turns(workload.sessions, start_ps, seed)


def _class_of_session(classes: tuple[ClassSpec, ...], turns: Turns, seed: int) -> IntArray:
    """Return the number of the class of every request; 0 where there are none."""
    if not classes:
        return np.zeros(len(turns.session), dtype=np.int64)
    shares = np.cumsum([one.weight for one in classes])
    drawn = random_stream(seed, "classes").random(int(turns.session[-1]) + 1) * shares[-1]
    found = np.searchsorted(shares, drawn, side="right")
    return np.asarray(np.minimum(found, len(classes) - 1)[turns.session])


def _lengths(
    which: str,
    spec: LengthSpec | None,
    classes: tuple[ClassSpec, ...],
    kind: IntArray,
    seed: int,
) -> IntArray:
    """Return a length for every request: that of its class, or else of the workload."""
    lengths = np.ones(len(kind), dtype=np.int64)
    if spec is not None:
        lengths = draw_lengths(which, spec, len(kind), random_stream(seed, which))
    elif not classes:
        raise InputError("workload", which, "nothing", "tokens: an integer, or {median, p95}")
    for number, one in enumerate(classes):
        own: LengthSpec | None = getattr(one, which)
        if own is not None:
            name = f"classes.{one.name}.{which}"
            drawn = draw_lengths(name, own, len(kind), random_stream(seed, name))
            lengths = np.where(kind == number, drawn, lengths)
    return lengths


def _heads(workload: WorkloadSpec, sessions: int, seed: int) -> Heads | None:
    if workload.prefix is not None:
        return prefix_heads(workload.prefix, sessions, seed)
    if workload.segments is not None:
        return group_heads(workload.segments, sessions, seed)
    return None


def _in_order(
    workload: WorkloadSpec,
    turns: Turns,
    kind: IntArray,
    said: IntArray,
    outputs: IntArray,
    prompts: IntArray,
    heads: Heads | None,
) -> RequestTable:
    """Return the requests in order of arrival, as many as were asked for."""
    segments, output_segment = None, None
    if heads is not None or workload.sessions is not None:
        segments, output_segment = segments_of_turns(turns, said, outputs, heads)
    classes = workload.classes or ()
    request_class = kind if classes else None
    priority = None
    if any(one.priority is not None for one in classes):
        priority = np.array([one.priority or 0 for one in classes], dtype=np.int64)[kind]
    waits = workload.sessions is not None and bool(workload.sessions.wait_for_answer)
    order = waiting_order(turns, workload.num_requests) if waits else _order(workload, turns)
    if workload.sessions is None:
        output_segment = None  # nobody repeats them
    elif segments is not None and output_segment is not None:
        segments, output_segment = reordered(segments, order), output_segment[order]
    requests = RequestTable(
        arrival_ps=turns.arrival_ps[order],
        prompt_tokens=prompts[order],
        output_tokens=outputs[order],
        segments=segments,
        output_segment=output_segment,
        priority=None if priority is None else priority[order],
        request_class=None if request_class is None else request_class[order],
        class_names=tuple(one.name for one in classes),
    )
    return who_wait(requests, turns, order) if waits else requests


def _order(workload: WorkloadSpec, turns: Turns) -> npt.NDArray[np.intp]:
    order = np.argsort(turns.arrival_ps, kind="stable")
    if workload.num_requests is not None:
        return order[: workload.num_requests]
    if workload.duration_s is not None:
        return order[turns.arrival_ps[order] <= to_ps(workload.duration_s)]
    return order
