"""From measured copies, square products and launches to a machine's ceilings and host time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calibrate.device_names import CPU
from calibrate.measure.journal import Entry
from calibrate.plans.point import CEILING, LAUNCH
from calibrate.results import Results
from simserve.inputs.hardware_profile import load_gpu
from simserve.inputs.sourced import Sourced

_TERA = 1e12
_PER_S = 1e6  # from per microsecond
_COPY, _READ = "copy", "read"
# What the reference engine launches per layer of a dense model: two norms, four products,
# rotation with KV store, attention, activation.
_KERNELS_PER_LAYER = 9


def ceiling_facts(results: Results) -> dict[str, float]:
    """Return the highest rates that were measured, and what a launch costs."""
    facts: dict[str, float] = {}
    for entry in results.measured(CEILING):
        what = str(entry["keys"]["what"])
        moves = what in (_COPY, _READ)
        rate = entry["bytes" if moves else "flops"] / entry["us_p50"] * _PER_S / _TERA
        key = f"{what}_TBps" if moves else _flops_key(what)
        facts[key] = max(facts.get(key, 0.0), round(rate, 4))
    launches = {entry["keys"]["nodes"]: entry for entry in results.measured(LAUNCH)}
    if 0 in launches:
        facts["launch_us"] = round(launches[0]["us_p50"], 3)
    graphs = {nodes: entry for nodes, entry in launches.items() if nodes}
    for nodes, entry in sorted(graphs.items()):
        facts[f"graph_{nodes}_us"] = round(entry["us_p50"], 3)
    if len(graphs) > 1:
        few, many = min(graphs), max(graphs)
        gap = (graphs[many]["us_gpu"] - graphs[few]["us_gpu"]) / (many - few)
        facts["graph_node_us"] = round(gap, 3)
    return dict(sorted(facts.items()))


def _flops_key(what: str) -> str:
    dtype, kind = what.split("-")
    return f"{dtype}_TFLOPs_{kind}"


def host_entries(results: Results, gpu: str) -> dict[str, Any] | None:
    """Return ``host.yaml``: launches as measured, an engine's own time as the datasheet assumes.

    None where nothing was measured of it, or where there is no datasheet.
    """
    launches = {entry["keys"]["nodes"]: entry for entry in results.measured(LAUNCH)}
    if gpu == CPU or 0 not in launches or len(launches) == 1:
        return None
    spec = load_gpu(gpu)
    date = str(results.session["started"])[: len("2026-11-20")]
    largest = max(launches)
    source = f"calibrate run on {results.device['name']}"
    return {
        "host_step": _carried(spec.efficiency["host_step_s"]),
        "host_per_seq": _carried(spec.efficiency["host_per_seq_s"]),
        "launch_kernel": _measured(launches[0], f"{source}: an eager kernel that adds", date),
        "launch_graph": _measured(
            launches[largest], f"{source}: replay of a graph of {largest} kernels", date
        ),
        "kernels_per_layer": {
            "value": _KERNELS_PER_LAYER,
            "kind": "assumed",
            "source": "what the reference engine launches for a dense layer",
            "date": "2026-11-20",
        },
    }


def _carried(sourced: Sourced) -> Mapping[str, Any]:
    return {
        "value": f"{sourced.value * 1e6:g}us",
        "kind": sourced.kind,
        "source": f"device.yaml, not measured here: {sourced.source}",
        "date": sourced.date,
    }


def _measured(entry: Entry, source: str, date: str) -> Mapping[str, Any]:
    return {
        "value": f"{entry['us_p50']:.3f}us",
        "kind": "measured",
        "source": source,
        "date": date,
    }
