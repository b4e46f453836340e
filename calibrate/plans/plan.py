"""A plan: points in order of value, and how they are measured."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from calibrate.measure.protocol import Protocol
from calibrate.plans.point import Point
from calibrate.plans.rates import Rates
from simserve.errors import unknown_name

BLOCKS = (
    "ceilings",
    "launch",
    "gemm-bf16",
    "gemm-fp32",
    "decode",
    "prefill",
    "pointwise",
    "uneven-mixed",
    "steps",
    "gemm-fp8",
    "moe",
    "mla",
    "backends",
)
"""Every block of every plan; among points of equal value the first goes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``points`` are in the order in which they are measured.

    ``models`` are in order of value. ``device`` is the type of device that it needs (cpu,
    cuda), ``gpu`` the name of its datasheet, None without one. ``sentinels`` are measured
    again and again for drift. ``absent`` is what a reader may look for in vain.
    """

    name: str
    device: str
    gpu: str | None
    dtype: str
    block_size: int
    seed: int
    protocol: Protocol
    rates: Rates
    models: tuple[str, ...]
    points: tuple[Point, ...]
    sentinels: tuple[Point, ...]
    absent: tuple[str, ...] = ()

    @property
    def session(self) -> str:
        """What must be equal for a journal to be continued: all but the choice of points."""
        described = f"{self.name} {self.device} {self.seed} {self.dtype} {self.protocol}"
        return hashlib.sha256(described.encode()).hexdigest()[:16]

    def seconds(self, points: Iterable[Point] | None = None) -> float:
        """Return the estimated seconds of ``points``, by default of all."""
        some = self.points if points is None else points
        return sum(self.rates.point_s(point, self.protocol) for point in some)

    def select(self, blocks: Sequence[str], models: Sequence[str]) -> Plan:
        """Return the plan of some blocks, and of the points that some models need.

        Points that serve every model (ceilings, launches) always stay.

        Raises:
            InputError: for a block that the plan has not.
        """
        known = list(dict.fromkeys(point.block for point in self.points))
        for block in blocks:
            if block not in known:
                raise unknown_name("--only", "", block, known)
        chosen = [
            point
            for point in self.points
            if (not blocks or point.block in blocks)
            and (not models or not point.models or set(point.models) & set(models))
        ]
        wanted = tuple(name for name in self.models if not models or name in models)
        return replace(self, models=wanted, points=tuple(chosen))


def in_order(points: Iterable[Point], seed: int) -> tuple[Point, ...]:
    """Return each point once, by tier and block, shuffled within: drift must not follow a size."""
    once: dict[str, Point] = {}
    for point in points:
        other = once.get(point.name)
        if other is None:
            once[point.name] = point
            continue
        models = dict.fromkeys((*other.models, *point.models))
        first = other if other.tier <= point.tier else point
        once[point.name] = replace(first, models=tuple(models))
    groups: dict[tuple[int, int], list[Point]] = {}
    for point in once.values():
        groups.setdefault((point.tier, BLOCKS.index(point.block)), []).append(point)
    ordered: list[Point] = []
    for place in sorted(groups):
        group = sorted(groups[place], key=lambda one: one.name)
        random.Random(f"{seed}/{place}").shuffle(group)
        ordered += group
    return tuple(ordered)
