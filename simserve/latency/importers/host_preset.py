"""Host time for imported kernels: published figures of vLLM, unverified for the machine at hand.

No published table of kernels has host time; without any, a profile would be priced as if the
engine waited for the host in every step, which vLLM has not done since it schedules ahead.
"""

from __future__ import annotations

from typing import Any

from simserve.inputs.hardware_profile import GpuSpec
from simserve.inputs.sourced import Sourced

_US_PER_S = 1e6
# vLLM pull request 11133: 150-170 us between two steps with async scheduling; the middle.
_BUBBLE_US = 160
# vLLM, config/vllm.py, cudagraph_capture_sizes (0.19 to 0.33): 1, 2, 4, multiples of 8 below
# 256, then of 16 up to 512.
_SMALL_SIZES, _FINE, _COARSE_FROM, _COARSE, _LARGEST = (1, 2, 4), 8, 256, 16, 512


def host_terms(gpu: GpuSpec, date: str) -> dict[str, Any]:
    """Return the content of ``host.yaml``; ``date`` is when it was put together (ISO)."""
    return {
        "host_step": _duration(gpu.efficiency["host_step_s"]),
        "host_per_seq": _duration(gpu.efficiency["host_per_seq_s"]),
        "bubble": {
            "value": f"{_BUBBLE_US}us",
            "kind": "imported",
            "source": "vLLM pull request 11133: 150-170 us with async scheduling; unverified here",
            "date": date,
        },
        "decode_graph_sizes": {
            "value": graph_sizes(),
            "kind": "imported",
            "source": "vLLM's default cudagraph_capture_sizes",
            "date": date,
        },
    }


def graph_sizes() -> list[int]:
    """Return the decode batches that vLLM captures graphs for by default."""
    fine = range(_FINE, _COARSE_FROM, _FINE)
    return [*_SMALL_SIZES, *fine, *range(_COARSE_FROM, _LARGEST + 1, _COARSE)]


def _duration(sourced: Sourced) -> dict[str, Any]:
    value = f"{round(sourced.value * _US_PER_S, 3)}us"
    return {
        "value": value,
        "kind": sourced.kind,
        "source": sourced.source,
        "date": sourced.date,
    }
