"""Cells that deserve a second look, and the measurements that would tell most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from calibrate.device_names import CPU
from calibrate.device_spec import spec_of
from calibrate.leave_out import TABLES, LeftOut, axes_of, curves
from calibrate.measure.journal import Entry
from calibrate.plans.point import CEILING
from calibrate.results import Results
from simserve.latency.roofline_gemm import flops_per_s

_PER_US = 1e6
# Of the datasheet: a row that is quicker than this was read from a cache, or not at all.
_ALLOWED = 1.02
# Tables whose rows read cold memory; activations may well come from the cache.
_COLD = ("gemm", "attn_decode", "attn_prefill", "attn_mixed", "mla", "moe", CEILING)


@dataclass(frozen=True, slots=True)
class Suspect:
    """A point and what is odd about it, in words."""

    name: str
    why: str


def suspects(results: Results, gpu: str) -> Iterator[Suspect]:
    """Yield points quicker than the datasheet allows, falling curves, and flagged points."""
    yield from _too_quick(results, gpu)
    for table in TABLES:
        for points in curves(results, table):
            yield from _falling(points)
    for entry in results.points.values():
        if entry.get("flag"):
            spread = entry["us_p90"] / entry["us_p10"] - 1 if entry.get("us_p10") else 0.0
            yield Suspect(entry["name"], f"{entry['flag']}, p90 {spread:.0%} above p10")


def _too_quick(results: Results, gpu: str) -> Iterator[Suspect]:
    if gpu == CPU:
        return
    spec = spec_of(gpu)
    for table in _COLD:
        for entry in results.measured(table):
            dtype = str(entry["keys"].get("dtype", entry["keys"].get("what", "bf16")))
            rate = flops_per_s(spec, dtype.split("-", maxsplit=1)[0])
            bound_us = _PER_US * max(entry["bytes"] / spec.hbm_bytes_per_s, entry["flops"] / rate)
            if entry["us_p50"] * _ALLOWED < bound_us:
                share = bound_us / entry["us_p50"]
                yield Suspect(entry["name"], f"{share:.2f} times the datasheet's rate")


def _falling(points: dict[tuple[int, ...], Entry]) -> Iterator[Suspect]:
    """Yield points that take less than a smaller one, by more than the spread of both."""
    for axis in range(len(next(iter(points)))):
        lines: dict[tuple[int, ...], list[tuple[int, Entry]]] = {}
        for place, entry in points.items():
            rest = place[:axis] + place[axis + 1 :]
            lines.setdefault(rest, []).append((place[axis], entry))
        for line in lines.values():
            ordered = sorted(line, key=lambda one: one[0])
            for (size, before), (_, after) in pairwise(ordered):
                if after["us_p90"] < before["us_p10"]:
                    fall = 1 - after["us_p50"] / before["us_p50"]
                    yield Suspect(after["name"], f"{fall:.0%} less than at {size}")


def next_points(left: Sequence[LeftOut], results: Results, most: int) -> list[str]:
    """Return the measurements most worth making, the best first, one line each.

    Where leaving out a point costs most, the widest gap beside it is halved; then come flagged
    points and those without a time.
    """
    found: list[str] = []
    for one in sorted(left, key=lambda one: -abs(one.error)):
        line = _halved(one)
        if line not in found:
            found.append(line)
        if len(found) >= most:
            return found
    flagged = [entry for entry in results.points.values() if entry.get("flag")]
    found += [f"again: {short_name(entry)} ({entry['flag']})" for entry in flagged]
    return found[:most]


def _halved(one: LeftOut) -> str:
    """Return the middle of the wider gap beside a point, on its most stretched axis."""
    entry, axes = one.entry, axes_of(one.entry["table"])
    gaps = []
    for axis, between in zip(axes, one.between, strict=True):
        if between is not None:
            size = int(entry["keys"][axis])
            for low, high in ((between[0], size), (size, between[1])):
                gaps.append((high / max(low, 1), axis, (low + high) // 2))
    _, axis, middle = max(gaps)
    moved = {**entry["keys"], axis: middle}
    name = short_name({**entry, "keys": moved})
    return f"{name} (error {one.error:+.0%} beside it)"


# Keys that a reader can do without.
_LONG = ("sum_ctx", "max_ctx", "cv", "dv", "q_dtype", "block", "shape", "n_req", "aligned", "ep")


def short_name(entry: Entry) -> str:
    """Return a point's name without what follows from the rest."""
    cells = (
        str(value) if isinstance(value, str) else f"{key}={value:g}"
        for key, value in entry["keys"].items()
        if key not in _LONG and value != ""
    )
    return f"{entry['table']} {' '.join(cells)}"
