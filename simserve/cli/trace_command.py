"""``simserve trace``: look at recorded requests, convert them, make more, import a service's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simserve.cli.options import TraceColumns, parse_columns
from simserve.cli.trace_files import checked_target, write_out
from simserve.cli.trace_import_command import SkipIncomplete, import_service
from simserve.errors import InputError

if TYPE_CHECKING:
    from simserve.traffic.trace_formats import TraceFile

trace_app = typer.Typer(
    name="trace",
    help="Count, convert, extend or import recorded requests.\n\n\b\nFormats:\n"
    "  azure        CSV with TIMESTAMP, ContextTokens, GeneratedTokens\n"
    "  mooncake     JSONL, timestamp in ms, hash_ids of 512 tokens\n"
    "  timed-trace  JSONL, timestamp in s, input_length, output_length\n"
    "  burstgpt     CSV with Timestamp, Request tokens, Response tokens\n"
    "  bailian      JSONL with chat_id, timestamp in s, hash_ids\n"
    "  servegen     JSONL with client, windows, length_pdfs\n"
    "  otel         OpenTelemetry spans of requests: OTLP JSON, or a list\n"
    "  lengths      prompt_tokens and output_tokens or the like, no times\n"
    "  table        CSV, JSONL, Parquet: arrival_s, prompt_tokens, output_tokens\n"
    "\n\b\nExample:\n"
    "  simserve trace stats azure.csv",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="A trace; .gz is unpacked.")]
Format = Annotated[
    str | None,
    typer.Option("--trace-format", metavar="NAME", help="Format, if the file does not tell."),
]
BlockTokens = Annotated[
    int | None,
    typer.Option("--block-tokens", metavar="N", help="Tokens of a hash_ids block (timed-trace)."),
]
Head = Annotated[int | None, typer.Option("--head", metavar="N", help="Only the first N requests.")]
FromS = Annotated[
    str | None,
    typer.Option("--from", "--from-s", metavar="T", help="Only from then on, in s or such as 6h."),
]
ToS = Annotated[
    str | None, typer.Option("--to-s", metavar="T", help="Only before then, in s or such as 7h.")
]
Rate = Annotated[
    str | None,
    typer.Option("--rate", "--rate-per-s", metavar="R", help="Stretch time to this mean rate."),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of every random draw.")]
Target = Annotated[
    str,
    typer.Option("--to", metavar="FORMAT", help="timed_trace, mooncake, azure, csv or parquet."),
]


@trace_app.command("stats")
def stats(
    ctx: typer.Context,
    file: File,
    trace_format: Format = None,
    trace_columns: TraceColumns = None,
    block_tokens: BlockTokens = None,
    head: Head = None,
    from_s: FromS = None,
    to_s: Annotated[
        str | None,
        typer.Option("--to", "--to-s", metavar="T", help="Only before then, in s or such as 7h."),
    ] = None,
    rate_per_s: Rate = None,
    skip_incomplete: SkipIncomplete = False,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print rate, burstiness, lengths, prefixes of a trace.

    \b
    Example:
      simserve trace stats azure.csv.gz
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    from simserve.traffic.trace_stats import stats_text, trace_stats

    asked = _asked(ctx.params)
    found = trace_stats(_read(file, asked, seed))
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        typer.echo(stats_text(found))


@trace_app.command("convert")
def convert(
    ctx: typer.Context,
    file: File,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Written; .gz packs it.")],
    to: Target,
    trace_format: Format = None,
    trace_columns: TraceColumns = None,
    block_tokens: BlockTokens = None,
    out_block_tokens: Annotated[
        int | None,
        typer.Option(
            "--out-block-tokens",
            metavar="N",
            help="Tokens of a hash_ids block in OUT; 16, or 512 in mooncake.",
        ),
    ] = None,
    head: Head = None,
    from_s: FromS = None,
    to_s: ToS = None,
    rate_per_s: Rate = None,
    skip_incomplete: SkipIncomplete = False,
    seed: Seed = 0,
) -> None:
    """Write a trace, or a part of it, in another format.

    csv and parquet keep everything. What another format cannot say is named.

    \b
    Example:
      simserve trace convert azure.csv out.jsonl --to timed_trace --rate 4
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    asked = _asked(ctx.params)
    if out_block_tokens is not None and out_block_tokens < 1:
        raise InputError("--out-block-tokens", None, out_block_tokens, "an integer of at least 1")
    target = checked_target(to, out, file, "OUT")
    trace = _read(file, asked, seed)
    if not trace.timed:
        allowed = "a trace with times; a workload gives lengths their arrivals"
        raise InputError(str(file), None, "lengths without times", allowed)
    write_out(out, target, trace, out_block_tokens)


@trace_app.command("synth")
def synth(
    ctx: typer.Context,
    file: File,
    num: Annotated[int, typer.Option("--num", metavar="N", min=1, help="Requests to draw.")],
    out: Annotated[Path, typer.Option("--out", metavar="OUT", help="Written; .gz packs it.")],
    to: Target = "timed_trace",
    seed: Seed = 0,
    trace_format: Format = None,
    trace_columns: TraceColumns = None,
    block_tokens: BlockTokens = None,
    head: Head = None,
    from_s: FromS = None,
    to_s: ToS = None,
    rate_per_s: Rate = None,
    skip_incomplete: SkipIncomplete = False,
) -> None:
    """Draw any number of requests that resemble a trace.

    Gaps are gamma with the trace's mean and variance; prompt and output lengths are
    drawn together from its rows. What prompts share is not kept.

    \b
    Example:
      simserve trace synth azure.csv --num 100000 --seed 1 --out more.jsonl
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    from simserve.traffic.trace_synthesis import draw_like

    asked = _asked(ctx.params)
    target = checked_target(to, out, file)
    trace = _read(file, asked, seed)
    drawn = draw_like(trace.requests, num, seed, str(file))
    write_out(out, target, dataclasses.replace(trace, requests=drawn, measured=None), None)


trace_app.command("import")(import_service)

_OPTIONS = {
    "format": "--trace-format",
    "columns": "--trace-columns",
    "from_s": "--from",
    "rate_per_s": "--rate",
}
"""What the keys of a workload's trace are called on the command line, if not by their names."""


def _asked(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a command as the keys of a workload's trace."""
    keys = {
        "format": params["trace_format"],
        "columns": parse_columns(params["trace_columns"]),
        "skip_incomplete": params["skip_incomplete"] or None,
        **{key: params[key] for key in ("block_tokens", "head", "from_s", "to_s", "rate_per_s")},
    }
    return {key: value for key, value in keys.items() if value is not None}


def _read(file: Path, asked: dict[str, Any], seed: int) -> TraceFile:
    from simserve.inputs.validation import Origins, validate
    from simserve.inputs.workload import TraceSpec
    from simserve.traffic.replay import read_part

    origins = Origins(str(file))
    for key in asked:
        origins.note(f"trace.{key}", _OPTIONS.get(key, "--" + key.replace("_", "-")))
    spec = validate(TraceSpec, {"file": str(file), **asked}, origins, "trace")
    return read_part(spec, seed)
