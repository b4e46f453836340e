"""A GPU that is none: tensors on ``cuda`` whose numbers lie on the CPU, and strict captures.

Every operation on such a tensor passes ``dispatch``. In a capture nothing is computed: operations
are noted, and a replay carries them out on the memory that they were captured with; what they
allocated is poisoned before. What CUDA forbids raises: in a capture to wait, to ask the host, or
to copy from pageable memory; tensors of two devices in one operation; a generator of the other
device; a host buffer that is written to before its copy is over. What a copy brings to pinned
memory is there only after it was waited for.
"""
# mypy: ignore-errors
# It stands in for torch by name, and patches it.

from __future__ import annotations

import weakref
from typing import ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
TOTAL_BYTES = 139 << 30
CONTEXT_BYTES = 600 << 20
OF_GPU = 1 << 50  # in the seeds of its generators
aten = torch.ops.aten
# What asks the host for a number, or for a size that depends on numbers.
ASKING = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default,
    aten._unique2.default, aten.equal.default, aten.repeat_interleave.Tensor,
}  # fmt: skip
KERNELS = {}  # operations that a CPU has not: functions of the tensors on the CPU


class State:
    """What the device is doing."""

    graph = None  # the one that is being captured
    stream = None
    copies: ClassVar = []  # under way
    copied = recorded = reached = 0  # copies that are over; events, and the last waited for
    allocated = peak = 0
    lost = False  # an illegal access ended the context
    pinned: ClassVar = weakref.WeakKeyDictionary()


def forbidden(what):
    """Raise where CUDA does, in a capture."""
    if State.graph is not None:
        State.graph.broken = True
        raise RuntimeError(f"CUDA error: {what}: not permitted when stream is capturing")


def launch(work):
    """Do it now, or whenever the graph that is being captured is replayed."""
    work() if State.graph is None else State.graph.nodes.append(work)


def poison(tensor):
    """Leave nothing in it that anybody could want: NaN in floats, -1 in integers."""
    if tensor.numel():
        tensor.untyped_storage().fill_(0xFF)


def on_cpu(value):
    """Return the tensor of the CPU behind one of the device."""
    return value.inner if isinstance(value, Pretend) else value


def is_gpu(device):
    return device is not None and torch.device(device).type == "cuda"


class Pretend(torch.Tensor):
    """A tensor on the device; ``inner`` has its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, layout=inner.layout, device=GPU,
        )  # fmt: skip

    def __init__(self, inner):
        self.inner = inner
        storage = inner.untyped_storage()
        if not hasattr(storage, "counted"):
            storage.counted = count(storage, storage.nbytes())

    def __repr__(self, **_):
        return f"Pretend({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func, kinds, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


def count(storage, size):
    """Take memory until a storage is gone."""
    if State.allocated + size > TOTAL_BYTES - CONTEXT_BYTES:
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")
    State.allocated += size
    State.peak = max(State.peak, State.allocated)

    def freed():
        State.allocated -= size

    weakref.finalize(storage, freed)
    return True


class Mode(TorchDispatchMode):
    """Sees what makes tensors, too."""


# Not in the class: torch would import its compiler then.
Mode.__torch_dispatch__ = lambda _, func, kinds, args=(), kwargs=None: dispatch(
    func, args, kwargs or {}
)
MODE = Mode()


def dispatch(func, args, kwargs):
    """Carry out one operation, or note it."""
    leaves = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
    theirs = [one for one in leaves if not isinstance(one, Pretend)]
    if len(theirs) == len(leaves) and not is_gpu(kwargs.get("device")):
        return on_host(func, args, kwargs)
    if func._can_decompose() and func not in KERNELS:
        with MODE:
            return func.decompose(*args, **kwargs)
    if func in ASKING:
        forbidden(f"{func} asks the host")
    if func is aten.copy_.default:
        return copy(*args, **kwargs)
    if func is aten._to_copy.default and (theirs or not is_gpu(kwargs.get("device", GPU))):
        source, dtype = args[0], kwargs.get("dtype") or args[0].dtype
        into = torch.empty_like(on_cpu(source), dtype=dtype)
        target = Pretend(into) if is_gpu(kwargs.get("device", source.device)) else into
        return copy(target, source, bool(kwargs.get("non_blocking")))
    check(func, args, kwargs, theirs)
    return computed(func, args, {**kwargs, "device": CPU} if "device" in kwargs else kwargs)


def on_host(func, args, kwargs):
    """Do what has nothing to do with the device, but for pinned memory."""
    pinned = kwargs.pop("pin_memory", False)
    if func is aten.is_pinned.default:
        return args[0].untyped_storage() in State.pinned
    pins = func in (aten.pin_memory.default, aten._pin_memory.default)
    found = args[0].clone() if pins else func(*args, **kwargs)
    if pinned or pins:
        forbidden("to pin memory")
        State.pinned[found.untyped_storage()] = True
    return found


def check(func, args, kwargs, theirs):
    """Raise for what lies on the wrong device, and for masks and generators in a capture."""
    index = func in (aten.index.Tensor, aten.index_put_.default)
    if index and any(one is not None and one.dtype == torch.bool for one in args[1]):
        forbidden("a mask")
    if any(one.dim() for one in theirs):
        if not index:
            raise RuntimeError(f"Expected all tensors to be on the same device, in {func}")
        forbidden("an index of the host")
    generator = kwargs.get("generator")
    if generator is not None:
        forbidden("a generator of one's own")
        if not generator.initial_seed() & OF_GPU:
            raise RuntimeError(f"Expected a 'cuda' device type for generator, in {func}")


def computed(func, args, kwargs):
    """Compute, or note; wrap what is new."""
    schema, graph, kernel = func._schema, State.graph, KERNELS.get(func, func)
    inner, named = tree_map(on_cpu, args), tree_map(on_cpu, kwargs)
    named.pop("pin_memory", None)
    if graph is not None and schema.is_mutable:
        graph.nodes.append(lambda: kernel(*inner, **named))
        given = dict(zip((one.name for one in schema.arguments), args, strict=False)) | kwargs
        aliases = {one.name: one.alias_info for one in schema.arguments if one.alias_info}
        written = [name for name, alias in aliases.items() if alias.is_write]
        return given[written[0]] if schema.returns else None
    found = kernel(*inner, **named)
    is_view = not schema.is_mutable and any(one.alias_info for one in schema.returns)
    if graph is not None and not is_view:
        held = [one for one in tree_leaves(found) if isinstance(one, torch.Tensor)]

        def again():
            for place, new in zip(held, tree_leaves(kernel(*inner, **named)), strict=True):
                place.copy_(new)

        graph.nodes.append(again)
        graph.kept += held
        for one in held:
            poison(one)
    own = {id(one.inner): one for one in tree_leaves((args, kwargs)) if isinstance(one, Pretend)}

    def wrapped(one):
        new = isinstance(one, torch.Tensor) and id(one) not in own
        return Pretend(one) if new else own.get(id(one), one)

    mode = args[0].is_inference() if is_view else torch.is_inference_mode_enabled()
    with torch.inference_mode(mode):  # a view is what its base is
        return tree_map(wrapped, found)


class Copy:
    """A copy between pinned memory and the device that may still be under way."""

    def __init__(self, host, arrives=None):
        self.host, self.arrives = host, arrives
        if arrives is not None:
            host.view(torch.uint8).fill_(0xA5)  # nobody may read it yet
        self.before = host.clone()

    def finish(self):
        State.copied += 1
        if not torch.equal(self.host.view(torch.uint8), self.before.view(torch.uint8)):
            raise RuntimeError("pretend: a host buffer was written to during its copy")
        if self.arrives is not None:
            self.host.copy_(self.arrives)


def copy(target, source, non_blocking=False):
    """Copy in, out, or on the device."""
    inner, given = on_cpu(target), on_cpu(source)
    here, there = isinstance(target, Pretend), isinstance(source, Pretend)
    host = given if here else inner
    behind = non_blocking and host.untyped_storage() in State.pinned
    if not (here and there) and not behind:
        forbidden("a copy that waits")
    if here:
        if behind and not there:
            State.copies.append(Copy(given))
        launch(lambda: inner.copy_(given))
    elif behind:
        State.copies.append(Copy(inner, torch.empty_like(inner).copy_(given)))
    else:
        finish(len(State.copies))
        inner.copy_(given)
    return target


def finish(many):
    """Let the first copies be over."""
    for _ in range(many):
        State.copies.pop(0).finish()
