"""``simserve trace``: look at recorded requests, convert them, make more, import a service's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    "  lengths      prompt_tokens and output_tokens or the like, no times\n"
    "  table        CSV, JSONL, Parquet: arrival_s, prompt_tokens, output_tokens\n"
    "\n\b\nExample:\n"
    "  simserve trace stats azure.csv",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="A trace; .gz is unpacked.")]
Format = Annotated[
    str | None,
    typer.Option("--trace-format", metavar="NAME", help="Format, if the file does not tell."),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--trace-columns",
        metavar="ROLE=NAME,...",
        help="Columns of a table: arrival_s=t,prompt_tokens=in,output_tokens=out",
    ),
]
BlockTokens = Annotated[
    int | None,
    typer.Option("--block-tokens", metavar="N", help="Tokens of a hash_ids block (timed-trace)."),
]
Head = Annotated[int | None, typer.Option("--head", metavar="N", help="Only the first N requests.")]
FromS = Annotated[
    float | None, typer.Option("--from-s", metavar="S", help="Only from this second on.")
]
ToS = Annotated[float | None, typer.Option("--to-s", metavar="S", help="Only before this second.")]
Rate = Annotated[
    float | None,
    typer.Option("--rate-per-s", metavar="R", help="Faster or slower, to this mean rate."),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of every random draw.")]
Target = Annotated[
    str,
    typer.Option("--to", metavar="FORMAT", help="timed_trace, mooncake, azure, csv or parquet."),
]


@trace_app.command("stats")
def stats(
    file: File,
    trace_format: Format = None,
    trace_columns: Columns = None,
    block_tokens: BlockTokens = None,
    head: Head = None,
    from_s: FromS = None,
    to_s: ToS = None,
    rate_per_s: Rate = None,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print rate, burstiness, lengths, prefixes of a trace.

    \b
    Example:
      simserve trace stats azure.csv.gz
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    from simserve.traffic.trace_stats import stats_text, trace_stats

    asked = _asked(trace_format, trace_columns, block_tokens, head, from_s, to_s, rate_per_s)
    found = trace_stats(_read(file, asked, seed))
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        typer.echo(stats_text(found))


@trace_app.command("convert")
def convert(
    file: File,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Written; .gz packs it.")],
    to: Target,
    trace_format: Format = None,
    trace_columns: Columns = None,
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
    seed: Seed = 0,
) -> None:
    """Write a trace, or a part of it, in another format.

    csv and parquet keep everything. What another format cannot say is named.

    \b
    Example:
      simserve trace convert azure.csv out.jsonl --to timed_trace --rate-per-s 4
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    asked = _asked(trace_format, trace_columns, block_tokens, head, from_s, to_s, rate_per_s)
    if out_block_tokens is not None and out_block_tokens < 1:
        raise InputError("--out-block-tokens", None, out_block_tokens, "an integer of at least 1")
    target = _target(to, out, file)
    trace = _read(file, asked, seed)
    if not trace.timed:
        allowed = "a trace with times; a workload gives lengths their arrivals"
        raise InputError(str(file), None, "lengths without times", allowed)
    _write(out, target, trace, out_block_tokens)


@trace_app.command("synth")
def synth(
    file: File,
    num: Annotated[int, typer.Option("--num", metavar="N", min=1, help="Requests to draw.")],
    out: Annotated[Path, typer.Option("--out", metavar="OUT", help="Written; .gz packs it.")],
    to: Target = "timed_trace",
    seed: Seed = 0,
    trace_format: Format = None,
    trace_columns: Columns = None,
    block_tokens: BlockTokens = None,
    head: Head = None,
    from_s: FromS = None,
    to_s: ToS = None,
    rate_per_s: Rate = None,
) -> None:
    """Draw any number of requests that resemble a trace.

    Gaps are gamma with the trace's mean and variance; prompt and output lengths are
    drawn together from its rows. What prompts share is not kept.

    \b
    Example:
      simserve trace synth azure.csv --num 100000 --seed 1 --out more.jsonl
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    from simserve.traffic.trace_synthesis import draw_like

    asked = _asked(trace_format, trace_columns, block_tokens, head, from_s, to_s, rate_per_s)
    target = _target(to, out, file)
    trace = _read(file, asked, seed)
    drawn = draw_like(trace.requests, num, seed, str(file))
    _write(out, target, dataclasses.replace(trace, requests=drawn), None)


@trace_app.command("import")
def import_service(
    prometheus: Annotated[
        Path, typer.Option("--prometheus", metavar="FILE", help="A saved page of vLLM's /metrics.")
    ],
    over: Annotated[
        float,
        typer.Option(
            "--over",
            metavar="SECONDS",
            help="Time the counters cover: since the server's start, or since --since.",
        ),
    ],
    since: Annotated[
        Path | None,
        typer.Option("--since", metavar="FILE", help="An earlier page; only growth counts."),
    ] = None,
    served_model: Annotated[
        str | None,
        typer.Option("--served-model", metavar="NAME", help="Which, if the page has several."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.yaml", help="Written instead of printed."),
    ] = None,
) -> None:
    """Turn the metrics of a running vLLM into a workload file.

    \b
    Examples:
      curl -s localhost:8000/metrics > now.prom
      simserve trace import --prometheus now.prom --over 86400 --out mine.yaml
      simserve run --workload mine.yaml
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    from simserve.planning.destinations import check_file_destination
    from simserve.results.whole_files import write_whole
    from simserve.traffic.prometheus_import import read_service_load, workload_text

    if out is not None:
        check_file_destination("--out", out, [prometheus, since])
    load = read_service_load(prometheus, seconds=over, since=since, model=served_model)
    text = workload_text(load, prometheus.name)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_whole(out, lambda path: _write_text(path, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _asked(
    trace_format: str | None,
    trace_columns: str | None,
    block_tokens: int | None,
    head: int | None,
    from_s: float | None,
    to_s: float | None,
    rate_per_s: float | None,
) -> dict[str, Any]:
    """Return the options as the keys of a workload's trace."""
    keys = {
        "format": trace_format,
        "columns": None if trace_columns is None else _columns(trace_columns),
        "block_tokens": block_tokens,
        "head": head,
        "from_s": from_s,
        "to_s": to_s,
        "rate_per_s": rate_per_s,
    }
    return {key: value for key, value in keys.items() if value is not None}


def _columns(text: str) -> dict[str, str]:
    columns: dict[str, str] = {}
    for pair in text.split(","):
        role, equals, name = (part.strip() for part in pair.partition("="))
        if not (role and equals and name) or role in columns:
            allowed = "ROLE=NAME,ROLE=NAME, every role once"
            raise InputError("--trace-columns", None, text, allowed)
        columns[role] = name
    return columns


def _read(file: Path, asked: dict[str, Any], seed: int) -> TraceFile:
    from simserve.inputs.validation import Origins, validate
    from simserve.inputs.workload import TraceSpec
    from simserve.traffic.replay import read_part

    origins = Origins(str(file))
    for key in asked:
        option = "--" + key.replace("_", "-")
        prefixed = key in ("format", "columns")
        origins.note(f"trace.{key}", f"--trace-{key}" if prefixed else option)
    spec = validate(TraceSpec, {"file": str(file), **asked}, origins, "trace")
    return read_part(spec, seed)


def _target(to: str, out: Path, file: Path) -> str:
    from simserve.planning.destinations import check_file_destination
    from simserve.traffic.trace_writers import target_of

    target = target_of(to, "--to")
    check_file_destination("OUT", out, [file])
    return target


def _write(out: Path, target: str, trace: TraceFile, block_tokens: int | None) -> None:
    from simserve.results.whole_files import write_whole
    from simserve.traffic.trace_writers import losses, write_trace

    packed = out.suffix == ".gz"
    requests = trace.requests
    write_whole(
        out,
        lambda path: write_trace(path, requests, target, block_tokens=block_tokens, packed=packed),
    )
    lost = losses(requests, target)
    for note in [*trace.notes, *([f"{target} cannot say: {', '.join(lost)}"] if lost else [])]:
        typer.echo(f"note: {note}", err=True)
