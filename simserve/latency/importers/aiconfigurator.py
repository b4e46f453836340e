"""Slices of the installed kernel tables as a profile of one model on one kind of GPU.

Tables are large because they cover every shape; a profile keeps the shapes of one model: its
matrices (or, off the grid, the nearest shapes around them), its attention heads, its
collectives. Versions of the engine are never mixed: they were measured differently.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from simserve.errors import InputError
from simserve.inputs.hardware_profile import GpuSpec
from simserve.inputs.model_matrices import layer_matrices, padded_vocab
from simserve.inputs.model_spec import ModelSpec
from simserve.latency.importers.host_preset import host_terms
from simserve.latency.importers.kernel_package import (
    LICENCE,
    PACKAGE,
    KernelPackage,
    KernelTable,
)
from simserve.latency.importers.kernel_rows import (
    DTYPES,
    GEMM_DTYPES,
    decode_row,
    engine_reduce_rows,
    gemm_rows,
    moe_rows,
    nccl_rows,
    nearest_heads,
    prefill_row,
)
from simserve.latency.importers.latent_modules import (
    CHUNKS,
    DECODES,
    module_rows,
    outside_attention,
    why_not,
)
from simserve.latency.importers.regimes import multiprocessors
from simserve.latency.importers.table_folder import Row, sha256_of, write_folder
from simserve.latency.tables.limits import Heads

# Off the grid, how many sizes of n and of k on either side are kept.
_NEIGHBOURS = 2
_STATISTIC = "us_p50 holds the publisher's mean over its replays; the spread is not published"


@dataclass(slots=True)
class ImportReport:
    """What was written: rows per table, and in words what the source has not."""

    folder: Path
    rows: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRequest:
    """The deployment that a profile is for."""

    gpu: GpuSpec
    model: ModelSpec
    tp: int
    engine: str


def build_profile(
    package: KernelPackage, wanted: SliceRequest, folder: Path, date: str
) -> ImportReport:
    """Write the profile of ``wanted`` into ``folder``; ``date`` is when (ISO).

    Raises:
        InputError: if the package has no table of this GPU and engine at all.
    """
    report = ImportReport(folder)
    slices = _Slices(package, wanted, report, date)
    gemm = list(slices.gemm())
    tables = {
        "gemm": gemm,
        "attn_decode": list(slices.decode()),
        "attn_prefill": list(slices.prefill()),
        "mla": list(slices.latent(gemm)),
        "moe": list(slices.moe()),
        "comm": list(slices.all_reduce()),
    }
    report.missing.append("pointwise: the package has no table of norms, activations and sampling")
    if not any(tables.values()):
        where = f"{PACKAGE} {package.version}"
        raise InputError(where, f"{wanted.gpu.name}, {wanted.engine}", "no table", "another --gpu")
    report.missing.append("host: published figures stand in, see host.yaml")
    report.rows = write_folder(folder, slices.described(), tables, host_terms(wanted.gpu, date))
    return report


class _Slices:
    """Reads the tables that one profile needs, and notes what is not there."""

    def __init__(
        self, package: KernelPackage, wanted: SliceRequest, report: ImportReport, date: str
    ) -> None:
        self.package, self.wanted, self.report, self.date = package, wanted, report, date
        self.system = package.system(wanted.gpu.name)
        self.device = ""
        self.used: list[KernelTable] = []
        gemm = package.newest(self.system, "gemm", wanted.engine, "gemm")
        self.version = gemm.parent.name if gemm else None

    def gemm(self) -> Iterator[Row]:
        """Yield the rows of the model's matrices, in 16 and in 8 bits."""
        table = self._table("gemm", "gemm")
        if table is None:
            return
        weights = self.wanted.model.weights
        if weights is not None and weights.method == "fp8-block":
            self._miss("gemm fp8-block: timed at the pace of its launches; fp8 stands in")
        for theirs, ours in GEMM_DTYPES.items():
            of_dtype = table.where(gemm_dtype=theirs)
            if not len(of_dtype):
                if theirs not in DTYPES:
                    continue
                self._miss(f"gemm {ours}: not in {self.wanted.engine} {table.version}")
                continue
            grid_n = np.unique(of_dtype.columns["n"]).tolist()
            grid_k = np.unique(of_dtype.columns["k"]).tolist()
            shapes: set[tuple[int, int]] = set()
            for name, n, k in self._matrices():
                if n > grid_n[-1] or k > grid_k[-1]:
                    self._miss(f"gemm {ours} {name} {n}x{k}: beyond the grid, nearest shapes kept")
                shapes |= {(a, b) for a in around(grid_n, n) for b in around(grid_k, k)}
            yield from gemm_rows(of_dtype, ours, shapes)

    def latent(self, gemm: list[Row]) -> Iterator[Row]:
        """Yield the rows of latent attention, out of whole modules less their matrices."""
        wanted, model = self.wanted, self.wanted.model
        if model.mla is None:
            return
        reason = why_not(model)
        if reason is None and not gemm:
            reason = "no matrices to take off the modules"
        if reason is not None:
            self._miss(f"mla: {reason}")
            return
        tables = {name: self._table("mla", name) for name in (DECODES, CHUNKS)}
        if not any(tables.values()):
            return
        apart_s = outside_attention(gemm, model, wanted.gpu, wanted.tp, self.described())
        rows = list(module_rows(tables, model, wanted.tp, apart_s))
        if not rows:
            self._miss(f"mla: {model.attention_heads // wanted.tp} heads are not in the table")
        yield from rows

    def moe(self) -> Iterator[Row]:
        """Yield the rows of the model's experts, of the quickest kernel at each point."""
        model, experts = self.wanted.model, self.wanted.model.experts
        if experts is None:
            return
        table = self._table("moe", "moe")
        if table is None:
            return
        table = table.where(
            num_experts=experts.count,
            topk=experts.per_token,
            hidden_size=model.hidden_size,
            inter_size=experts.ffn_size,
            moe_tp_size=self.wanted.tp,
            moe_ep_size=1,
        )
        if not len(table):
            shape = f"{experts.count} experts, top {experts.per_token}, of {experts.ffn_size}"
            self._miss(f"moe: not in the table at tp {self.wanted.tp}: {shape}")
        yield from moe_rows(table)

    def decode(self) -> Iterator[Row]:
        """Yield the rows of decode attention for the heads on one GPU."""
        yield from self._attention("generation_attention", "attn_decode", decode_row)

    def prefill(self) -> Iterator[Row]:
        """Yield the rows of prefill attention for the heads on one GPU."""
        yield from self._attention("context_attention", "attn_prefill", prefill_row)

    def all_reduce(self) -> Iterator[Row]:
        """Yield the rows of the all-reduce among the GPUs, by the engine's kernel and by NCCL."""
        tp = self.wanted.tp
        if tp == 1:
            return
        table = self._table("comm", "custom_allreduce")
        if table is not None:
            yield from engine_reduce_rows(table, tp)
        path = self.package.newest(self.system, "comm", "nccl", "nccl")
        nccl = self._take(path) if path else None
        rows = list(nccl_rows(nccl, tp)) if nccl else []
        if not rows:
            self._miss(f"comm nccl: no all-reduce among {tp} GPUs")
        yield from rows

    def described(self) -> dict[str, Any]:
        """Return the profile's head: what was measured, by whom, and how it came here."""
        source = f"{PACKAGE} {self.package.version}"
        return {
            "kind": "imported",
            "source": f"{source}, tables of {self.wanted.engine} {self.version}",
            "date": self.date,
            "device": {
                "name": self.device,
                "gpu": self.wanted.gpu.name,
                "sms": multiprocessors(self.wanted.gpu.name),
            },
            "model": self.wanted.model.name,
            "tp": self.wanted.tp,
            "software": {
                "engine": self.wanted.engine,
                "engine_version": self.version,
                "kernels": [
                    {
                        "name": table.name,
                        "version": table.version,
                        "sha256": sha256_of(table.path),
                        "source": source,
                    }
                    for table in self.used
                ],
            },
            "run": {
                "date": self.date,
                "statistic": _STATISTIC,
                "l2": "hot (attention), cold (gemm)",
            },
            "missing": self.report.missing,
            "licence_notes": [LICENCE],
        }

    def _matrices(self) -> Iterator[tuple[str, int, int]]:
        model, tp = self.wanted.model, self.wanted.tp
        for one in layer_matrices(model, tp):
            if one.part != "experts":
                yield one.name, one.outputs, one.inputs
        yield "lm_head", -(-padded_vocab(model) // tp), model.hidden_size

    def _attention(self, table_name: str, ours: str, row_of: Any) -> Iterator[Row]:
        model, tp = self.wanted.model, self.wanted.tp
        if model.mla is not None:
            return
        table = self._table("attention", table_name)
        if table is None:
            return
        queries = model.attention_heads // tp
        for group in model.attention_groups:
            keys, size = max(1, group.kv_heads // tp), group.head_size
            if group.window is not None:
                self._miss(f"{ours} {queries}/{keys}x{size} window {group.window}: not read")
                continue
            rows = table.where(head_dim=size)
            if "window_size" in rows.columns:  # older tables know no windows
                rows = rows.where(window_size=0)
            nearest = nearest_heads(rows, ours, Heads(queries, keys, size))
            if nearest is None:
                self._miss(f"{ours}: no heads of {size} in the table")
                continue
            if nearest.shape != (queries, keys):
                near = f"{nearest.queries}/{nearest.keys}x{size}"
                self._miss(f"{ours} {queries}/{keys}x{size}: not in the table, nearest {near} kept")
            rows = rows.where(num_heads=nearest.queries, num_key_value_heads=nearest.keys)
            for index in range(len(rows)):
                if str(rows.columns["kv_cache_dtype"][index]) in DTYPES:
                    yield row_of(rows.columns, index, self.wanted.gpu.name)

    def _table(self, family: str, name: str) -> KernelTable | None:
        engine, version = self.wanted.engine, self.version
        path = None
        if version is not None:
            path = self.package.at(self.system, family, engine, version, name)
        if path is None:
            self._miss(
                f"{name}: no table of {engine} {version or 'at all'} on {self.wanted.gpu.name}"
            )
            return None
        return self._take(path)

    def _take(self, path: Path) -> KernelTable:
        table = self.package.read(path)
        self.used.append(table)
        self.device = self.device or str(table.columns["device"][0])
        return table

    def _miss(self, what: str) -> None:
        self.report.missing.append(what)


def around(grid: Sequence[int], value: int) -> list[int]:
    """Return ``value`` if the sorted ``grid`` has it, else its nearest on either side."""
    if value in grid:
        return [value]
    place = int(np.searchsorted(grid, value))
    return list(grid[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS])
