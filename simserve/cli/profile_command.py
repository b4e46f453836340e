"""``simserve profile``: tables of measured kernels, built from what others have published."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simserve.errors import InputError, unknown_name

if TYPE_CHECKING:
    from simserve.latency.importers.aiconfigurator import ImportReport

profile_app = typer.Typer(
    name="profile",
    help="Build or import tables of measured kernels.\n\n\b\nExample:\n"
    "  simserve profile build --gpu h100-sxm --model llama-3.1-8b",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_FORMATS = ("llmservingsim",)


@profile_app.command("build")
def build(
    gpu: Annotated[
        str, typer.Option("--gpu", metavar="NAME", help="GPU; see 'simserve list gpus'.")
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="Model; see 'simserve list models'.")
    ],
    tp: Annotated[
        int, typer.Option("--tp", metavar="N", min=1, help="GPUs per replica (tensor parallel).")
    ] = 1,
    engine: Annotated[
        str, typer.Option("--engine", metavar="NAME", help="Engine whose kernels: vllm.")
    ] = "vllm",
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder to write.",
            show_default="GPU-MODEL-tpN-ENGINE",
        ),
    ] = None,
) -> None:
    """Write a model's slices of the installed kernel tables.

    The tables are those of the package aiconfigurator-core (Apache-2.0), which
    "pip install 'simserve[kernels]'" installs. What they lack is named on stderr.

    \b
    Example:
      simserve profile build --gpu h100-sxm --model llama-3.1-8b --out h100-8b
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    from simserve.inputs.hardware_profile import load_gpu
    from simserve.inputs.model_catalogue import load_model
    from simserve.latency.importers.aiconfigurator import SliceRequest, build_profile
    from simserve.latency.importers.kernel_package import installed_package

    package = installed_package()
    spec, device = load_model(model), load_gpu(gpu)
    if tp not in spec.tp_sizes():
        allowed = ", ".join(map(str, spec.tp_sizes()))
        raise InputError("--tp", None, tp, f"{allowed}: sizes that cut {spec.name} evenly")
    wanted = SliceRequest(gpu=device, model=spec, tp=tp, engine=engine)
    folder = Path(out or f"{device.name}-{spec.name}-tp{tp}-{engine}")
    _check(folder)
    _tell(build_profile(package, wanted, folder, _today()))


@profile_app.command("import")
def import_tables(
    source_format: Annotated[
        str, typer.Argument(metavar="FORMAT", help="Whose tables: llmservingsim.")
    ],
    source: Annotated[Path, typer.Argument(metavar="DIR", help="The folder with meta.yaml.")],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder to write.")],
    tp: Annotated[
        int | None,
        typer.Option("--tp", metavar="N", min=1, help="Which of its tpN, if it has several."),
    ] = None,
    gpu: Annotated[
        str | None, typer.Option("--gpu", metavar="NAME", help="Our name of its GPU.")
    ] = None,
) -> None:
    """Write somebody's published tables as a profile.

    \b
    Example:
      simserve profile import llmservingsim RTX4090/profile --out rtx4090-8b
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    from simserve.latency.importers.llmservingsim import import_profile

    if source_format not in _FORMATS:
        raise unknown_name("FORMAT", "", source_format, _FORMATS)
    _check(Path(out))
    _tell(import_profile(source, Path(out), _today(), tp=tp, gpu=gpu))


def _check(folder: Path) -> None:
    from simserve.planning.destinations import check_directory_destination

    check_directory_destination("--out", folder)


def _tell(report: ImportReport) -> None:
    for what in report.missing:
        typer.echo(f"simserve: missing: {what}", err=True)
    rows = ", ".join(f"{name} {count}" for name, count in report.rows.items())
    typer.echo(f"{report.folder}: {rows} rows")


def _today() -> str:
    return dt.datetime.now(tz=dt.UTC).date().isoformat()
