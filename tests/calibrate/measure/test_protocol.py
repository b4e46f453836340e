"""The arithmetic of a measurement keeps what the protocol promises."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from calibrate.measure.protocol import Protocol

SECONDS = st.floats(1e-7, 1.0)
BYTES = st.floats(1.0, 1e10)
RULES = Protocol(cache_bytes=60e6)
LOOPS = Protocol(cache_bytes=16e6, captures=False)


@given(cold=BYTES)
def test_rotating_buffers_exceed_four_caches_or_are_as_many_as_a_graph_holds(cold: float) -> None:
    copies = RULES.copies(cold)
    assert 1 <= copies <= RULES.most_calls
    assert copies * cold >= 4 * RULES.cache_bytes or copies == RULES.most_calls


def test_what_an_engine_finds_in_the_cache_is_not_rotated() -> None:
    assert RULES.copies(0.0) == 1


@given(call_s=SECONDS, cold=BYTES)
def test_a_captured_replay_goes_over_every_buffer_equally_often(call_s: float, cold: float) -> None:
    copies = RULES.copies(cold)
    calls = RULES.calls(call_s, copies)
    assert calls % copies == 0
    assert copies <= calls <= RULES.most_calls


@given(call_s=SECONDS, cold=BYTES)
def test_a_replay_takes_its_share_of_the_time_unless_the_graph_is_full(
    call_s: float, cold: float
) -> None:
    share_s = RULES.min_s / RULES.replays
    copies = RULES.copies(cold)
    calls = RULES.calls(call_s, copies)
    assert calls * call_s >= share_s * (1 - 1e-9) or calls + copies > RULES.most_calls
    loops = LOOPS.calls(call_s, LOOPS.copies(cold))
    assert loops * call_s >= LOOPS.min_s / LOOPS.replays * (1 - 1e-9) or loops == LOOPS.most_calls


@given(replay_s=SECONDS)
def test_replays_are_twenty_or_take_twenty_milliseconds_and_are_five(replay_s: float) -> None:
    times = RULES.replays_of(replay_s)
    assert RULES.fewest_replays <= times <= RULES.replays
    assert times == RULES.replays or times * replay_s >= RULES.min_s * (1 - 1e-9)


@given(call_s=SECONDS, cold=BYTES)
def test_the_estimate_counts_at_least_the_timed_calls(call_s: float, cold: float) -> None:
    calls = RULES.calls(call_s, RULES.copies(cold))
    timed_s = calls * call_s * RULES.replays_of(calls * call_s)
    assert RULES.point_s(call_s, cold) >= timed_s
