"""Matrix products and groups of experts: weights are rotated, activations stay."""

from __future__ import annotations

from typing import Any

import torch

from calibrate.measure.cases.setting import DTYPES, Request, Setting, refuse
from calibrate.measure.timing import Case
from calibrate.plans import batches


def gemm(setting: Setting, request: Request) -> Case:
    """Return a row of ``gemm.csv``."""
    keys = request.keys
    m, n, k = (int(keys[size]) for size in ("m", "n", "k"))
    return product(setting, str(keys["backend"]), (m, n, k), setting.copies(request))


def product(
    setting: Setting, name: str, shape: tuple[int, int, int], copies: int, heat_s: float = 0.0
) -> Case:
    """Return the calls of one matrix product, each with the next weight."""
    m, n, k = shape
    kernel = setting.kernel("GEMM", name)
    refuse(kernel.refuses(m, n, k))
    dtype = torch.float32 if kernel.dtype == "fp32" else torch.bfloat16
    weights = _packed(setting, kernel, dtype, (n, k), copies)
    x = kernel.pack_input(setting.arena.views("activations", dtype, (m, k))[0])
    out = setting.arena.views("outputs", dtype, (m, n))[0]
    return Case(lambda copy: kernel.run(x, weights[copy], out), copies, heat_s=heat_s)


def _packed(
    setting: Setting, kernel: Any, dtype: torch.dtype, shape: tuple[int, int], copies: int
) -> list[Any]:
    """Return weights in the kernel's format: views of the arena, if it has none of its own."""
    key = (kernel.name, kernel.dtype, *shape)
    kept = setting.packed.get(key)
    if kept is not None and len(kept[0]) >= copies:
        return kept[0]
    weights = setting.arena.views("weights", dtype, shape, copies)
    first = kernel.pack(weights[0])
    if first is weights[0]:
        return weights
    made = [first, *map(kernel.pack, weights[1:])]
    setting.keep_packed(key, made, copies * shape[0] * shape[1] * dtype.itemsize)
    return made


def moe(setting: Setting, request: Request) -> Case:
    """Return a row of ``moe.csv``: the tokens' routing is drawn again from its seed."""
    from calibrate.kernels.moe import MoeShape

    keys, how = request.keys, request.how
    experts, top_k, tokens = (int(keys[one]) for one in ("experts", "topk", "tokens"))
    shape = MoeShape(experts, top_k, int(keys["hidden"]), int(keys["inter"]) // int(keys["tp"]))
    kernel = setting.kernel("MOE", str(how["kernel"]))
    refuse(kernel.refuses(shape, tokens))
    dtype = DTYPES[str(keys["dtype"])]
    copies = setting.copies(request)
    up = setting.arena.views("weights", dtype, (experts, 2 * shape.inter, shape.hidden), copies)
    down = setting.arena.views("downs", dtype, (experts, shape.hidden, shape.inter), copies)
    weights = [kernel.pack(*pair) for pair in zip(up, down, strict=True)]
    chosen = batches.routed(str(keys["routing"]), tokens, experts, top_k, int(how["seed"]))
    ids = torch.from_numpy(chosen.copy()).to(setting.device)
    shares = torch.full((tokens, top_k), 1.0 / top_k, device=setting.device)
    x = setting.arena.views("activations", dtype, (tokens, shape.hidden))[0]
    out = setting.arena.views("outputs", dtype, (tokens, shape.hidden))[0]
    return Case(lambda copy: kernel.run(weights[copy], x, ids, shares, out), copies)
