"""Write the tables of docs/models.md, accelerators.md, prices.md and knob-ledger.md from data.

A table stands between ``<!-- table:NAME -->`` and ``<!-- /table:NAME -->``. With ``--check``
nothing is written, and the exit status is 1 if a page would change.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from scripts import knob_tables, price_tables
from simserve.inputs.hardware_profile import list_gpus, load_gpu
from simserve.inputs.model_catalogue import list_models, load_model
from simserve.inputs.model_spec import ModelSpec
from simserve.inputs.quantization import FORMATS
from simserve.inputs.sourced import Sourced

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = ("models.md", "accelerators.md", "prices.md", "knob-ledger.md")
GB = 10**9
BLOCK = re.compile(r"<!-- table:(?P<name>[\w-]+) -->\n.*?<!-- /table:(?P=name) -->", re.DOTALL)
# A row of each kind of weight format, of a model that all of them fit.
EXAMPLE = "llama-3.1-70b"


def models() -> str:
    """Return the table of the catalogue's models."""
    rows = []
    for name in list_models():
        model = load_model(name)
        long = model.max_position_embeddings
        rows.append(
            (
                f"`{name}`",
                _attention(model),
                f"{model.parameters / 1e9:,.2f}",
                f"{model.active_parameters / 1e9:,.2f}",
                model.weights.method if model.weights else "16 bits",
                f"{model.weight_bytes() / GB:,.2f}",
                f"{model.kv_bytes_per_token():,}",
                f"{model.kv_bytes(long) // long:,}",
                f"{long:,}",
                model.kind,
            )
        )
    head = (
        "model",
        "attention",
        "parameters, 10⁹",
        "active, 10⁹",
        "stored as",
        "weights, GB",
        "KV bytes per token",
        "… at full context",
        "context",
        "shape is",
    )
    return _table(head, rows)


def heads() -> str:
    """Return what sharing KV heads does to the KV bytes of Llama-3-70B."""
    model = load_model("llama-3-70b")
    rows = [
        (kind, str(kv_heads), f"{replace(model, kv_heads=kv_heads).kv_bytes_per_token():,}")
        for kind, kv_heads in (
            ("multi-head (no sharing)", model.attention_heads),
            ("grouped-query, as published", model.kv_heads),
            ("multi-query", 1),
        )
    ]
    return _table(("Llama-3-70B with", "KV heads", "KV bytes per token"), rows)


def formats() -> str:
    """Return what each format makes of the weights of one model."""
    plain = load_model(EXAMPLE)
    rows = [("16 bits", "2", f"{plain.weight_bytes() / GB:.2f}", "bf16")]
    for method, weights in FORMATS.items():
        if weights.experts_only:
            continue
        size = plain.hidden_size
        per_value = weights.matrix_bytes(size, size) / size**2
        stored = replace(plain, weights=weights).weight_bytes() / GB
        rows.append((f"`{method}`", f"{per_value:.4f}", f"{stored:.2f}", weights.gemm_dtype))
    head = ("quantization", "bytes per weight", f"weights of {EXAMPLE}, GB", "rate of the GEMMs")
    return _table(head, rows)


def accelerators() -> str:
    """Return the table of the accelerators; a figure that is assumed is in italics."""
    rows = []
    for name in list_gpus():
        gpu = load_gpu(name)
        rates = [_shown(gpu.sources, f"flops_per_s.{one}", 1e12) for one in _DTYPES]
        memory = _shown(gpu.sources, "memory_bytes", GB)
        bandwidth = _shown(gpu.sources, "hbm_bytes_per_s", GB)
        link = _shown(gpu.sources, "link_bytes_per_s", GB)
        rows.append((f"`{name}`", memory, bandwidth, *rates, link))
    return _table(("name", "memory, GB", "bandwidth, GB/s", *_DTYPES, "link, GB/s"), rows)


_DTYPES = ("bf16", "fp16", "fp8", "int8", "fp4", "unstated")
TABLES: Mapping[str, Callable[[], str]] = {
    "models": models,
    "heads": heads,
    "formats": formats,
    "accelerators": accelerators,
    "rentals": lambda: _table(*price_tables.rentals()),
    "apis": lambda: _table(*price_tables.apis()),
    "power": lambda: _table(*price_tables.power()),
    "knob-counts": knob_tables.counts,
    "knobs-modelled": knob_tables.modelled,
    "knobs-irrelevant": knob_tables.irrelevant,
    "knobs-refused": knob_tables.refused,
}


def _attention(model: ModelSpec) -> str:
    kinds = []
    if model.mla:
        kinds.append("latent")
        kinds += [f"sparse, {model.indexer.top_k:,}"] if model.indexer else []
    elif model.kv_heads == model.attention_heads:
        kinds.append("multi-head")
    else:
        kinds.append(f"{model.attention_heads} : {model.kv_heads} heads")
    kinds += [
        f"{one.layers} of {model.layers} layers {one.window:,}"
        for one in model.groups
        if one.window is not None
    ]
    if model.experts:
        kinds.append(f"{model.experts.per_token} of {model.experts.count} experts")
    return "; ".join(kinds)


def _shown(sources: Mapping[str, Sourced], key: str, unit: float) -> str:
    one = sources.get(key)
    if one is None:
        return "–"
    text = f"{one.value / unit:,.1f}".removesuffix(".0")
    return f"*{text}*" if one.kind == "assumed" else text


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def filled(text: str) -> str:
    """Return the page ``text`` with its tables as the data has them now."""
    return BLOCK.sub(
        lambda found: (
            f"<!-- table:{found['name']} -->\n{TABLES[found['name']]()}\n"
            f"<!-- /table:{found['name']} -->"
        ),
        text,
    )


def main() -> int:
    """Fill the pages, or say with the exit status whether they are filled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    check = parser.parse_args().check
    stale = 0
    for name in PAGES:
        page = DOCS / name
        text = page.read_text(encoding="utf-8")
        if filled(text) != text:
            stale += 1
            if check:
                print(f"{page} is out of date: run scripts/data_tables.py", file=sys.stderr)
            else:
                page.write_text(filled(text), encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
