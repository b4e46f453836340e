"""Whole steps of the reference engine's model, sampling included: what the sum must come to."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import torch

from calibrate.engine.inputs import DeviceInputs
from calibrate.engine.model import Kernels, KvCache, Transformer, Workspace
from calibrate.measure.cases.attention import paged_batch
from calibrate.measure.cases.setting import DTYPES, Request, Setting, refuse
from calibrate.measure.timing import Case
from calibrate.plans.choose import model_named

_HELD = "step"
_SEED = 3


@dataclass(slots=True)
class Engine:
    """A model on the device, with room for the largest step so far."""

    key: tuple[str, ...]
    model: Transformer
    cache: KvCache
    blocks: int
    work: Workspace
    rows: tuple[int, int]  # tokens and sequences that there is room for


def step(setting: Setting, request: Request) -> Case:
    """Return a row of ``step.csv``; steps with a chunk run eagerly, as they do in engines."""
    keys = request.keys
    decodes, q, past = (int(keys[one]) for one in ("n_dec", "q_tokens", "past"))
    new = [1] * decodes + [q] * (q > 0)
    contexts = [int(keys["max_ctx"])] * decodes + [past + q] * (q > 0)
    block_size = int(request.how["block"])
    batch, blocks = paged_batch(new, contexts, block_size, setting.device)
    engine = _engine(setting, request, blocks, (sum(new), len(new)))
    shape = engine.model.attention_shape(block_size)
    kernel = engine.model.kernels.attention
    refuse(kernel.refuses(shape, batch))
    planned = kernel.plan(shape, batch)
    lengths = torch.tensor(new, device=setting.device)
    ends = lengths.cumsum(0)
    starts = torch.repeat_interleave(ends - lengths, lengths)
    rows = torch.arange(sum(new), device=setting.device)
    pasts = torch.tensor(contexts, device=setting.device) - lengths
    positions = rows - starts + torch.repeat_interleave(pasts, lengths)
    seq = torch.repeat_interleave(torch.arange(len(new), device=setting.device), lengths)
    block = batch.block_table.long()[seq, positions // block_size]
    generator = torch.Generator(setting.device).manual_seed(_SEED)
    inputs = DeviceInputs(
        token_ids=torch.randint(
            engine.model.model.vocab_size, rows.shape, generator=generator, device=setting.device
        ),
        positions=positions,
        cache_slots=block * block_size + positions % block_size,
        last_rows=ends - 1,
        query_start=batch.query_start,
        context_lens=batch.context_lens,
        block_table=batch.block_table,
    )
    return Case(
        lambda _: engine.model.forward(inputs, planned, engine.cache, engine.work),
        graph=str(keys["regime"]) == "decode",
    )


def _engine(setting: Setting, request: Request, blocks: int, rows: tuple[int, int]) -> Engine:
    """Return the engine, made anew for another model and enlarged for a larger step."""
    how, block_size = request.how, int(request.how["block"])
    key = (str(request.keys["model"]), str(how["attention"]), str(how["dtype"]), str(block_size))
    dtype = DTYPES[str(how["dtype"])]
    held: Engine | None = setting.held.get(_HELD)
    if held is None or held.key != key:
        held = None
        setting.clear()
        gc.collect()
        model = model_named(key[0])
        kernels = Kernels(
            attention=setting.kernel("ATTENTION", key[1]),
            gemm=setting.kernel("GEMM", str(how["gemm"])),
            ops=setting.kernel("OPS", str(how["ops"])),
        )
        made = Transformer(
            model, kernels, dtype, setting.device, model.max_position_embeddings, _SEED
        )
        held = Engine(
            key, made, KvCache([], []), 0, Workspace(model, 1, 1, dtype, setting.device), (1, 1)
        )
        setting.held[_HELD] = held
    if blocks > held.blocks:
        held.cache = KvCache([], [])
        held.cache = held.model.new_cache(blocks, block_size)
        held.blocks = blocks
        for one in (*held.cache.keys, *held.cache.values):
            one.normal_()
    if rows[0] > held.rows[0] or rows[1] > held.rows[1]:
        most = max(rows[0], held.rows[0]), max(rows[1], held.rows[1])
        held.work = Workspace(held.model.model, *most, dtype, setting.device)
        held.rows = most
    return held
