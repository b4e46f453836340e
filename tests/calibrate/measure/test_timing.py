"""One path measures every device; here on a clock that a test can read."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from itertools import count, pairwise
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402

from calibrate.measure.arena import Arena  # noqa: E402
from calibrate.measure.bench import TorchBench  # noqa: E402
from calibrate.measure.cases.attention import paged_batch, sequences  # noqa: E402
from calibrate.measure.cases.setting import Request  # noqa: E402
from calibrate.measure.protocol import Protocol  # noqa: E402
from calibrate.measure.timing import Case, CudaClock, measured  # noqa: E402
from calibrate.plans.choose import make_plan  # noqa: E402
from calibrate.plans.point import LAUNCH  # noqa: E402

CALL_S = 4e-5


class CountedClock:
    """Every call takes the same time; replays are what was recorded."""

    broken = False

    def __init__(self, captures: bool) -> None:
        self.captures = captures

    def recorded(self, case: Case, calls: int) -> Callable[[], object]:
        def replay() -> int:
            for call in range(calls):
                case.launch(call % case.copies)
            return calls

        return replay

    def seconds(self, replay: Callable[[], Any], times: int) -> list[float]:
        return [replay() * CALL_S for _ in range(times)]

    def settled(self) -> None:
        pass

    def running(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def clear(self) -> None:
        pass


@pytest.mark.parametrize("captures", [True, False])
@pytest.mark.parametrize("copies", [1, 7, 200])
def test_the_time_of_a_call_is_found_whatever_a_replay_holds(captures: bool, copies: int) -> None:
    calls: Counter[int] = Counter()
    case = Case(lambda copy: calls.update([copy]), copies)
    rules = Protocol(cache_bytes=1.0, captures=captures)
    row = measured(case, CountedClock(captures), rules)
    assert row["us_p50"] == pytest.approx(CALL_S * 1e6)
    assert row["us_min"] == row["us_p10"] == pytest.approx(row["us_p90"])
    assert row["n"] * row["calls"] * CALL_S >= rules.min_s * 0.99 or row["n"] == rules.replays
    if captures:  # but for the warm-up, every buffer as often as any other
        assert max(calls.values()) - min(calls.values()) <= rules.warm_ups


def test_a_case_runs_hot_before_it_is_timed() -> None:
    launched: list[int] = []
    case = Case(launched.append, heat_s=0.5)
    measured(case, CountedClock(True), Protocol(cache_bytes=1.0))
    assert len(launched) * CALL_S >= 0.5


def test_views_of_an_arena_do_not_overlap_and_are_no_constants() -> None:
    arena = Arena(torch.device("cpu"), seed=0)
    views = arena.views("weights", torch.float32, (33, 5), copies=4)
    places = sorted((one.data_ptr(), one.data_ptr() + one.nbytes) for one in views)
    assert all(end <= start for (_, end), (start, _) in pairwise(places))
    assert all(0.8 < float(one.std()) < 1.2 for one in views)
    again = arena.views("weights", torch.float32, (3,))[0]
    assert again.data_ptr() == views[0].data_ptr()  # filled once


def test_eight_bit_buffers_hold_numbers() -> None:
    view = Arena(torch.device("cpu"), seed=0).views("keys", torch.float8_e4m3fn, (1 << 12,))[0]
    assert bool(torch.isfinite(view.float()).all())


def test_blocks_lie_scattered_and_belong_to_one_sequence() -> None:
    contexts = [1, 16, 17, 200]
    batch, blocks = paged_batch([1, 1, 1, 8], contexts, 16, torch.device("cpu"))
    own = [
        batch.block_table[row, : -(-context // 16)].tolist() for row, context in enumerate(contexts)
    ]
    ids = [one for row in own for one in row]
    assert len(set(ids)) == len(ids)
    assert sorted(ids) == list(range(1, blocks))  # 0 is the dummy
    assert own[3] != sorted(own[3])
    assert batch.query_start.tolist() == [0, 1, 2, 3, 11]


@pytest.mark.parametrize("table", ["attn_decode", "attn_prefill", "attn_mixed"])
def test_what_is_measured_has_the_sizes_that_its_row_says(table: str) -> None:
    points = [one for one in make_plan("cpu-smoke").points if one.table == table]
    for point in points:
        asked = Request(table, point.keys, point.how, 0.0)
        new, contexts = sequences(asked)
        if table == "attn_decode":
            assert len(contexts) == point.keys["batch"]
            assert (sum(contexts), max(contexts)) == (point.keys["sum_ctx"], point.keys["max_ctx"])
            assert np.std(contexts) / np.mean(contexts) == pytest.approx(point.keys["cv"], abs=1e-3)
        elif table == "attn_prefill":
            assert (len(new), new[0]) == (point.keys["n_req"], point.keys["q"])
            assert contexts[0] - new[0] == point.keys["past"]
        else:
            assert (len(new) - 1, new[-1]) == (point.keys["n_dec"], point.keys["q"])


def test_every_point_of_the_cpu_plan_can_be_measured() -> None:
    plan = make_plan("cpu-smoke")
    rules = Protocol(cache_bytes=1e5, captures=False, warm_ups=1, replays=1, fewest_replays=1,
                     min_s=1e-9)  # fmt: skip
    threads = torch.get_num_threads()
    bench = TorchBench("cpu", rules, seed=0)
    try:
        for point in plan.points:
            answer = bench.measure(point.request())
            assert answer["status"] == "ok", (point.name, answer)
            assert answer["us_p50"] > 0
            assert point.table == LAUNCH or answer["calls"] >= 1
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("table", ["gemm", LAUNCH])
def test_every_kind_of_point_is_built_and_captured_in_inference_mode(
    monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """A capture in one mode and a later one in the other: torch refuses the second."""
    seen: list[bool] = []

    def noted(*_: object) -> dict[str, float]:
        seen.append(torch.is_inference_mode_enabled())
        return {"us_mean": 1.0, "n": 1}

    monkeypatch.setattr("calibrate.measure.bench.machine.launch_cost", noted)
    monkeypatch.setattr("calibrate.measure.bench.measured", noted)
    bench = TorchBench("cpu", Protocol(cache_bytes=1e5, captures=False), seed=0)
    point = next(one for one in make_plan("cpu-smoke").points if one.table == table)
    assert bench.measure(point.request())["status"] == "ok"
    assert seen == [True]


def test_a_kernel_that_is_not_there_refuses() -> None:
    bench = TorchBench("cpu", Protocol(cache_bytes=1e5, captures=False), seed=0)
    point = next(one for one in make_plan("cpu-smoke").points if one.table == "gemm")
    asked = point.request()
    asked["keys"]["backend"] = "cublaslt-bf16"
    answer = bench.measure(asked)
    assert answer["status"] == "refused"
    assert "cublaslt-bf16" in answer["error"]


class FakeCuda:
    """Stands in for torch.cuda: what is launched during a capture is replayed later."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ms = 0.0
        self.capturing: list[Callable[[], None]] | None = None
        self.log: list[str] = []
        self.graphs_of: Counter[int] = Counter()  # alive, by pool
        self.invalid = False  # as CUDA says it of a capture, at its end
        fake = self

        class Stream:
            def synchronize(self) -> None:
                fake.log.append("synchronize")

            def wait_stream(self, other: object) -> None:
                fake.log.append("wait")

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                self.at_ms = -1.0

            def record(self) -> None:
                self.at_ms = fake.now_ms

            def synchronize(self) -> None:
                fake.log.append("event")

            def elapsed_time(self, other: Event) -> float:
                return other.at_ms - self.at_ms

        class CUDAGraph:
            """A pool ends with its last graph; to capture into one that ended is an error."""

            def capture_begin(self, pool: int, capture_error_mode: str) -> None:
                assert capture_error_mode == "thread_local"
                assert torch.is_inference_mode_enabled()
                self.pool, self.calls = pool, list[Callable[[], None]]()
                assert pool not in fake.graphs_of or fake.graphs_of[pool] > 0
                fake.graphs_of[pool] += 1
                fake.capturing = self.calls

            def capture_end(self) -> None:
                fake.capturing = None
                if fake.invalid:
                    raise RuntimeError("operation failed due to a previous error during capture")

            def replay(self) -> None:
                for call in self.calls:
                    call()

            def __del__(self) -> None:
                fake.graphs_of[self.pool] -= 1

        for name, one in (("Stream", Stream), ("Event", Event), ("CUDAGraph", CUDAGraph)):
            monkeypatch.setattr(torch.cuda, name, one)
        pools = count(1)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(pools))
        monkeypatch.setattr(torch.cuda, "default_stream", Stream)
        monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def launch(self, ms: float) -> None:
        """Take time now, or at every replay of the graph that is being captured."""

        def pass_time() -> None:
            self.now_ms += ms

        if self.capturing is None:
            pass_time()
        else:
            self.capturing.append(pass_time)


@pytest.mark.parametrize("graph", [True, False])
def test_a_gpu_is_timed_by_events_around_replays(
    monkeypatch: pytest.MonkeyPatch, graph: bool
) -> None:
    fake = FakeCuda(monkeypatch)
    seen: Counter[int] = Counter()

    def launch(copy: int) -> None:
        seen.update([copy])
        fake.launch(0.05)

    row = measured(Case(launch, copies=6, graph=graph), CudaClock(), Protocol(cache_bytes=1.0))
    assert row["us_p50"] == pytest.approx(50.0)
    assert (row["graph"], row["calls"] % 6, row["n"]) == (
        int(graph),
        0,
        17 if row["calls"] == 24 else 20,
    )
    assert set(seen) == set(range(6))


def test_a_kernel_that_breaks_a_capture_leaves_a_clock_that_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeCuda(monkeypatch)
    clock = CudaClock()

    def broken(copy: int) -> None:
        if fake.capturing is not None:
            raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="not permitted"):
        measured(Case(broken), clock, Protocol(cache_bytes=1.0))
    assert fake.capturing is None
    row = measured(Case(lambda _: fake.launch(1.0)), clock, Protocol(cache_bytes=1.0))
    assert row["us_p50"] == pytest.approx(1000.0)
    assert not clock.broken


def test_all_captures_share_a_pool_that_lives_until_the_clock_is_cleared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeCuda(monkeypatch)
    clock = CudaClock()
    rules = Protocol(cache_bytes=1.0)
    for _ in range(5):
        measured(Case(lambda _: fake.launch(1.0)), clock, rules)
    assert fake.graphs_of == {1: 1}  # what keeps it
    clock.clear()
    assert fake.graphs_of == {1: 0}
    measured(Case(lambda _: fake.launch(1.0)), clock, rules)
    assert fake.graphs_of == {1: 0, 2: 1}


def test_after_a_capture_that_cuda_calls_invalid_the_process_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeCuda(monkeypatch)
    clock = CudaClock()
    measured(Case(lambda _: fake.launch(1.0)), clock, Protocol(cache_bytes=1.0))
    fake.invalid = True
    with pytest.raises(RuntimeError, match="previous error"):
        measured(Case(lambda _: fake.launch(1.0)), clock, Protocol(cache_bytes=1.0))
    assert clock.broken
