"""``torch.cuda`` of the pretended GPU: streams, events, graphs, memory, put in torch's place."""
# mypy: ignore-errors
# It stands in for torch by name, and patches it.

from __future__ import annotations

import ctypes
import inspect
import itertools
import time
import types
import weakref
from pathlib import Path
from typing import ClassVar

import torch

from tests.calibrate.gpu.pretend import (
    CONTEXT_BYTES,
    GPU,
    KERNELS,
    MODE,
    OF_GPU,
    TOTAL_BYTES,
    Pretend,
    State,
    aten,
    count,
    finish,
    forbidden,
    is_gpu,
    poison,
)

HUGE_BYTES = 1 << 31  # of zeros: they are counted, and not there


def synchronize(device=None):
    forbidden("cudaDeviceSynchronize")
    if State.lost:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    finish(len(State.copies))
    State.reached = State.recorded


class Stream:
    """What is launched is done at once, but for copies to and from pinned memory."""

    def __init__(self, *_, **__):
        self.device = GPU

    def synchronize(self):
        synchronize()

    def wait_stream(self, other):
        assert isinstance(other, Stream)


class Event:
    """The wall clock when it is recorded, and which copies came before."""

    def __init__(self, enable_timing=False, blocking=False, interprocess=False, external=False):
        self.timed, self.at_s, self.copies, self.number = enable_timing, None, 0, 0

    def record(self, stream=None):
        State.recorded += 1
        self.number, self.copies = State.recorded, State.copied + len(State.copies)
        self.at_s = time.perf_counter()

    def synchronize(self):
        forbidden("cudaEventSynchronize")
        finish(max(0, self.copies - State.copied))
        State.reached = max(State.reached, self.number)

    def query(self):
        return self.copies <= State.copied

    def elapsed_time(self, other):
        if not self.timed or not other.timed or self.at_s is None or other.at_s is None:
            raise ValueError("Both events must be recorded, with enable_timing=True.")
        if max(self.number, other.number) > State.reached:
            raise RuntimeError("CUDA error: device not ready")
        return max((other.at_s - self.at_s) * 1e3, 1e-3)


class CUDAGraph:
    """What was noted. A pool ends with its last graph."""

    begin = inspect.signature(torch.cuda.CUDAGraph.capture_begin)
    pools: ClassVar = {}  # the graphs that are left of each

    def capture_begin(self, *given, **named):
        asked = CUDAGraph.begin.bind(self, *given, **named).arguments
        assert asked.get("capture_error_mode", "global") in ("global", "thread_local", "relaxed")
        if State.stream is DEFAULT:
            raise RuntimeError("CUDA graphs must be captured on a non-default stream.")
        pool = asked.get("pool")
        if pool is not None:
            if not CUDAGraph.pools.get(pool, [self]):
                raise RuntimeError("use_count > 0 INTERNAL ASSERT FAILED: the pool has ended")
            CUDAGraph.pools.setdefault(pool, weakref.WeakSet()).add(self)
        self.nodes, self.kept, self.broken, self.whole = [], [], False, False
        State.graph = self

    def capture_end(self):
        State.graph, self.whole = None, not self.broken
        if self.broken:
            raise RuntimeError("CUDA error: failed due to a previous error during capture")

    def replay(self):
        forbidden("a graph")
        if not self.whole:
            raise RuntimeError("Called CUDAGraph::replay without a preceding successful capture.")
        for one in self.kept:
            poison(one)
        with torch.inference_mode():
            for node in self.nodes:
                node()


DEFAULT = State.stream = Stream()


class StreamContext:
    """``torch.cuda.stream``."""

    def __init__(self, stream):
        self.stream = stream

    def __enter__(self):
        self.before, State.stream = State.stream, self.stream or State.stream

    def __exit__(self, *_):
        State.stream = self.before


class Generator(torch.Generator):
    """One of the CPU, whose seed says which device it is for."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls, "cpu")
        made.mark = OF_GPU if is_gpu(device) else 0
        return made

    def __init__(self, device="cpu"):
        pass

    def manual_seed(self, seed):
        return super().manual_seed(seed | self.mark)


PROPERTIES = types.SimpleNamespace(
    name="NVIDIA H200", major=9, minor=0, multi_processor_count=132, total_memory=TOTAL_BYTES,
    L2_cache_size=100_000, uuid="b2f7c1de-0000-4000-8000-00000000beef",
)  # fmt: skip


def zeros(size, *, dtype=None, **more):
    """Return zeros; so many that no CPU has the room are one."""
    dtype, values = dtype or torch.get_default_dtype(), torch.Size(size).numel()
    if values * dtype.itemsize < HUGE_BYTES:
        return aten.zeros.default(size, dtype=dtype, **more)
    one = torch.zeros(1, dtype=dtype)
    one.untyped_storage().counted = count(one.untyped_storage(), values * dtype.itemsize)
    return one.expand(size)


def device_guards() -> ctypes.Array[ctypes.c_void_p]:
    """Return torch's table of device guards; OSError or ValueError where a build has none."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    return (ctypes.c_void_p * 16).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")


def install():
    """Put all of it in torch's place, for the rest of the process."""
    guards = device_guards()
    torch._C._set_only_lift_cpu_tensors(True)
    torch._C._ensureCUDADeviceGuardSet()
    # A build without CUDA has no guard of its devices; that of the meta device does nothing, too.
    guards[1] = guards[1] or guards[14]  # c10::DeviceType: CUDA, Meta
    real_to, real_tensor, pools = torch.Tensor.to, torch.tensor, itertools.count(1)

    def to(self, *args, **kwargs):
        indexed = (GPU if one in ("cuda", torch.device("cuda")) else one for one in args)
        more = {"device": GPU} if is_gpu(kwargs.get("device")) else {}
        return real_to(self, *indexed, **{**kwargs, **more})

    def tensor(values, *, device=None, **kwargs):
        made = real_tensor(values, **kwargs)
        return made.to(GPU) if is_gpu(device) else made

    torch.Tensor.to, torch.tensor, torch.Generator = to, tensor, Generator
    Pretend.tolist = lambda self: self.cpu().tolist()
    KERNELS[aten.zeros.default] = zeros
    free = lambda: TOTAL_BYTES - CONTEXT_BYTES - State.allocated  # noqa: E731
    for name, one in {
        "_lazy_init": lambda: None, "is_available": lambda: True, "is_initialized": lambda: True,
        "device_count": lambda: 1, "current_device": lambda: 0,
        "get_device_properties": lambda device=None: PROPERTIES,
        "get_device_capability": lambda device=None: (PROPERTIES.major, PROPERTIES.minor),
        "Stream": Stream, "Event": Event, "CUDAGraph": CUDAGraph, "stream": StreamContext,
        "current_stream": lambda device=None: State.stream,
        "default_stream": lambda device=None: DEFAULT,
        "graph_pool_handle": lambda: (0, next(pools)),
        "synchronize": synchronize, "empty_cache": lambda: None,
        "memory_allocated": lambda device=None: State.allocated,
        "memory_reserved": lambda device=None: State.allocated,
        "max_memory_allocated": lambda device=None: State.peak,
        "reset_peak_memory_stats": lambda device=None: setattr(State, "peak", State.allocated),
        "mem_get_info": lambda device=None: (free(), TOTAL_BYTES),
    }.items():  # fmt: skip
        setattr(torch.cuda, name, one)
    torch._C._host_emptyCache = lambda: None
    MODE.__enter__()
