"""Paged attention: the KV cache is rotated under one shuffled block table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch

from calibrate.kernels.interface import AttentionShape, PagedBatch
from calibrate.measure.cases.setting import DTYPES, Request, Setting, refuse
from calibrate.measure.timing import Case
from calibrate.plans import batches

_SEED = 1


def attention(setting: Setting, request: Request) -> Case:
    """Return a row of ``attn_decode.csv``, ``attn_prefill.csv`` or ``attn_mixed.csv``."""
    keys = request.keys
    shape = AttentionShape(
        heads=int(keys["hq"]),
        kv_heads=int(keys["hkv"]),
        head_size=int(keys["d"]),
        block_size=int(keys["block"]),
        dtype=DTYPES[str(keys["q_dtype"])],
        kv_dtype=DTYPES[str(keys["kv_dtype"])],
    )
    new, contexts = sequences(request)
    batch, blocks = paged_batch(new, contexts, shape.block_size, setting.device)
    kernel = setting.kernel("ATTENTION", str(keys["backend"]))
    refuse(kernel.refuses(shape, batch))
    copies = setting.copies(request)
    cache = (blocks, shape.block_size, shape.kv_heads, shape.head_size)
    key_caches = setting.arena.views("keys", shape.kv_dtype, cache, copies)
    value_caches = setting.arena.views("values", shape.kv_dtype, cache, copies)
    packed = (sum(new), shape.heads, shape.head_size)
    query = setting.arena.views("activations", shape.dtype, packed)[0]
    out = setting.arena.views("outputs", shape.dtype, packed)[0]
    planned = kernel.plan(shape, batch)
    return Case(
        lambda copy: kernel.run(planned, query, key_caches[copy], value_caches[copy], out), copies
    )


def latent(setting: Setting, request: Request) -> Case:
    """Return a row of ``mla.csv``."""
    from calibrate.kernels.latent import LatentShape

    keys, how = request.keys, request.how
    dtype = torch.bfloat16 if setting.device.type == "cuda" else torch.float32
    shape = LatentShape(
        heads=int(keys["heads"]),
        latent_size=int(how["kv_rank"]),
        rope_size=int(how["rope_size"]),
        block_size=int(how["block"]),
        dtype=dtype,
        kv_dtype=dtype,
        head_size=int(how["query_size"]),
    )
    seqs, q = int(keys["batch"]), int(keys["q"])
    contexts = [int(keys["ctx"])] * seqs
    batch, blocks = paged_batch([q] * seqs, contexts, shape.block_size, setting.device)
    kernel = setting.kernel("MLA", str(how["kernel"]))
    refuse(kernel.refuses(shape, batch))
    copies = setting.copies(request)
    rows = (blocks, shape.block_size, shape.row_size)
    caches = setting.arena.views("keys", dtype, rows, copies)
    query = setting.arena.views("activations", dtype, (seqs * q, shape.heads, shape.row_size))[0]
    out = setting.arena.views("outputs", dtype, (seqs * q, shape.heads, shape.latent_size))[0]
    planned = kernel.plan(shape, batch)
    return Case(lambda copy: kernel.run(planned, query, caches[copy], out), copies)


def sequences(request: Request) -> tuple[list[int], list[int]]:
    """Return the new and the context tokens of every sequence of a row."""
    keys, how = request.keys, request.how
    if request.table == "attn_decode":
        count, mean = int(keys["batch"]), int(how.get("mean_tokens", keys["ctx"]))
        contexts = batches.uneven_contexts(str(keys["shape"]), count, mean, int(how.get("seed", 0)))
        return [1] * count, contexts
    q, past = int(keys["q"]), int(keys["past"])
    if request.table == "attn_prefill":
        count = int(keys["n_req"])
        return [q] * count, [past + q] * count
    decodes = int(keys["n_dec"])
    return [1] * decodes + [q], [int(keys["ctx"])] * decodes + [past + q]


def paged_batch(
    new: Sequence[int], contexts: Sequence[int], block_size: int, device: torch.device
) -> tuple[PagedBatch, int]:
    """Return a batch whose blocks lie anywhere in the cache, and the blocks of that cache.

    Block 0 is a dummy; no two sequences share a block.
    """
    counts = [-(-context // block_size) for context in contexts]
    ids = np.random.default_rng(_SEED).permutation(sum(counts)) + 1
    table = np.zeros((len(contexts), max(counts)), dtype=np.int32)
    start = 0
    for row, count in enumerate(counts):
        table[row, :count] = ids[start : start + count]
        start += count
    starts = list(accumulate(new, initial=0))
    batch = PagedBatch(
        query_tokens=tuple(new),
        context_tokens=tuple(contexts),
        query_start=torch.tensor(starts, dtype=torch.int32, device=device),
        context_lens=torch.tensor(contexts, dtype=torch.int32, device=device),
        block_table=torch.from_numpy(table).to(device),
    )
    return batch, sum(counts) + 1
