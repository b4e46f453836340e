"""Whether a deployment fits, as text for a terminal and as data: one waterfall, one verdict."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from simserve.inputs.engine_defaults import load_engine
from simserve.planning.contiguous import LITERATURE_HIGH, LITERATURE_LOW, Contiguous
from simserve.planning.fit_changes import Change
from simserve.planning.memory_fit import MemoryFit, max_concurrency, vllm_lines
from simserve.report.columns import filled, labelled

GIB = 2**30
_BAR = 24
_FLAGS = {
    "tp": "tensor-parallel-size",
    "max_model_len": "max-model-len",
    "max_num_seqs": "max-num-seqs",
    "quantization": "quantization",
    "kv_cache_dtype": "kv-cache-dtype",
    "gpu_memory_utilization": "gpu-memory-utilization",
}
_SERVERS = {
    "contiguous": "one piece of max_model_len",
    "buddy": "one power of two (buddy)",
    "paged": "paged, blocks on demand",
}


def fit_data(fit: MemoryFit, contiguous: Contiguous | None = None) -> dict[str, Any]:
    """Return the answer as JSON-able data; memory in bytes per GPU."""
    data: dict[str, Any] = {
        "fits": fit.fits,
        "reason": fit.reason,
        "remark": load_engine().remark_on(fit.gpu.name),
        "model": fit.model.name,
        "gpu": fit.gpu.name,
        "tp": fit.tp,
        "replicas": fit.replicas,
        "max_model_len": fit.max_model_len,
        "memory_bytes": fit.gpu.memory_bytes,
        "over_bytes": fit.over_bytes,
        "terms": [asdict(term) for term in fit.terms],
        "assumed": _assumed(fit),
        "usd_per_hour": fit.usd_per_hour,
        "changes": [_change_data(one) for one in fit.changes],
    }
    if fit.deployment is not None:
        kv = fit.deployment.kv
        concurrency = max_concurrency(kv, fit.max_model_len)
        data |= {
            "num_gpu_blocks": kv.num_blocks,
            "kv_cache_tokens": int(concurrency * fit.max_model_len),
            "max_concurrency": concurrency,
            "log_lines": list(vllm_lines(kv, fit.max_model_len)),
            "approximation": kv.approximation or None,
        }
    if contiguous is not None:
        data["contiguous"] = asdict(contiguous) | {
            "more_requests": contiguous.more_requests,
            "literature": [asdict(LITERATURE_LOW), asdict(LITERATURE_HIGH)],
        }
    return data


def _change_data(change: Change) -> dict[str, Any]:
    return {
        "settings": change.settings,
        "caveats": list(change.caveats),
        "usd_per_hour": change.usd_per_hour,
        "extra_usd_per_hour": change.extra_usd_per_hour,
        "log_lines": list(vllm_lines(change.capacity, change.max_model_len)),
    }


def fit_report(fit: MemoryFit, contiguous: Contiguous | None = None) -> str:
    """Return the answer as text; no line is longer than 80 columns."""
    lines = labelled(_head(fit))
    lines += ["", *_waterfall(fit)]
    if fit.deployment is not None:
        lines += ["", *vllm_lines(fit.deployment.kv, fit.max_model_len)]
    if fit.changes:
        lines += ["", *_changes(fit)]
    elif not fit.fits:
        lines += ["", *filled("No change of up to three settings makes it fit: split the model "
                              "over more machines, or take a smaller one.")]  # fmt: skip
    if contiguous is not None:
        lines += ["", *_contiguous(contiguous)]
    return "\n".join([*lines, "", *_notes(fit)])


def _head(fit: MemoryFit) -> list[tuple[str, str]]:
    gpus = fit.tp * fit.replicas
    replicas = f", {fit.replicas} replicas" if fit.replicas > 1 else ""
    length = f"{fit.max_model_len:,} tokens of context"
    remark = load_engine().remark_on(fit.gpu.name)
    return [
        ("Model", f"{fit.model.name} on {gpus} × {fit.gpu.name} (tp {fit.tp}{replicas}), {length}"),
        ("Fits", "yes" if fit.fits else f"no: {fit.reason}"),
        *([("Note", f"{remark}.")] if remark else []),
    ]


def _waterfall(fit: MemoryFit) -> list[str]:
    """Return one line a term, with a bar where in the memory it stands."""
    whole = max(fit.gpu.memory_bytes, sum(term.bytes for term in fit.terms))
    lines = ["Memory of each GPU         GiB"]
    before = 0
    for term in fit.terms:
        begin, end = (round(at / whole * _BAR) for at in (before, before + term.bytes))
        bar = " " * min(begin, _BAR - 1) + ("█" * (end - begin) or "▏" * bool(term.bytes))
        name = term.name.replace("_", " ")
        lines.append(f"  {name:<19}{term.bytes / GIB:>9.2f}  {bar:<{_BAR}}  {term.kind}")
        before += term.bytes
    lines.append(f"  {'there is':<19}{fit.gpu.memory_bytes / GIB:>9.2f}")
    if fit.over_bytes > 0:
        lines.append(f"  {'too much':<19}{fit.over_bytes / GIB:>9.2f}")
    return lines


def _changes(fit: MemoryFit) -> list[str]:
    lines = ["What makes it fit, cheapest first (each one resolved as a deployment)"]
    for number, change in enumerate(fit.changes, 1):
        words = ", ".join(_flag(key, value) for key, value in change.settings.items())
        lines += filled(f"{number}. {words}: {_dollars(change)}", indent="  ", hang="     ")
        lines += filled("; ".join(change.caveats), indent="     ", hang="     ")
        lines += ["     " + line for line in vllm_lines(change.capacity, change.max_model_len)]
    return lines


def _flag(key: str, value: object) -> str:
    return f"--{_FLAGS[key]} {value}" if key in _FLAGS else f"{value} as the GPU"


def _dollars(change: Change) -> str:
    if change.extra_usd_per_hour is None:
        return "no price in the list"
    if abs(change.extra_usd_per_hour) < 0.005:  # half a cent
        return "no more dollars"
    sign = "+" if change.extra_usd_per_hour > 0 else "−"
    return f"{sign}${abs(change.extra_usd_per_hour):,.2f}/h (${change.usd_per_hour:,.2f}/h in all)"


def _contiguous(found: Contiguous) -> list[str]:
    """Return the table of the three servers and what it says."""
    lines = filled(
        f"Without paging: {found.requests:,} requests of this workload's lengths through the "
        f"same pool of {found.pool_tokens:,} tokens, at a queue that is never empty; shares of "
        "the pool, in %, while requests wait"
    )
    head = f"  {'':<26}{'used':>7}{'reserved':>10}{'internal':>10}{'external':>10}{'free':>7}"
    lines.append(f"{head}{'at once':>8}")
    for one in found.servers:
        shares = one.while_waiting
        external = "–" if one.name == "paged" else f"{shares.external:.1%}"[:-1]
        cells = f"{shares.used * 100:>7.1f}{shares.reserved * 100:>10.1f}"
        cells += f"{shares.internal * 100:>10.1f}{external:>10}{shares.free * 100:>7.1f}"
        lines.append(f"  {_SERVERS[one.name]:<26}{cells}{one.mean_running:>8,.1f}")
    low, high = LITERATURE_LOW.value, LITERATURE_HIGH.value
    used = found.server("contiguous").while_waiting.used
    place = "within" if low <= used <= high else "below" if used < low else "above"
    text = f"Paging runs {found.more_requests:,.1f} times as many requests at once. Without it "
    text += f"{used:.1%} of the pool would hold tokens: {place} the {low:.1%}-{high:.1%} of the "
    text += "literature (PagedAttention, SOSP 2023, contexts of 2,048 tokens)."
    if place == "below":
        text += f" Reserving max_model_len ({found.max_model_len:,}) for everyone is why."
    if found.too_long:
        text += f" {found.too_long:,} requests are longer than max_model_len and left out."
    refused = [f"{one.refused:,} by {one.name}" for one in found.servers if one.refused]
    if refused:
        text += f" Larger than any piece, so refused: {', '.join(refused)}."
    return [*lines, *filled(text)]


def _assumed(fit: MemoryFit) -> list[str]:
    return [term.name for term in fit.terms if term.kind == "assumed" and term.bytes]


def _notes(fit: MemoryFit) -> list[str]:
    lines = ["Sources"]
    for term in fit.terms:
        if term.bytes:
            name = term.name.replace("_", " ")
            lines += filled(f"{name}: {term.source}", indent="  ", hang="    ")
    if fit.deployment is not None and fit.deployment.kv.approximation:
        lines += filled(f"KV blocks: {fit.deployment.kv.approximation}", indent="  ", hang="    ")
    names = _assumed(fit)
    if names:
        count = f"{len(names)} of {len(fit.terms)} terms are assumed: "
        lines += filled(count + ", ".join(name.replace("_", " ") for name in names), hang="  ")
    return lines
