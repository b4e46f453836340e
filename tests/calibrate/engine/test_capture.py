"""Graphs of decodes, without a GPU: what is captured is called again, from the same buffers."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from calibrate.engine.runner import Runner  # noqa: E402
from calibrate.engine.warm_up import tables_of  # noqa: E402
from calibrate.kernels.interface import PagedBatch  # noqa: E402
from calibrate.kernels.torch_cpu import TorchAttention  # noqa: E402
from simserve.policy.scheduler import Scheduled  # noqa: E402
from tests.calibrate.engine.small import LIMITS, small_runner  # noqa: E402

CONTEXTS = [40, 3, 159]
# torch gives these to a class that is not there without CUDA; the wrapper in Python always is.
CAPTURE_BEGIN = inspect.signature(torch.cuda.CUDAGraph.capture_begin)


class Recorded:
    """A stream, an event, a graph: whatever is asked of them is fine."""

    def __init__(self, *_: object) -> None:
        self.replay: Callable[[], object] = lambda: None

    def wait_stream(self, _: object) -> None:
        """Nothing is ever under way."""

    def record(self) -> None:
        """Nothing is ever under way."""

    def synchronize(self) -> None:
        """Nothing is ever under way."""


class Dividing(TorchAttention):
    """Plans anew before every replay, and notes for which lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.replanned: list[tuple[int, ...]] = []

    def replan(self, planned: Any, batch: PagedBatch) -> None:
        """Note the lengths."""
        del planned
        self.replanned.append(batch.context_tokens)


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Runner:
    """A runner whose graph of four sequences was captured, as on a GPU."""
    forward: list[Callable[[], object]] = []

    @contextlib.contextmanager
    def graph(into: Recorded, *, pool: object, stream: object) -> Any:
        assert (pool, stream) == ("pool", aside)
        before = len(forward)
        yield
        into.replay = forward[before]

    aside = Recorded()
    for name, fake in (("CUDAGraph", Recorded), ("graph", graph)):
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.cuda, "current_stream", Recorded)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    kernel = Dividing()
    monkeypatch.setattr("calibrate.engine.runner.ATTENTION", {"torch": _Given(kernel)})
    made = small_runner()
    real = made.model.forward

    def noted(*given: object) -> object:
        forward.append(lambda: real(*given))  # type: ignore[arg-type]
        return forward[-1]()

    monkeypatch.setattr(made.model, "forward", noted)
    with torch.inference_mode():
        made._graphs[4] = made._captured(4, "pool", aside)
    monkeypatch.setattr(made.model, "forward", real)
    for staging in made._staging:
        staging._read = Recorded()  # so that lists are copied into the graph's buffer
    return made


class _Given:
    """An entry of the registry for a kernel that is there."""

    devices = ("cpu",)

    def __init__(self, kernel: object) -> None:
        self._kernel = kernel

    def __call__(self) -> object:
        return self._kernel


def sampled(runner: Runner, contexts: list[int]) -> list[int]:
    tables = tables_of(LIMITS, contexts)
    decodes = [Scheduled(request, 1, context - 1, True) for request, context in enumerate(contexts)]
    with torch.inference_mode():
        prepared = runner.prepare(decodes, tables)
        prepared.work()
        prepared.copy_out()
    tokens: list[int] = prepared.sampled.tolist()
    return tokens


def test_a_replay_samples_what_an_eager_step_does_for_lengths_that_nobody_planned(
    captured: Runner,
) -> None:
    eager = small_runner()
    with torch.inference_mode():
        for cache in (captured.cache, eager.cache):
            for seed, one in enumerate((*cache.keys, *cache.values)):
                one.normal_(generator=torch.Generator().manual_seed(seed))
    for contexts in (CONTEXTS, [1, 1, 1, 1], [160, 2, 77]):
        assert sampled(captured, contexts) == sampled(eager, contexts)


def test_the_work_is_divided_anew_for_the_lengths_of_every_replay(captured: Runner) -> None:
    kernel: Any = captured._attention
    sampled(captured, CONTEXTS)
    sampled(captured, [5, 6, 7, 8])
    assert kernel.replanned == [(*CONTEXTS, 1), (5, 6, 7, 8)]  # padding has one token


def test_torch_captures_with_the_arguments_that_are_given() -> None:
    CAPTURE_BEGIN.bind(None, pool=(0, 1), capture_error_mode="thread_local")
    inspect.signature(torch.cuda.graph).bind(None, pool=(0, 1), stream=None)


def test_plain_torch_attention_has_no_graphs_on_a_gpu() -> None:
    on_gpu = torch.empty(0, device="meta", dtype=torch.int32)
    batch = PagedBatch((1,), (1,), on_gpu, on_gpu, on_gpu)
    assert not TorchAttention().replayable(batch)
