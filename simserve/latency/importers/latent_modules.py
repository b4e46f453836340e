"""Latent attention out of the package's tables of whole attention layers (``mla_*_module``).

vLLM's latent attention was timed with its projections, as one module. What a profile prices
apart is taken off: the layer's attention matrices, from the profile's own GEMM rows of as many
tokens, and the kernel that rotates and stores. The rest stands in ``mla`` as the form
``layer``, so that a step's sum has the measured module in it again. Modules and matrices are
those in 16 bits, for models of any weights: GEMMs of blocks of 8 bits were timed at the pace at
which they are launched (58 us and more on H200), those in 16 bits inside CUDA graphs. Where the
matrices alone would take longer than the module, the row is left out.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from simserve.inputs.hardware_profile import GpuSpec
from simserve.inputs.model_catalogue import load_model
from simserve.inputs.model_matrices import layer_matrices
from simserve.inputs.model_spec import ModelSpec
from simserve.latency.importers.kernel_package import US_PER_MS, KernelTable
from simserve.latency.importers.kernel_rows import DTYPES
from simserve.latency.importers.table_folder import Row, write_folder
from simserve.latency.tables.gemms import Gemms
from simserve.latency.tables.profile import read_profile
from simserve.latency.tables.selection import Setting
from simserve.latency.tables.small_kernels import elementwise

DECODES, CHUNKS = "mla_generation_module", "mla_context_module"
_MEASURED_MODEL = "deepseek-v3"
_SIXTEEN_BITS = "bfloat16"
_US_PER_S = 1e6

Seconds = Callable[[int], float]


def why_not(model: ModelSpec) -> str | None:
    """Return why the modules say nothing of a model, None if they do."""
    measured = load_model(_MEASURED_MODEL)
    if model.indexer is not None:
        return "sparse attention: its modules are not read"
    if (model.mla, model.hidden_size) != (measured.mla, measured.hidden_size):
        return f"modules are of {measured.name}, whose attention has other sizes"
    return None


def outside_attention(
    gemm_rows: Iterable[Row], model: ModelSpec, gpu: GpuSpec, tp: int, head: Mapping[str, Any]
) -> Seconds:
    """Return the seconds, by tokens, of what a profile with these rows prices apart in a layer.

    With weights in 16 bits, whatever those of ``model`` are.
    """
    model = dataclasses.replace(model, weights=None)
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), head, {"gemm": gemm_rows})
        setting = Setting(read_profile(Path(folder)), model, gpu, tp)
        gemms = Gemms(setting)
        operators = [
            gemms.operator(one) for one in layer_matrices(model, tp) if one.part == "attention"
        ]
    operators += [one for name, _, one in elementwise(setting) if name == "rope_store"]
    return lambda tokens: sum(one(tokens).seconds for one in operators) / model.layers


def module_rows(
    tables: Mapping[str, KernelTable | None], model: ModelSpec, tp: int, apart_s: Seconds
) -> Iterator[Row]:
    """Yield rows of ``mla`` for the heads on one GPU; of several kernels the quickest is taken."""
    for name, phase in ((DECODES, "decode"), (CHUNKS, "prefill")):
        table = tables.get(name)
        if table is None:
            continue
        heads = model.attention_heads // tp
        rows = table.where(
            gemm_type=_SIXTEEN_BITS,
            model=load_model(_MEASURED_MODEL).hf_id,
            num_heads=heads,
        )
        quickest: dict[tuple[str, int, int, int], float] = {}
        names = ("kv_cache_dtype", "batch_size", "isl", "step", "latency")
        columns = [rows.columns[one].tolist() for one in names]
        for kv_dtype, batch, new, past, latency_ms in zip(*columns, strict=True):
            key = DTYPES[kv_dtype], batch, new, past
            quickest[key] = min(latency_ms, quickest.get(key, latency_ms))
        for (kv_dtype, batch, new, past), latency_ms in quickest.items():
            left_us = latency_ms * US_PER_MS - apart_s(batch * new) * _US_PER_S
            if left_us > 0:
                yield {
                    "form": "layer",
                    "kv_dtype": kv_dtype,
                    "phase": phase,
                    "heads": heads,
                    "batch": batch,
                    "q": new,
                    "ctx": past + new,
                    "us_p50": left_us,
                }
