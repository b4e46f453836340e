"""``simserve list``: the names that simserve knows, read from where they are defined."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Mapping
from typing import Annotated

import typer


class Kind(enum.StrEnum):
    """What can be listed."""

    MODELS = "models"
    GPUS = "gpus"
    WORKLOADS = "workloads"
    SCHEDULERS = "schedulers"


def list_names(
    kind: Annotated[
        Kind, typer.Argument(metavar="KIND", help="models, gpus, workloads or schedulers.")
    ],
) -> None:
    """List known models, GPUs, workloads or schedulers.

    \b
    Examples:
      simserve list models
      simserve list gpus
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    rows = _ROWS[kind]()
    width = max((len(name) for name, _ in rows), default=0)
    for name, words in rows:
        typer.echo(f"{name:<{width}}  {words}".rstrip())


def _models() -> list[tuple[str, str]]:
    from simserve.inputs.model_catalogue import list_models, load_model

    specs = [load_model(name) for name in list_models()]
    return [(spec.name, f"{spec.parameters / 1e9:.1f} B parameters") for spec in specs]


def _gpus() -> list[tuple[str, str]]:
    from simserve.inputs.hardware_profile import list_gpus, load_gpu

    specs = [load_gpu(name) for name in list_gpus()]
    return [
        (
            spec.name,
            f"{spec.memory_bytes / 1e9:.0f} GB, {spec.hbm_bytes_per_s / 1e12:.2f} TB/s, "
            + _sixteen_bit_rate(spec.flops_per_s),
        )
        for spec in specs
    ]


def _sixteen_bit_rate(flops_per_s: Mapping[str, float]) -> str:
    for dtype in ("bf16", "fp16"):
        if dtype in flops_per_s:
            return f"{flops_per_s[dtype] / 1e12:.0f} dense {dtype} TFLOPS"
    return "no 16-bit rate stated"


def _workloads() -> list[tuple[str, str]]:
    from simserve.inputs.data_files import data_dir

    return [
        (path.stem, _first_comment(path.read_text(encoding="utf-8")))
        for path in sorted(data_dir("workloads").glob("*.yaml"))
    ]


def _schedulers() -> list[tuple[str, str]]:
    from simserve.policy.registry import SCHEDULERS

    return [
        (name, (inspect.getdoc(kind) or "").partition("\n")[0]) for name, kind in SCHEDULERS.items()
    ]


def _first_comment(text: str) -> str:
    first = text.partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


_ROWS = {
    Kind.MODELS: _models,
    Kind.GPUS: _gpus,
    Kind.WORKLOADS: _workloads,
    Kind.SCHEDULERS: _schedulers,
}
