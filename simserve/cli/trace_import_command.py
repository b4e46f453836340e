"""``simserve trace import``: what a running service exports becomes a workload or a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simserve.cli.trace_files import checked_target, say_notes, write_out
from simserve.errors import InputError

Prometheus = Annotated[
    Path | None,
    typer.Option("--prometheus", metavar="FILE", help="A saved page of vLLM's /metrics."),
]
Otel = Annotated[
    Path | None,
    typer.Option("--otel", metavar="FILE", help="OpenTelemetry spans: OTLP JSON, or a list."),
]
Over = Annotated[
    float | None,
    typer.Option(
        "--over",
        metavar="SECONDS",
        help="Time the counters cover: since the server's start, or since --since.",
    ),
]
Since = Annotated[
    Path | None,
    typer.Option("--since", metavar="FILE", help="An earlier page; only growth counts."),
]
ServedModel = Annotated[
    str | None,
    typer.Option("--served-model", metavar="NAME", help="Which, if the page has several."),
]
SkipIncomplete = Annotated[
    bool, typer.Option("--skip-incomplete", help="Leave out spans without token counts.")
]
To = Annotated[
    str | None,
    typer.Option("--to", metavar="FORMAT", help="Of the trace from --otel; csv if not given."),
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Written instead of printed.")
]


def import_service(
    prometheus: Prometheus = None,
    otel: Otel = None,
    over: Over = None,
    since: Since = None,
    served_model: ServedModel = None,
    skip_incomplete: SkipIncomplete = False,
    to: To = None,
    out: Out = None,
) -> None:
    """Turn what a running service exports into a workload or a trace.

    A page of metrics becomes a workload file; spans of requests become a trace,
    with the latencies that they measured beside it.

    \b
    Examples:
      curl -s localhost:8000/metrics > now.prom
      simserve trace import --prometheus now.prom --over 86400 --out mine.yaml
      simserve run --workload mine.yaml
      simserve trace import --otel spans.jsonl --out mine.csv
      simserve run --trace mine.csv
    """  # noqa: D301 (typer prints what follows a backspace as it stands)
    if (prometheus is None) == (otel is None):
        got = "neither" if otel is None else "both"
        raise InputError("trace import", None, got, "either --prometheus or --otel")
    if otel is not None:
        for option, value in (
            ("--over", over),
            ("--since", since),
            ("--served-model", served_model),
        ):
            if value is not None:
                raise InputError(option, None, value, "--prometheus beside it, not --otel")
        _import_spans(otel, out, to, skip_incomplete=skip_incomplete)
    elif prometheus is not None:
        for option, asked in (("--to", to), ("--skip-incomplete", skip_incomplete or None)):
            if asked is not None:
                raise InputError(option, None, asked, "--otel beside it, not --prometheus")
        _import_metrics(prometheus, over, since, served_model, out)


def _import_spans(otel: Path, out: Path | None, to: str | None, *, skip_incomplete: bool) -> None:
    from simserve.traffic.trace_formats import read_trace
    from simserve.traffic.trace_writers import table_lines

    if out is None:
        if to not in (None, "csv"):
            raise InputError("--to", None, to, "csv, which is printed, or --out FILE with it")
        trace = read_trace(otel, "otel", skip_incomplete=skip_incomplete)
        for line in table_lines(trace.requests, trace.measured or {}):
            typer.echo(line, nl=False)
        say_notes(trace.notes)
        return
    target = checked_target(to or "csv", out, otel)
    write_out(out, target, read_trace(otel, "otel", skip_incomplete=skip_incomplete))


def _import_metrics(
    page: Path, over: float | None, since: Path | None, model: str | None, out: Path | None
) -> None:
    from simserve.planning.destinations import check_file_destination
    from simserve.results.whole_files import write_whole
    from simserve.traffic.prometheus_import import read_service_load, workload_text

    if over is None:
        raise InputError("--over", None, "nothing", "the seconds that the counters cover")
    if out is not None:
        check_file_destination("--out", out, [page, since])
    load = read_service_load(page, seconds=over, since=since, model=model)
    text = workload_text(load, page.name)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_whole(out, lambda path: _write_text(path, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
