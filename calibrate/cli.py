"""The commands of ``python -m calibrate``.

Nothing heavy is imported here: torch, and all that needs it, only inside the commands.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from calibrate.exits import ANSWER_IS_NO, OneLineGroup, need_cuda, need_torch

app = typer.Typer(
    name="calibrate",
    cls=OneLineGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_DEFAULT_PLAN = "h200-10min"
PlanName = Annotated[
    str, typer.Option("--plan", metavar="NAME", help="h200-10min, or cpu-smoke (any machine).")
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Journal, log and profile go here.")
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The --out folder of a run.")]
GpuName = Annotated[
    str | None,
    typer.Option("--gpu", metavar="NAME", help="Datasheet of the GPU, if its name is unknown."),
]
Device = Annotated[
    str | None, typer.Option("--device", metavar="cuda|cpu", help="Default: cuda if there is one.")
]
Attention = Annotated[
    str, typer.Option("--attention", metavar="NAME", help="Kernel; default: the best there is.")
]
Without = Annotated[
    list[str] | None,
    typer.Option(
        "--without", metavar="KERNEL", help="Not this one, as 'check' tells it. Repeatable."
    ),
]
Limit = Annotated[
    float | None,
    typer.Option("--limit-s", metavar="S", min=1.0, help="Stop cleanly after S seconds."),
]
Blocks = Annotated[
    list[str] | None, typer.Option("--only", metavar="BLOCK", help="A block. Repeatable.")
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME", help="What one model needs. Repeatable."),
]
Resume = Annotated[
    bool | None,
    typer.Option(
        "--resume/--fresh", help="Insist on a journal in DIR, or on none. Default: go on."
    ),
]
Retry = Annotated[bool, typer.Option("--retry", help="Measure again what failed or was refused.")]


@app.callback(invoke_without_command=True)
def calibrate(ctx: typer.Context) -> None:
    """Measure a GPU's kernels into a profile for simserve, and check the simulator.

    \b
    Examples:
      python -m calibrate run --dry-run
      python -m calibrate check
      python -m calibrate run --out h200 --limit-s 540
      python -m calibrate report h200
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command()
def run(
    plan: PlanName = _DEFAULT_PLAN,
    out: Out = None,
    only: Blocks = None,
    model: Models = None,
    attention: Attention = "",
    without: Without = None,
    limit_s: Limit = None,
    resume: Resume = None,
    retry: Retry = False,
    any_gpu: Annotated[
        bool, typer.Option("--any-gpu", help="Go on with what another GPU like this began.")
    ] = False,
    gpu: GpuName = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print points and seconds; measure nothing.")
    ] = False,
    list_points: Annotated[
        bool, typer.Option("--points", help="With --dry-run: every point, in order.")
    ] = False,
) -> None:
    """Measure a plan, the most valuable points first; write a profile.

    The journal in DIR has every finished point: a run that was killed goes on where it
    was. A kernel that crashes or hangs is recorded as failed and skipped.
    """
    from calibrate.plans.choose import make_plan
    from calibrate.plans.dry_run import dry_run_text

    blocks, models = tuple(only or ()), tuple(model or ())
    chosen = make_plan(plan, blocks=blocks, models=models, attention=attention)
    if dry_run:
        typer.echo(
            "\n".join(one.name for one in chosen.points) if list_points else dry_run_text(chosen)
        )
        return
    if out is None:
        raise typer.BadParameter("a folder for the results", param_hint="--out")
    need_torch()
    if chosen.device == "cuda":
        need_cuda(f"--plan {plan}")
    from calibrate.measure.run import Wanted
    from calibrate.run_command import run_and_report

    run_and_report(
        Wanted(
            plan=plan,
            out=out,
            blocks=blocks,
            models=models,
            attention=attention,
            without=tuple(without or ()),
            limit_s=limit_s,
            retry=retry,
            fresh=None if resume is None else not resume,
            any_gpu=any_gpu,
        ),
        gpu,
    )


@app.command()
def profile(
    folder: Folder,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Default: DIR/profile.")
    ] = None,
    gpu: GpuName = None,
) -> None:
    """Write the profile of a journal anew, also after a kill."""
    from calibrate.profile_writer import write_profile

    typer.echo(write_profile(folder, to, gpu))


@app.command()
def report(
    folder: Folder,
    gpu: GpuName = None,
    suspects: Annotated[
        int, typer.Option("--suspects", metavar="N", min=0, help="Suspicious cells to show.")
    ] = 12,
) -> None:
    """Say how far a calibration can be trusted, what to measure next."""
    from calibrate.report import report_text

    typer.echo(report_text(folder, gpu, suspects), nl=False)


@app.command()
def check(
    kernels: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KERNEL]...", help="Families or kernels: attention, triton …"),
    ] = None,
    device: Device = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N")] = 0,
) -> None:
    """Compare every kernel with float64, also inside a CUDA graph.

    A kernel that crashes or hangs is a failed row, and the others go on.
    """
    need_torch()
    from calibrate.check import HEADER, row_text, tally
    from calibrate.check_apart import check_apart

    typer.echo(HEADER)
    rows = check_apart(
        _device(device),
        seed,
        kernels or (),
        lambda row: typer.echo(row_text(row)),
        left=lambda labels: typer.echo(f"interrupted; not checked: {' '.join(labels)}"),
    )
    typer.echo(tally(rows))
    if not all(row.passed for row in rows):
        raise typer.Exit(ANSWER_IS_NO)


@app.command()
def memory(
    model: Annotated[str, typer.Option("--model", metavar="NAME")] = "",
    out: Out = None,
    device: Device = None,
    gpu: GpuName = None,
    attention: Attention = "",
    max_num_seqs: Annotated[int, typer.Option(min=1)] = 256,
    max_num_batched_tokens: Annotated[int, typer.Option(min=1)] = 8192,
    max_model_len: Annotated[int, typer.Option(min=1)] = 8192,
    gpu_memory_utilization: Annotated[float, typer.Option(min=0.01, max=1.0)] = 0.92,
) -> None:
    """Measure what stands beside the KV blocks; predict their number."""
    need_torch()
    from calibrate.memory import MemoryRequest, measure_memory, memory_text, write_memory

    chosen = _device(device)
    asked = MemoryRequest(
        model=model or ("llama-3.1-8b" if chosen == "cuda" else "cpu-small"),
        device=chosen,
        gpu=gpu,
        attention=attention,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        max_model_len=max_model_len,
        gpu_memory_utilization=gpu_memory_utilization,
    )
    facts = measure_memory(asked)
    typer.echo(memory_text(facts))
    if out is not None:
        write_memory(facts, out)


@app.command()
def validate(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Report, logs and profile.")],
    plan: Annotated[
        str, typer.Option("--plan", metavar="NAME", help="h200, or cpu-smoke.")
    ] = "h200",
    profile_folder: Annotated[
        Path | None,
        typer.Option("--profile", metavar="DIR", help="What 'run' wrote; a CPU is measured anew."),
    ] = None,
    attention: Attention = "",
    limit_s: Limit = None,
    replay_s: Annotated[float | None, typer.Option("--replay-s", metavar="S", min=1.0)] = None,
    async_scheduling: Annotated[
        bool | None, typer.Option("--async-scheduling/--no-async-scheduling")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE.md", help="The report, once more.")
    ] = None,
    runs: Annotated[
        int, typer.Option("--runs", metavar="N", min=1, help="Whole runs in a row.")
    ] = 1,
) -> None:
    """Replay traces on a real engine and in the simulator; compare."""
    need_torch()
    from calibrate.validate.report import text
    from calibrate.validate.run import ValidateRequest
    from calibrate.validate.run import validate as run_loop

    asked = ValidateRequest(
        plan=plan,
        out=out,
        profile=profile_folder,
        attention=attention,
        limit_s=limit_s,
        replay_s=replay_s,
        async_scheduling=async_scheduling,
        page=page,
        runs=runs,
    )
    found = run_loop(asked, _say)
    typer.echo(text(found))
    if found.runs_missed:
        raise typer.Exit(ANSWER_IS_NO)


@app.command()
def replay(
    workload: Annotated[
        str, typer.Argument(metavar="WORKLOAD.yaml", help="As 'simserve run --workload'.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Logs of requests and steps.")],
    plan: Annotated[
        str, typer.Option("--plan", metavar="NAME", help="Engine and limits: h200 or cpu-smoke.")
    ] = "h200",
    attention: Attention = "",
    seed: Annotated[int, typer.Option("--seed", metavar="N")] = 0,
) -> None:
    """Serve a workload for real; write the same logs as a simulation."""
    need_torch()
    from calibrate.replay_command import replay as serve

    typer.echo(serve(workload, plan, out, attention, seed, _say))


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)
def kit(ctx: typer.Context) -> None:
    """Collect what a GPU host without network needs, and use it there."""
    from calibrate.kit.__main__ import main as kit_main

    raise typer.Exit(kit_main(ctx.args))


def _device(asked: str | None) -> str:
    """Return the device to use; a GPU that was asked for must be there."""
    import torch

    if asked == "cuda":
        need_cuda("--device cuda")
    if asked not in (None, "cpu", "cuda"):
        raise typer.BadParameter("cuda or cpu", param_hint="--device")
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


def _say(line: str) -> None:
    typer.echo(line, err=True)


def click_command() -> Any:
    """Return the command tree that typer builds."""
    return typer.main.get_command(app)


def main() -> None:
    """Run the command line of the process, and leave it."""
    click_command().main(args=sys.argv[1:], prog_name="python -m calibrate")
