"""Elementwise kernels and collectives: curves over tokens, and over the bytes of a message."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from simserve.errors import InputError
from simserve.inputs.model_matrices import padded_vocab
from simserve.latency.roofline_gemm import ACTIVATION_BYTES
from simserve.latency.tables.answers import ROOFLINE, Answer
from simserve.latency.tables.csv_file import Row
from simserve.latency.tables.curve import (
    MOST_OCTAVES,
    Curve,
    Shape,
    nearest_shapes,
    transferred,
)
from simserve.latency.tables.gemms import Operator
from simserve.latency.tables.limits import collective_limit, elementwise_limit
from simserve.latency.tables.selection import Setting

_POINTWISE, _COMM = "pointwise", "comm"
# A kernel of no work, inside a CUDA graph: aiconfigurator-core 0.12.0, systems/*.yaml
# (mem_empirical_constant_latency, the same for 14 of 15 GPUs). Norms, rotations and activations
# of one token take 1.9-4.2 us in the layer profiles of an RTX 4090 and an RTX PRO 6000.
_KERNEL_S = 3e-6
# Values that a kernel moves, as multiples of its width: a norm reads and writes hidden state
# and residual; an activation reads gate and up and writes their product.
_MOVED = {"norm": 4.0, "act": 3.0}
# Sampling reads the logits in 16 bits, writes them in 32 and reads those (vLLM's sampler).
_SAMPLED_BYTES = 10.0


def elementwise(setting: Setting) -> Iterator[tuple[str, bool, Operator]]:
    """Yield the elementwise operators: name, whether by sequences (else tokens), answer.

    One that the table has not takes what the roofline says: a launch in a graph, and its bytes
    at the share of the bandwidth that kernels reach.
    """
    model, tp = setting.model, setting.tp
    widths_of_heads = [
        (model.attention_heads // tp + 2 * max(1, group.kv_heads // tp)) * group.head_size
        for group in model.attention_groups
    ]
    heads = max(widths_of_heads)
    dense = model.layers - (model.experts.layers if model.experts else 0)
    kernels = [
        ("norm", model.hidden_size, model.norms_per_layer * model.layers + 1, False),
        ("rope_store", heads, model.layers, False),
        ("act", model.ffn_size // tp, dense, False),
        ("embed", model.hidden_size, 1, False),
        ("sample", model.vocab_size, 1, True),
    ]
    if model.qk_norm:
        kernels.append(("qk_norm", heads, model.layers, False))
    for op, width, times, by_seqs in kernels:
        if times:
            curve = _width_curve(setting, op, width)
            yield op, by_seqs, _scaled(curve, times) if curve else _moved(setting, op, width, times)


def _moved(setting: Setting, op: str, width: int, times: int) -> Operator:
    """Return the time of ``times`` kernels that do nothing but move ``width`` values a token."""
    gpu = setting.gpu
    moved_bytes = _MOVED.get(op, 2.0) * width * ACTIVATION_BYTES
    if op == "sample":
        moved_bytes = _SAMPLED_BYTES * width
    token_s = moved_bytes / (gpu.hbm_bytes_per_s * gpu.efficiency["hbm_efficiency"].value)
    return lambda count: Answer(times * (_KERNEL_S + count * token_s), ROOFLINE)


def collectives(setting: Setting) -> Iterator[tuple[str, bool, Operator]]:
    """Yield the collectives of tensor parallelism, as ``elementwise`` yields its operators.

    Two all-reduces per layer, one after the embedding, and one gather of the logits.
    """
    model, tp = setting.model, setting.tp
    if tp == 1:
        return
    reduces = 2 * model.layers + 1
    message = model.hidden_size * ACTIVATION_BYTES
    yield "all_reduce", False, _collective(setting, "all_reduce", reduces, message)
    logits = padded_vocab(model) * ACTIVATION_BYTES
    yield "all_gather", True, _collective(setting, "all_gather", 1, logits)


def _scaled(curve: Curve, times: int, size_per_count: float = 1.0) -> Operator:
    def answer(count: int) -> Answer:
        seconds, source = curve.answer(count * size_per_count)
        return Answer(times * seconds, source)

    return answer


def _width_curve(setting: Setting, op: str, width: int) -> Curve | None:
    table = setting.profile.tables.get(_POINTWISE)
    if table is None:
        return None
    rows = [row for row in table.rows if row.keys["op"] == op]
    rows = [row for row in rows if row.keys["dtype"] in ("", "bf16")] or rows
    points: dict[Shape, dict[int, float]] = {}
    for row in rows:
        points.setdefault((row.number("width"),), {})[row.number("tokens")] = row.seconds
    if not points:
        return None
    curves = {
        shape: Curve(
            sorted(of), [of[m] for m in sorted(of)], elementwise_limit(shape[0], setting.gpu)
        )
        for shape, of in points.items()
    }
    if (width,) in curves:
        return curves[width,]
    distance, near = nearest_shapes((width,), curves)[0]
    if distance > MOST_OCTAVES and not setting.allow_extrapolation:
        allowed = f"a width within {MOST_OCTAVES:g} octaves of a measured one, such as {near[0]}"
        raise InputError(table.where, f"{op}, width", width, allowed)
    return transferred((width,), elementwise_limit(width, setting.gpu), curves)


def _collective(setting: Setting, op: str, times: int, bytes_per_count: float) -> Operator:
    table = setting.profile.tables.get(_COMM)
    rows = [row for row in table.rows if row.keys["op"] == op] if table else []
    mine = [row for row in rows if row.keys["gpus"] == setting.tp]
    if table and rows and not mine:
        setting.nothing(table, f"{op}, gpus", setting.tp, (row.keys["gpus"] for row in rows))
    if mine:
        limit = collective_limit(op, setting.tp, setting.gpu)
        sizes, seconds = _quickest(mine)
        return _scaled(Curve(sizes, seconds, limit), times, bytes_per_count)
    if not setting.gpu.link_bytes_per_s:
        raise InputError(setting.gpu.name, "tp", setting.tp, "1: its profile has no link")
    share = {name: sourced.value for name, sourced in setting.gpu.efficiency.items()}
    byte_s = collective_limit(op, setting.tp, setting.gpu)(1.0) / share["link_efficiency"]
    latency_s = share["collective_latency_s"]
    return lambda count: Answer(times * (latency_s + count * bytes_per_count * byte_s), ROOFLINE)


def _quickest(rows: list[Row]) -> tuple[list[float], list[float]]:
    """Return sizes and times, at each size of the quickest implementation measured around it.

    An implementation that was timed inside a CUDA graph is taken from there: alone, an eager
    collective is as slow as its launch.
    """
    by_kernel: dict[str, dict[int, dict[int, float]]] = {}
    for row in rows:
        graphs = by_kernel.setdefault(row.text("impl"), {})
        graphs.setdefault(row.number("graph"), {})[row.number("bytes")] = row.seconds
    kernels = [graphs[max(graphs)] for graphs in by_kernel.values()]
    sizes = sorted({size for points in kernels for size in points})
    best = [
        min(_between(points, size) for points in kernels if covers(points, size)) for size in sizes
    ]
    return [float(size) for size in sizes], best


def covers(points: dict[int, float], size: int) -> bool:
    """Return whether ``size`` lies within the measured sizes."""
    return min(points) <= size <= max(points)


def _between(points: dict[int, float], size: int) -> float:
    if size in points:
        return points[size]
    sizes = sorted(points)
    above = bisect_left(sizes, size)
    low, high = sizes[above - 1], sizes[above]
    share = (size - low) / (high - low)
    return points[low] + (points[high] - points[low]) * share
