"""Points of paged attention: decodes, chunks, both in one call, uneven batches, latent KV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from calibrate.plans import batches
from calibrate.plans.kernels_of import VALUE_BYTES
from calibrate.plans.operators import Target
from calibrate.plans.point import Cell, Point, Work
from calibrate.plans.shapes import Heads, attention_heads

# A pair of a query and a context token takes a multiply-add in QK^T and one in PV.
_FLOPS_PER_PAIR = 4.0
# Every kind of uneven batch is drawn this often, each time with a seed of its own.
_DRAWS = 3
# FlashMLA serves no other block size.
_LATENT_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Sequences:
    """New and context tokens of every sequence of a call, its context with the new ones."""

    new: Sequence[int]
    contexts: Sequence[int]


def decode_points(target: Target, backend: str, block: str = "decode") -> Iterator[Point]:
    """Yield even batches of decodes."""
    grids = target.grids
    for heads in attention_heads(target.model, target.tp):
        for batch, ctx in product(grids.batches, grids.contexts):
            if batch * ctx <= grids.most_context_tokens:
                keys = {"batch": batch, "ctx": ctx, "shape": batches.UNIFORM}
                keys |= {"sum_ctx": batch * ctx, "max_ctx": ctx, "cv": 0.0}
                call = Sequences([1] * batch, [ctx] * batch)
                yield _point(target, heads, backend, (block, "attn_decode"), keys, call)


def prefill_points(target: Target, backend: str) -> Iterator[Point]:
    """Yield one chunk on top of what was computed before."""
    for heads in attention_heads(target.model, target.tp):
        for new, past in product(target.grids.chunks, target.grids.pasts):
            keys = {"n_req": 1, "q": new, "past": past}
            call = Sequences([new], [past + new])
            yield _point(target, heads, backend, ("prefill", "attn_prefill"), keys, call)


def uneven_points(target: Target, backend: str) -> Iterator[Point]:
    """Yield decodes of uneven contexts, and several prompts in one call."""
    for heads in attention_heads(target.model, target.tp):
        yield from _uneven_decodes(target, heads, backend)
        yield from _several_prompts(target, heads, backend)


def mixed_points(target: Target, backend: str) -> Iterator[Point]:
    """Yield a chunk and even decodes in one call."""
    for heads in attention_heads(target.model, target.tp):
        yield from _mixed(target, heads, backend)


def _uneven_decodes(target: Target, heads: Heads, backend: str) -> Iterator[Point]:
    grids = target.grids
    sizes = product(grids.uneven_batches, grids.uneven_contexts)
    for (batch, mean), shape, draw in product(
        sizes, (batches.BIMODAL, batches.TRACE), range(_DRAWS)
    ):
        contexts = batches.uneven_contexts(shape, batch, mean, target.seed + draw)
        if sum(contexts) > grids.most_context_tokens:
            continue
        keys: dict[str, Cell] = {
            "batch": batch,
            "ctx": max(1, round(sum(contexts) / batch)),
            "shape": shape,
            "sum_ctx": sum(contexts),
            "max_ctx": max(contexts),
            "cv": round(batches.variation(contexts), 4),
        }
        call = Sequences([1] * batch, contexts)
        how = {"mean_tokens": mean, "seed": target.seed + draw}
        yield _point(target, heads, backend, ("uneven-mixed", "attn_decode"), keys, call, how)


def _several_prompts(target: Target, heads: Heads, backend: str) -> Iterator[Point]:
    grids = target.grids
    for prompts, new, past in product(grids.prompts, grids.prompt_tokens, grids.pasts[:2]):
        keys = {"n_req": prompts, "q": new, "past": past}
        call = Sequences([new] * prompts, [past + new] * prompts)
        yield _point(target, heads, backend, ("uneven-mixed", "attn_prefill"), keys, call)


def _mixed(target: Target, heads: Heads, backend: str) -> Iterator[Point]:
    for new, past, decodes, ctx in product(*target.grids.mixed):
        if decodes * ctx > target.grids.most_context_tokens:
            continue
        keys = {"q": new, "past": past, "n_dec": decodes, "ctx": ctx}
        keys |= {"sum_ctx": decodes * ctx, "max_ctx": ctx}
        call = Sequences([1] * decodes + [new], [ctx] * decodes + [past + new])
        mode = {**keys, "mode": "varlen"}
        yield _point(target, heads, backend, ("uneven-mixed", "attn_mixed"), mode, call)


def _point(
    target: Target,
    heads: Heads,
    backend: str,
    place: tuple[str, str],
    keys: dict[str, Any],
    call: Sequences,
    how: dict[str, Any] | None = None,
) -> Point:
    """Return the point of one call: heads, sizes, and the work that no kernel can avoid."""
    kv_bytes = 2.0 * heads.keys * heads.size * VALUE_BYTES[target.kv_dtype]
    pairs = sum(
        new * (context - new + 0.5 * (new + 1))
        for new, context in zip(call.new, call.contexts, strict=True)
    )
    cold = kv_bytes * sum(call.contexts)
    queries = 2.0 * sum(call.new) * heads.queries * heads.size * VALUE_BYTES[target.dtype]
    block, table = place
    return Point(
        block=block,
        table=table,
        keys={
            "backend": backend,
            "q_dtype": target.dtype,
            "kv_dtype": target.kv_dtype,
            "hq": heads.queries,
            "hkv": heads.keys,
            "d": heads.size,
            "dv": heads.size,
            "block": target.block_size,
            **keys,
        },
        work=Work(
            bytes_moved=cold + queries,
            flops=_FLOPS_PER_PAIR * heads.queries * heads.size * pairs,
            dtype=target.dtype,
            cold_bytes=cold,
        ),
        tier=target.tier,
        models=target.names,
        how=how or {},
    )


def mla_points(target: Target, backend: str, *, chunks: bool) -> Iterator[Point]:
    """Yield absorbed latent attention: decodes, and with ``chunks`` one sequence's chunks."""
    mla = target.model.mla
    if mla is None:
        return
    heads, grids = target.model.attention_heads // target.tp, target.grids
    decodes = [("decode", batch, 1, ctx) for batch, ctx in product(grids.batches, grids.contexts)]
    prefills = [("prefill", 1, q, q + past) for q, past in product(grids.chunks, grids.pasts)]
    for phase, batch, q, ctx in (*decodes, *(prefills if chunks else ())):
        if batch * ctx > grids.most_context_tokens:
            continue
        cold = batch * ctx * mla.cached_values * VALUE_BYTES[target.kv_dtype]
        pairs = batch * q * (ctx - 0.5 * (q - 1))
        yield Point(
            block="mla",
            table="mla",
            keys={"phase": phase, "heads": heads, "batch": batch, "q": q, "ctx": ctx},
            work=Work(
                bytes_moved=cold + batch * q * heads * (mla.cached_values + mla.kv_rank) * 2.0,
                flops=2.0 * heads * (mla.cached_values + mla.kv_rank) * pairs,
                dtype=target.dtype,
                cold_bytes=cold,
            ),
            tier=target.tier,
            models=target.names,
            how={
                "kernel": backend,
                "kv_rank": mla.kv_rank,
                "rope_size": mla.rope_size,
                "query_size": mla.query_size,
                "block": _LATENT_BLOCK,
            },
        )
