"""Conversations as requests: who speaks when, and how a prompt repeats what was said before."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from simserve.inputs.workload import SessionsSpec
from simserve.records.clock import PS_PER_S, PsArray
from simserve.records.requests import NOBODY, IntArray, RequestTable, SegmentTable
from simserve.traffic.lengths import Z95
from simserve.traffic.limits import LONGEST_SPAN_PS, MOST_ENTRIES, MOST_REQUESTS, check_count
from simserve.traffic.segments import offsets_of
from simserve.traffic.shared_texts import Heads
from simserve.traffic.streams import random_stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """Requests session by session, the turns of each in order; arrays are ``int64[requests]``."""

    session: IntArray
    turn: IntArray  # from 0
    arrival_ps: PsArray  # of turns that wait for answers, that of their session
    think_ps: PsArray  # before the turn; 0 before a first one

    def first_of_session(self) -> IntArray:
        """Return, for every request, the place of its session's first turn."""
        return np.arange(len(self.turn)) - self.turn

    def only(self, keep: npt.NDArray[np.bool_]) -> Turns:
        """Return these turns only; of every session the first so many."""
        return Turns(
            session=self.session[keep],
            turn=self.turn[keep],
            arrival_ps=self.arrival_ps[keep],
            think_ps=self.think_ps[keep],
        )


def single_turns(arrival_ps: PsArray) -> Turns:
    """Return requests that are no part of a conversation."""
    places = np.arange(len(arrival_ps), dtype=np.int64)
    nothing = np.zeros_like(places)
    return Turns(session=places, turn=nothing, arrival_ps=arrival_ps, think_ps=nothing)


def draw_turns(sessions: SessionsSpec, start_ps: PsArray, seed: int) -> Turns:
    """Return all turns of the sessions that start at these times.

    A turn comes a think time after the turn before it arrived, whether or not that has been
    answered, unless turns wait for that. Turns later than the clock can hold are left out.
    """
    counts = _turn_counts(sessions, len(start_ps), seed)
    check_count("sessions: all turns", int(counts.sum()), MOST_REQUESTS)
    first = np.repeat(offsets_of(counts)[:-1], counts)
    turn = np.arange(len(first)) - first
    pauses = _think_times_s(sessions, len(turn), random_stream(seed, "think times"))
    pauses[turn == 0] = 0
    since_s = np.cumsum(pauses)
    since_s -= since_s[first]
    session = np.repeat(np.arange(len(counts)), counts)
    late = since_s > LONGEST_SPAN_PS / PS_PER_S
    since_s[late] = LONGEST_SPAN_PS / PS_PER_S
    think_ps = np.rint(np.minimum(pauses, LONGEST_SPAN_PS / PS_PER_S) * PS_PER_S).astype(np.int64)
    arrival_ps = start_ps[session]
    if not sessions.wait_for_answer:
        arrival_ps = arrival_ps + np.rint(since_s * PS_PER_S).astype(np.int64)
    turns = Turns(session=session, turn=turn, arrival_ps=arrival_ps, think_ps=think_ps)
    return turns.only(~late & (arrival_ps <= LONGEST_SPAN_PS)) if late.any() else turns


def waiting_order(turns: Turns, num_requests: int | None) -> npt.NDArray[np.intp]:
    """Return the turns of sessions that wait for answers as a closed loop has them.

    First turns come first, in their order; what follows them stands behind. Sessions count
    from the first on, until they are ``num_requests`` together.
    """
    kept = np.arange(len(turns.turn) if num_requests is None else num_requests)
    kept = kept[: len(turns.turn)]
    return np.concatenate([kept[turns.turn[kept] == 0], kept[turns.turn[kept] > 0]])


def who_wait(requests: RequestTable, turns: Turns, order: npt.NDArray[np.intp]) -> RequestTable:
    """Return the requests, put into ``waiting_order``, as users who wait for their answers."""
    turn = turns.turn[order]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    later = np.flatnonzero(turn > 0)
    next_turn = np.full(len(order), NOBODY, dtype=np.int64)
    next_turn[place[order[later] - 1]] = later
    return replace(
        requests,
        users=int((turn == 0).sum()),
        think_ps=turns.think_ps[order],
        next_turn=next_turn,
    )


def _turn_counts(sessions: SessionsSpec, count: int, seed: int) -> IntArray:
    if sessions.mean_turns is None:
        check_count("sessions.turns", (sessions.turns or 1) * count, MOST_REQUESTS)
        return np.full(count, sessions.turns, dtype=np.int64)
    check_count("sessions.mean_turns", sessions.mean_turns * count, MOST_REQUESTS)
    return random_stream(seed, "turns").geometric(1 / sessions.mean_turns, count)


def _think_times_s(
    sessions: SessionsSpec, count: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    if sessions.think_time_p95_s is None:
        return np.full(count, sessions.think_time_s)
    mu = math.log(sessions.think_time_s)
    sigma = (math.log(sessions.think_time_p95_s) - mu) / Z95
    logs = mu + sigma * rng.standard_normal(count)
    return np.exp(np.minimum(logs, math.log(LONGEST_SPAN_PS / PS_PER_S)))


def prompt_lengths(
    turns: Turns, said: IntArray, outputs: IntArray, heads: Heads | None
) -> IntArray:
    """Return the tokens of every prompt: shared texts, all that was said, and what is new."""
    first = turns.first_of_session()
    both = np.cumsum(said + outputs)
    before_session = (both - said - outputs)[first]
    prompts = both - outputs - before_session
    return prompts if heads is None else prompts + heads.tokens_per_prompt()[turns.session]


def within_context(
    turns: Turns, prompts: IntArray, outputs: IntArray, most_tokens: int
) -> npt.NDArray[np.bool_]:
    """Return which turns come before the first that is too long; first turns always stay."""
    too_long = (prompts + outputs > most_tokens) & (turns.turn > 0)
    so_far = np.cumsum(too_long)
    # The first turn of a session is never too long, so it holds the count before the session.
    return np.asarray(so_far == so_far[turns.first_of_session()])


def segments_of_turns(
    turns: Turns, said: IntArray, outputs: IntArray, heads: Heads | None
) -> tuple[SegmentTable, IntArray]:
    """Return the prompts as segments, and the segment that each output is.

    A prompt is the shared texts of its session, then what was said and answered turn by turn,
    then what is new. With ``t`` shared texts and ``n`` requests, what request ``i`` says is
    segment ``t + i``, and its output ``t + n + i``.
    """
    requests, first = len(turns.turn), turns.first_of_session()
    texts = 0 if heads is None else heads.texts
    head_offsets = np.zeros(1, dtype=np.int64) if heads is None else heads.offsets
    in_head = np.zeros(requests, dtype=np.int64)
    if heads is not None:
        in_head = np.diff(head_offsets)[turns.session]
    entries = in_head + 2 * turns.turn + 1
    check_count("segments of all prompts", int(entries.sum()), MOST_ENTRIES)
    offsets = offsets_of(entries)
    own = np.arange(offsets[-1]) - np.repeat(offsets[:-1] + in_head, entries)
    speaker = np.repeat(first, entries) + own // 2
    answered = own % 2 == 1
    shared = own < 0
    speaker[shared] = 0
    segment = texts + speaker + np.where(answered, requests, 0)
    tokens = np.where(answered, outputs[speaker], said[speaker])
    if heads is not None:
        begin = head_offsets[:-1][turns.session]
        entry = (np.repeat(begin + in_head, entries) + own)[shared]
        segment[shared], tokens[shared] = heads.text[entry], heads.tokens[entry]
    table = SegmentTable(offsets=offsets, segment=segment, tokens=tokens)
    return table, texts + requests + np.arange(requests)
