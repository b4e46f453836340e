"""What a point is going to cost: its roofline at the device's assumed efficiency.

For the dry run and for the order of the day alone: no estimate ever becomes a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from calibrate.measure.protocol import Protocol
from calibrate.plans.point import Point, Work
from simserve.inputs.hardware_profile import GpuSpec

# Views into the arenas, the capture of a graph, Python: assumed, 2026-11-20; every journal has
# what it really was (``setup_s``).
SETUP_S = 0.025
# A kernel inside a graph takes at least this: assumed, 2026-11-20.
FLOOR_S = 3e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Sustained rates of a device; ``source`` says where they come from."""

    bytes_per_s: float
    flops_per_s: Mapping[str, float]
    floor_s: float
    setup_s: float
    source: str

    def call_s(self, work: Work) -> float:
        """Return the seconds of one call."""
        memory_s = work.bytes_moved / self.bytes_per_s
        return self.floor_s + max(memory_s, work.flops / self.flops_per_s[work.dtype])

    def point_s(self, point: Point, protocol: Protocol) -> float:
        """Return the seconds of a point, set-up included; ``how.seconds`` if it says so itself."""
        if "seconds" in point.how:
            return float(point.how["seconds"])
        timed_s = protocol.point_s(self.call_s(point.work), point.work.cold_bytes)
        return self.setup_s + timed_s


def rates_of(gpu: GpuSpec) -> Rates:
    """Return the rates of a GPU with a datasheet, at the efficiency of its profile."""
    share = {name: sourced.value for name, sourced in gpu.efficiency.items()}
    sixteen = gpu.flops_per_s["bf16"] * share["gemm_efficiency"]
    eight = gpu.flops_per_s.get("fp8", gpu.flops_per_s["bf16"]) * share["gemm_efficiency"]
    return Rates(
        bytes_per_s=gpu.hbm_bytes_per_s * share["hbm_efficiency"],
        flops_per_s={"bf16": sixteen, "fp16": sixteen, "fp8": eight, "fp32": sixteen},
        floor_s=FLOOR_S,
        setup_s=SETUP_S,
        source=f"roofline of {gpu.name} at the efficiency in its device.yaml",
    )
