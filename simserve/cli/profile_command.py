"""``simserve profile``: tables of measured kernels, from what others published, or fitted."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simserve.cli import options as given
from simserve.errors import InputError, unknown_name

if TYPE_CHECKING:
    from simserve.latency.importers.aiconfigurator import ImportReport
    from simserve.latency.tables.profile import Profile
    from simserve.planning.measured_means import MeasuredBench
    from simserve.planning.profile_fit import ProfileFit

profile_app = typer.Typer(
    name="profile",
    help="Build, import or fit tables of measured kernels.\n\n\b\nExample:\n"
    "  simserve profile build --gpu h100-sxm --model llama-3.1-8b",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Measured = Annotated[
    list[Path],
    typer.Option(
        "--measured",
        metavar="FILE",
        help="A result of 'vllm bench serve', or a page of vLLM's /metrics; several.",
    ),
]
Factors = Annotated[
    str, typer.Option("--fit", metavar="LIST", help="Of gpu, gap, client: what to fit.")
]
Over = Annotated[
    list[float] | None,
    typer.Option("--over", metavar="SECONDS", help="Time that a page counts; one a page."),
]
Since = Annotated[
    list[Path] | None,
    typer.Option("--since", metavar="FILE", help="A page before; one a page, or none."),
]
ServedModel = Annotated[
    str | None, typer.Option("--served-model", metavar="NAME", help="Which of a page's models.")
]
AllowExtrapolation = Annotated[
    bool, typer.Option("--allow-extrapolation", help="Price shapes far from any measured one.")
]

_FORMATS = ("llmservingsim",)
_MS = 1e3


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


@profile_app.command("fit")
def fit(
    measured: Measured,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder to write.")],
    factors: Factors = "gpu,client",
    over: Over = None,
    since: Since = None,
    served_model: ServedModel = None,
    allow_extrapolation: AllowExtrapolation = False,
    scenario: given.ScenarioFile = None,
    deployment: given.Deployment = None,
    serve_cmd: given.ServeCmd = None,
    model: given.Model = None,
    gpu: given.Gpu = None,
    tp: given.Tp = None,
    engine: given.Engine = None,
    latency: given.Latency = None,
    settings: given.Settings = None,
) -> None:
    """Fit a profile's factors to benchmarks of a server of your own, or its metrics.

    Of a GPU's time, of the gap between steps, and what clients see beside the engine.
    Residuals are printed; factors that the loads cannot tell apart are refused.

    \b
    Examples:
      simserve profile fit --measured c8.json --measured c64.json --out mine
        --model llama-3.1-8b --gpu h100-sxm --latency ./h100-8b
      simserve profile fit --measured 13h.prom --since 12h.prom --over 3600
        --out mine --model llama-3.1-8b --gpu h100-sxm --latency ./h100-8b
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    from simserve.inputs.deployment import resolve_deployment
    from simserve.inputs.scenario import load_deployment_spec
    from simserve.planning.profile_fit import FACTORS, fit_profile

    wanted = [one.strip() for one in factors.split(",") if one.strip()]
    for one in wanted or [""]:
        if one not in FACTORS:
            raise unknown_name("--fit", "", one, FACTORS)
    _check(Path(out))
    benches = list(_loads(measured, over or [], since or [], served_model))
    spec, origins = load_deployment_spec(
        scenario,
        deployment=deployment,
        serve_cmd=serve_cmd,
        settings=settings or (),
        model=model,
        gpu=gpu,
        tp=tp,
        engine=engine,
        latency=latency,
    )
    resolved = resolve_deployment(spec, origins)
    base = _base_profile(resolved.latency, resolved.gpu.name)
    found = fit_profile(base, resolved, benches, wanted, allow_extrapolation=allow_extrapolation)
    _write_fit(base, Path(out), found)
    _tell_fit(found, Path(out))


def _loads(
    measured: list[Path], over: list[float], since: list[Path], model: str | None
) -> Iterator[MeasuredBench]:
    """Yield the load of every file; the options tell of its pages, in their order."""
    from simserve.planning.measured_bench import read_bench
    from simserve.planning.measured_page import is_page, read_page

    pages = sum(map(is_page, measured))
    if len(over) != pages:
        allowed = f"the seconds that a page counts, for each of {pages} pages"
        raise InputError("--over", None, len(over), allowed)
    if len(since) not in (0, pages):
        allowed = f"a page before each of {pages} pages, or none"
        raise InputError("--since", None, len(since), allowed)
    seconds, before = iter(over), iter(since)
    for path in measured:
        if is_page(path):
            yield read_page(path, next(seconds), next(before, None), model)
        else:
            yield read_bench(path)


def _base_profile(latency: str, gpu: str) -> Profile:
    """Return the profile that a deployment's latency names."""
    from simserve.latency.tables.profile import find_profile, read_profile

    folder = find_profile(latency, gpu)
    if folder is None:
        allowed = "a profile's folder or name: there is nothing to fit in a roofline"
        raise InputError("--latency", None, latency, allowed)
    return read_profile(folder)


def _write_fit(base: Profile, folder: Path, found: ProfileFit) -> None:
    from simserve.latency.importers.fitted_folder import write_fitted
    from simserve.planning.profile_fit import with_factors

    loads = len({(one.where, one.how) for one in found.residuals})
    source = f"fitted to {loads} loads by simserve profile fit"
    origin = {"kind": "fitted", "source": source, "date": _today()}
    mine = with_factors(base, found.gpu_factor, found.gap_s)
    head: dict[str, object] = {
        "gpu_time_factor": {"value": round(mine.gpu_time_factor, 4), **origin},
        "quality": {
            **base.facts.get("quality", {}),
            "client_ms": round(found.client_s * _MS, 3),
            "residuals": [
                f"{one.metric} at {one.how}: {one.error_pct:+.1f} %" for one in found.residuals
            ],
        },
    }
    host: dict[str, object] = {}
    if found.gap_s and mine.host is not None:
        for name in ("bubble", "copy_out"):
            seconds = getattr(mine.host, name).value
            host[name] = {"value": f"{seconds * _MS * _MS:.3f}us", **origin}
    write_fitted(Path(base.where), folder, head, host)


def _tell_fit(found: ProfileFit, folder: Path) -> None:
    from simserve.planning.measured_means import STEP_TOKENS

    for one in found.residuals:
        figure = f"{one.measured:.1f}"
        if one.metric != STEP_TOKENS:
            figure = f"{one.measured * _MS:.2f} ms"
        typer.echo(f"{one.metric} at {one.how}: measured {figure}, {one.error_pct:+.1f} %")
    typer.echo(
        f"{folder}: GPU time × {found.gpu_factor:.3f}, gap {found.gap_s * _MS:+.3f} ms; clients "
        f"see {found.client_s * _MS:.1f} ms more"
    )


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
