"""The small kernels of a step. Their tensors stay where they are: the kernel before wrote them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from calibrate.kernels.pointwise import PointwiseOps, rope_table
from calibrate.measure.cases.setting import DTYPES, Request, Setting, refuse
from calibrate.measure.timing import Case

# Positions of the rotation table, rows of the embedding table: more than a cache holds is not
# needed, as a step reads only its own tokens' rows.
_POSITIONS, _ROWS = 4096, 32_768
_BASE, _EPS = 500_000.0, 1e-5
_SEED = 2

Builder = Callable[[Setting, Request, PointwiseOps, torch.dtype], Callable[[int], object]]


def pointwise(setting: Setting, request: Request) -> Case:
    """Return a row of ``pointwise.csv``."""
    ops: PointwiseOps = setting.kernel("OPS", str(request.how["kernel"]))
    op = str(request.keys["op"])
    if op not in _BUILDERS:
        refuse(f"no small kernel {op}")
    return Case(_BUILDERS[op](setting, request, ops, DTYPES[str(request.keys["dtype"])]))


def _sizes(request: Request) -> tuple[int, int]:
    return int(request.keys["tokens"]), int(request.keys["width"])


def _norm(
    setting: Setting, request: Request, ops: PointwiseOps, dtype: torch.dtype
) -> Callable[[int], object]:
    """Add to the residual, then norm: what stands between two matrices."""
    shape = _sizes(request)
    x = setting.arena.views("activations", dtype, shape)[0]
    out = setting.arena.views("outputs", dtype, shape)[0]
    residual = torch.zeros(shape, dtype=dtype, device=setting.device)
    weight = torch.ones(shape[1], dtype=dtype, device=setting.device)
    return lambda _: ops.add_rms_norm(x, residual, weight, _EPS, out)


def _act(
    setting: Setting, request: Request, ops: PointwiseOps, dtype: torch.dtype
) -> Callable[[int], object]:
    tokens, width = _sizes(request)
    gate_up = setting.arena.views("activations", dtype, (tokens, 2 * width))[0]
    out = setting.arena.views("outputs", dtype, (tokens, width))[0]
    return lambda _: ops.silu_mul(gate_up, out)


def _embed(
    setting: Setting, request: Request, ops: PointwiseOps, dtype: torch.dtype
) -> Callable[[int], object]:
    tokens, width = _sizes(request)
    table = setting.arena.views("weights", dtype, (_ROWS, width))[0]
    out = setting.arena.views("outputs", dtype, (tokens, width))[0]
    ids = _integers(setting, tokens, _ROWS)
    return lambda _: ops.embed(ids, table, out)


def _sample(
    setting: Setting, request: Request, ops: PointwiseOps, dtype: torch.dtype
) -> Callable[[int], object]:
    """Greedy: the largest logit."""
    tokens, width = _sizes(request)
    logits = setting.arena.views("activations", dtype, (tokens, width))[0]
    out = torch.empty(tokens, dtype=torch.int64, device=setting.device)
    return lambda _: ops.greedy(logits, out)


def _heads(
    setting: Setting, request: Request, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return query, key and value as they come out of one product."""
    tokens, width = _sizes(request)
    heads, keys, size = (int(request.how[one]) for one in ("heads", "kv_heads", "head_size"))
    packed = setting.arena.views("activations", dtype, (tokens, width))[0]
    query, key, value = torch.split(packed.view(tokens, -1, size), [heads, keys, keys], dim=1)
    return query, key, value


def _rope_store(
    setting: Setting, request: Request, ops: PointwiseOps, dtype: torch.dtype
) -> Callable[[int], object]:
    query, key, value = _heads(setting, request, dtype)
    tokens, _, size = query.shape
    block = int(request.how["block"])
    cache = (-(-tokens // block) + 1, block, key.shape[1], size)
    keys = setting.arena.views("keys", dtype, cache)[0]
    values = setting.arena.views("values", dtype, cache)[0]
    table = rope_table(_POSITIONS, size, _BASE, setting.device)
    positions = _integers(setting, tokens, _POSITIONS)
    slots = torch.randperm(tokens, generator=_generator(setting), device=setting.device) + block
    return lambda _: ops.rope_store(query, key, value, table, positions, slots, keys, values)


def _qk_norm(
    setting: Setting, request: Request, ops: PointwiseOps, dtype: torch.dtype
) -> Callable[[int], object]:
    query, key, _ = _heads(setting, request, dtype)
    weights = [torch.ones(query.shape[2], dtype=dtype, device=setting.device) for _ in range(2)]
    return lambda _: ops.qk_norm(query, key, weights[0], weights[1], _EPS)


def _integers(setting: Setting, count: int, below: int) -> torch.Tensor:
    return torch.randint(
        below, (count,), generator=_generator(setting), device=setting.device, dtype=torch.int64
    )


def _generator(setting: Setting) -> torch.Generator:
    return torch.Generator(setting.device).manual_seed(_SEED)


_BUILDERS: dict[str, Builder] = {
    "norm": _norm,
    "act": _act,
    "embed": _embed,
    "sample": _sample,
    "rope_store": _rope_store,
    "qk_norm": _qk_norm,
}
