"""The commands of ``simserve`` by name.

Nothing heavy is imported here: ``simserve --help`` reads only typer and the options. Each
command imports what it needs when it runs.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from simserve import __version__
from simserve.cli.capacity_command import capacity
from simserve.cli.check_command import check
from simserve.cli.compare_command import compare
from simserve.cli.cost_command import cost
from simserve.cli.exits import CRASHED, OneLineGroup
from simserve.cli.explain_command import explain
from simserve.cli.fit_command import fit
from simserve.cli.gate_command import gate
from simserve.cli.interrupt import leave
from simserve.cli.list_command import list_names
from simserve.cli.plan_command import plan
from simserve.cli.profile_command import profile_app
from simserve.cli.report_command import report
from simserve.cli.run_command import run
from simserve.cli.schema_command import schema
from simserve.cli.serve_cmd_command import serve_cmd
from simserve.cli.sweep_command import sweep
from simserve.cli.trace_command import trace_app
from simserve.cli.validate_command import validate
from simserve.cli.verify_command import verify

app = typer.Typer(
    name="simserve",
    cls=OneLineGroup,
    rich_markup_mode=None,  # plain help: quick to print, and 80 columns anywhere
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run)
app.command("sweep")(sweep)
app.command("capacity")(capacity)
app.command("plan")(plan)
app.command("fit")(fit)
app.command("cost")(cost)
app.command("explain")(explain)
app.command("compare")(compare)
app.command("gate")(gate)
app.command("report")(report)
app.command("verify")(verify)
app.command("serve-cmd")(serve_cmd)
app.command("check")(check)
app.command("list")(list_names)
app.command("schema")(schema)
app.add_typer(trace_app)
app.add_typer(profile_app)
app.command("validate")(validate)


def _print_version(wanted: bool) -> None:
    if wanted:
        loop = find_spec("simserve.engine.replica")
        compiled = loop is not None and loop.origin is not None and not loop.origin.endswith(".py")
        typer.echo(f"simserve {__version__}{' (compiled)' if compiled else ''}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def simserve(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Simulate LLM serving before you rent the GPUs.

    \b
    Examples:
      simserve run
      simserve run --model qwen3-8b --gpu h100-sxm --slo 'ttft:500 tpot:50'
      simserve sweep --vary max_num_seqs=16,64,256 --out batch.csv
      simserve list gpus

    Data goes to stdout, everything else to stderr. The exit status is 0 if all is
    well, 1 if the answer is no (an SLO missed, a step that diverges), 2 if the
    input is wrong.
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def click_command() -> Any:
    """Return the command tree that typer builds, for tools that read it."""
    return typer.main.get_command(app)


def main() -> None:
    """Run ``simserve`` with the words of the process, and leave it.

    A crash is neither a no nor a wrong input: it has a status of its own.
    """
    # numpy's linear algebra is not used; its threads would burn time at every start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if "" not in sys.path:
        sys.path.append("")  # a policy of one's own is found in the working directory
    try:
        click_command().main(args=sys.argv[1:], prog_name="simserve")
    except KeyboardInterrupt:  # before the command has begun
        leave()
    except Exception:  # noqa: BLE001
        traceback.print_exc()
        sys.exit(CRASHED)
