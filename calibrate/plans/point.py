"""One point of a plan: a row that a profile's table will have, and what it is going to cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Cell = str | int | float

CEILING, LAUNCH = "ceiling", "launch"
"""Kinds of points that become facts in ``profile.yaml`` and ``host.yaml``, not rows of a table."""
_FAMILIES = {"gemm": "gemm", CEILING: "gemm", "mla": "mla", "moe": "moe", "pointwise": "ops"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one call moves and computes at least.

    ``cold_bytes`` are those that an engine reads from memory in every step (weights, KV): they
    are rotated, so that no call finds them in a cache. Activations were written just before
    and are left where they are.
    """

    bytes_moved: float
    flops: float = 0.0
    dtype: str = "bf16"
    cold_bytes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One measurement: ``keys`` are the columns of ``table``, ``how`` what else it takes to
    build the call.

    ``tier`` orders a plan by value, the most valuable first; ``models`` are those whose
    steps need it.
    """  # noqa: D205 (one sentence)

    block: str
    table: str
    keys: Mapping[str, Cell]
    work: Work
    tier: int
    models: tuple[str, ...] = ()
    how: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What tells the point from all others, and finds it again in a journal."""
        cells = (f"{key}={value}" for key, value in self.keys.items() if value != "")
        return f"{self.table}:{','.join(cells)}"

    @property
    def labels(self) -> tuple[str, ...]:
        """The kernels that are launched, as family/name: as ``calibrate check`` tells them."""
        keys, how = self.keys, self.how
        if self.table == "step":
            return (f"attention/{how['attention']}", f"gemm/{how['gemm']}", f"ops/{how['ops']}")
        family = "attention" if self.table.startswith("attn_") else _FAMILIES.get(self.table)
        name = keys.get("backend") or how.get("kernel")
        return (f"{family}/{name}",) if family and name else ()

    @property
    def kernel(self) -> str:
        """What is launched, and in which dtype: where that crashes once it may do so again."""
        kind = "attention" if self.table.startswith("attn_") else self.table
        name = self.keys.get("backend") or self.how.get("kernel") or self.how.get("attention")
        dtype = self.keys.get("kv_dtype") or self.keys.get("dtype") or self.how.get("dtype")
        return " ".join(str(one) for one in (kind, name, dtype) if one)

    def request(self) -> dict[str, Any]:
        """Return what a worker needs to measure it, as JSON-able objects."""
        return {
            "table": self.table,
            "keys": dict(self.keys),
            "how": dict(self.how),
            "cold_bytes": self.work.cold_bytes,
        }
