"""Prepares steps and launches them: one copy in, a CUDA graph or eager kernels, one copy out.

Decode batches are padded to the sizes that a graph was captured for; larger ones, and steps
with chunks, run eagerly. On a CPU a padded batch runs like any other: the same steps, no graph.
Nothing here waits for the device, but for a staging buffer that is still being read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from calibrate.engine.blocks import BlockTables
from calibrate.engine.inputs import (
    DeviceInputs,
    HostStep,
    Int32,
    Layout,
    device_inputs,
    fill,
    order_of,
)
from calibrate.engine.model import Kernels, Transformer, Workspace
from calibrate.kernels.interface import PagedBatch, replan, replayable
from calibrate.kernels.registry import ATTENTION, GEMM, OPS, Entry
from simserve.errors import InputError, SimserveError, unknown_name
from simserve.inputs.model_spec import ModelSpec
from simserve.policy.limits import SchedulerLimits
from simserve.policy.scheduler import Scheduled

_LARGEST_GRAPH = 256
GRAPH_SIZES = (1, 2, 4, *range(8, _LARGEST_GRAPH + 1, 8))
"""Batches that a graph is captured for: vLLM's default sizes up to 256."""

# Steps under way at once, and one more: a buffer is reused when its step is long done.
_STAGING = 3
_CAPTURE_WARM_UPS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSetup:
    """What runs: a model, where, on which kernels (names of ``calibrate.kernels.registry``)."""

    model: ModelSpec
    device: torch.device
    dtype: torch.dtype
    attention: str
    gemm: str
    ops: str
    graph_sizes: tuple[int, ...] = GRAPH_SIZES
    seed: int = 0


def load_kernels(setup: EngineSetup) -> Kernels:
    """Return the kernels that a setup names.

    Raises:
        InputError: if one is unknown, or cannot run on this machine.
    """
    return Kernels(
        attention=_kernel(ATTENTION, "attention", setup.attention, setup.device),
        gemm=_kernel(GEMM, "gemm", setup.gemm, setup.device),
        ops=_kernel(OPS, "ops", setup.ops, setup.device),
    )


def _kernel(table: dict[str, Entry[Any]], which: str, name: str, device: torch.device) -> Any:
    fitting = [one for one, entry in table.items() if device.type in entry.devices]
    if name not in fitting:
        raise unknown_name("engine", which, name, fitting)
    try:
        kernel = table[name]()
        reason = kernel.missing()
    except (ImportError, AttributeError, OSError) as error:
        reason = str(error)
    if reason is not None:
        raise InputError("engine", which, f"{name}, which is missing: {reason}", ", ".join(fitting))
    return kernel


class Staging:
    """One step's host buffers: pinned on a GPU host, and reused only when they were read."""

    def __init__(self, words: int, seqs: int, device: torch.device) -> None:
        pinned = device.type == "cuda"
        self.lists = torch.zeros(words, dtype=torch.int32, pin_memory=pinned)
        self.sampled = torch.zeros(seqs, dtype=torch.int64, pin_memory=pinned)
        self.array: Int32 = self.lists.numpy()
        self._read: Any = torch.cuda.Event() if pinned else None

    def wait_until_read(self) -> None:
        """Wait until the last copy out of this buffer is done; at once if it was never copied."""
        if self._read is not None:
            self._read.synchronize()

    def send(self, words: int, to: torch.Tensor) -> torch.Tensor:
        """Copy the first ``words`` to the device; on a CPU return them where they are."""
        if self._read is None:
            return self.lists[:words]
        to[:words].copy_(self.lists[:words], non_blocking=True)
        self._read.record()
        return to[:words]


@dataclass(frozen=True, slots=True)
class CapturedDecode:
    """A graph of one batch size, the buffer that it reads its lists from, and its plan.

    The plan is kept because the graph reads its workspaces.
    """

    graph: Any
    buffer: torch.Tensor
    planned: Any


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """A step that only has to be launched."""

    work: Callable[[], object]
    copy_out: Callable[[], object]
    host: HostStep
    graph_size: int  # 0: eager
    sampled: torch.Tensor  # int64[real sequences] on the host, once it is copied


class Runner:
    """The model with a KV cache and buffers for replays within ``limits``.

    A replay may have fewer blocks, sequences or tokens than ``limits``, but must have its
    block size and longest context. ``graph_sizes`` is empty if graphs of the attention are of
    no use with other lengths.

    Raises:
        InputError: if the kernels cannot serve the model.
    """

    def __init__(self, setup: EngineSetup, limits: SchedulerLimits) -> None:
        self.setup, self.limits = setup, limits
        kernels = load_kernels(setup)
        device = setup.device
        empty = torch.empty(0, dtype=torch.int32, device=device)
        captured = replayable(kernels.attention, PagedBatch((1,), (1,), empty, empty, empty))
        self.graph_sizes = tuple(sorted(setup.graph_sizes)) if captured else ()
        with torch.inference_mode():
            self.model = Transformer(
                setup.model, kernels, setup.dtype, device, limits.max_model_len, setup.seed
            )
            try:
                self.cache = self.model.new_cache(limits.num_blocks, limits.block_size)
            except torch.OutOfMemoryError:
                allowed = "fewer blocks: the device's memory does not hold them beside the weights"
                raise InputError("engine", "num_blocks", limits.num_blocks, allowed) from None
            seqs = max(limits.max_running, *self.graph_sizes, 1)
            tokens = max(limits.max_num_batched_tokens, seqs)
            self.work = Workspace(setup.model, tokens, seqs, setup.dtype, device)
        self.shape = self.model.attention_shape(limits.block_size)
        self.width = BlockTables(limits).width
        most = Layout(tokens, seqs, self.width).length
        self._staging = [Staging(most, seqs, device) for _ in range(_STAGING)]
        self._steps = 0
        self._eager = torch.zeros(most, dtype=torch.int32, device=device)
        self._graphs: dict[int, CapturedDecode] = {}
        self._attention = kernels.attention
        self._vocab_size = setup.model.vocab_size

    def graph_size(self, decodes: int) -> int:
        """Return the size that a batch of decodes is padded to; 0 if it runs as it is."""
        place = bisect_left(self.graph_sizes, decodes)
        return self.graph_sizes[place] if place < len(self.graph_sizes) else 0

    # -- a step

    def prepare(self, scheduled: Sequence[Scheduled], blocks: BlockTables) -> PreparedStep:
        """Fill in a step's lists and send them; what is left is to launch."""
        entries = order_of(scheduled)
        padded = self.graph_size(len(entries)) if all(entry.decode for entry in entries) else 0
        staging = self._staging[self._steps % _STAGING]
        self._steps += 1
        staging.wait_until_read()
        host = fill(staging.array, entries, blocks, self._vocab_size, padded or None)
        captured = self._graphs.get(padded)
        lists = staging.send(host.layout.length, captured.buffer if captured else self._eager)
        inputs = device_inputs(lists, host.layout)
        batch = _batch(inputs, host.query_tokens, host.context_tokens)
        if captured is not None:
            work = captured.graph.replay
            replan(self._attention, captured.planned, batch)
        else:
            work = partial(self.model.forward, inputs, self._plan(batch), self.cache, self.work)
        sampled = staging.sampled[: host.real_seqs]
        result = self.work.sampled[: host.real_seqs]
        copy_out = partial(sampled.copy_, result, non_blocking=True)
        return PreparedStep(work, copy_out, host, padded, sampled)

    def _plan(self, batch: PagedBatch) -> Any:
        refused = self._attention.refuses(self.shape, batch)
        if refused is not None:
            raise InputError("engine", "attention", self.setup.attention, f"another: {refused}")
        return self._attention.plan(self.shape, batch)

    def check_finite(self) -> None:
        """Look at the logits that the last step left behind.

        Raises:
            SimserveError: if one is no number, as after an overflow in some layer.
        """
        if not bool(torch.isfinite(self.work.logits).all()):
            raise SimserveError("engine: a logit is not finite; the timed kernels saw NaN or inf")

    # -- before the first step

    def capture(self) -> None:
        """Capture a graph for every size, the largest first; on a CPU there is nothing to do.

        All on one stream, with one pool: libraries keep a workspace per stream, and temporary
        memory of one graph serves the next.
        """
        if self.setup.device.type != "cuda":
            return
        pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        with torch.inference_mode():
            for size in reversed(self.graph_sizes):
                self._graphs[size] = self._captured(size, pool, stream)
        torch.cuda.synchronize()

    def _captured(self, size: int, pool: Any, stream: Any) -> CapturedDecode:
        """Capture a decode of ``size`` sequences, planned for the longest context.

        ``replan`` divides the work anew before every replay, or the division does not depend on
        the lengths: so a replay does what a table's row of these lengths was measured to do.
        """
        layout = Layout(size, size, self.width)
        buffer = torch.zeros(layout.length, dtype=torch.int32, device=self.setup.device)
        inputs = device_inputs(buffer, layout)
        inputs.last_rows.copy_(torch.arange(size))
        inputs.query_start.copy_(torch.arange(size + 1))
        longest = self.limits.max_model_len
        inputs.context_lens.fill_(longest)
        planned = self._plan(_batch(inputs, (1,) * size, (longest,) * size))
        forward = partial(self.model.forward, inputs, planned, self.cache, self.work)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_CAPTURE_WARM_UPS):
                forward()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            forward()
        torch.cuda.current_stream().wait_stream(stream)
        return CapturedDecode(graph, buffer, planned)


def _batch(
    inputs: DeviceInputs, query_tokens: tuple[int, ...], context_tokens: tuple[int, ...]
) -> PagedBatch:
    return PagedBatch(
        query_tokens=query_tokens,
        context_tokens=context_tokens,
        query_start=inputs.query_start,
        context_lens=inputs.context_lens,
        block_table=inputs.block_table,
    )
