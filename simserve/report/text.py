"""The report of a run as text for a terminal, 80 columns wide."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from simserve.report.intervals import SHORT_OF, TOO_FEW_ANSWERED, steady_state_lines
from simserve.report.summary import PERCENTILES, run_summary
from simserve.results.result import Result

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 80
NO_OPERATING_POINT = "no operating point"
_COLUMNS = ("mean", *(f"p{q}" for q in PERCENTILES))
_ONE_DECIMAL_BELOW = 100
_NOT_FINISHED = ("rejected", "timed_out", "cancelled", "unfinished")
_SMALLEST_SHARE = 0.005


def run_report(
    result: Result, width: int = WIDTH, *, intervals: Sequence[str] | None = None
) -> str:
    """Return the report as plain text; no line is longer than ``width``.

    ``intervals`` are the lines that replications have in place of this run's own; they judge the
    objectives, which are then not judged on this run alone.
    """
    from rich.console import Console

    summary = run_summary(result)
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, highlight=False, emoji=False)
    console.print(_lines(_head(summary)))
    console.print(_latency_table(summary, of_several=intervals is not None))
    for line in steady_state_lines(result.steady_state) if intervals is None else intervals:
        console.print(line, markup=False, soft_wrap=True)
    console.print()
    objectives = _objectives(summary) if intervals is None else []
    console.print(_lines([*_use(summary), *objectives, *_notes(summary)]))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _lines(rows: list[tuple[str, str]]) -> Table:
    """Return labels with texts beside them, wrapped."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in rows:
        grid.add_row(Text(label), Text(text))
    return grid


def _head(summary: dict[str, Any]) -> list[tuple[str, str]]:
    scenario, traffic, verdict = summary["scenario"], summary["traffic"], summary["verdict"]
    gpus = scenario["tp"] * scenario["replicas"]
    layout = f"tp {scenario['tp']}"
    mode = "async" if scenario["async_scheduling"] else "synchronous"
    if scenario["replicas"] > 1:
        layout += f", {scenario['replicas']} replicas, {scenario['router']}"
    counts = [f"{traffic['completed']:,} of {traffic['requests']:,} requests finished"]
    counts += [
        f"{traffic[name]:,} {name.replace('_', ' ')}" for name in _NOT_FINISHED if traffic[name]
    ]
    return [
        ("Scenario", f"{scenario['name']} (seed {scenario['seed']})"),
        ("Model", f"{scenario['stored']}, on {gpus} × {scenario['gpu']} ({layout})"),
        ("Engine", f"{scenario['engine']}, {scenario['scheduler']}, {mode}; {scenario['limits']}"),
        ("Traffic", "; ".join([traffic["description"], ", ".join(counts), *traffic["notes"]])),
        ("Verdict", f"{verdict['name']}: {verdict['reason']}"),
    ]


def _latency_table(summary: dict[str, Any], *, of_several: bool) -> Table:
    from rich import box
    from rich.table import Table

    sound = summary["verdict"]["operating_point"]
    title = "Whole run"
    title += f" of seed {summary['scenario']['seed']}" if of_several else ""
    title += ", in ms from arrival"
    title += " (as vllm bench serve)" if sound else f" · {NO_OPERATING_POINT}, see verdict"
    table = Table(
        title=title, title_justify="left", title_style="none", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("", no_wrap=True)
    for name in _COLUMNS:
        table.add_column(name, justify="right", no_wrap=True, min_width=9)
    for metric, short in SHORT_OF.items():
        values = summary["latency_ms"].get(metric, {})
        cells = [_ms(values.get(name)) for name in _COLUMNS]
        if not sound:
            cells = [f"({cell})" for cell in cells]
        table.add_row(short, *cells)
    return table


def _use(summary: dict[str, Any]) -> list[tuple[str, str]]:
    rates, cache, steps = summary["throughput"], summary["kv_cache"], summary["steps"]
    prefix = f"prefix hits {_percent(cache['prefix_hit_frac'])} of prompt tokens"
    if cache["prefix_bound_frac"] is not None:
        prefix += f" (unlimited cache: {_percent(cache['prefix_bound_frac'])}"
        blocks = cache["trace_blocks"]
        if blocks is not None:
            seen, size = _percent(blocks["seen_before_frac"]), blocks["block_tokens"]
            prefix += f", or {seen} of the trace's prompt blocks of {size} tokens"
        prefix += ")"
    seqs = steps["mean_seqs"]
    return [
        (
            "Throughput",
            f"{rates['requests_per_s']:,.2f} requests/s, "
            f"{rates['output_tokens_per_s']:,.0f} output tokens/s, "
            f"{rates['total_tokens_per_s']:,.0f} tokens/s in all, over "
            f"{rates['duration_s']:,.1f} s; at most {rates['max_in_flight']:,} in flight",
        ),
        (
            "KV cache",
            f"peak {_percent(cache['peak_frac'])}, mean {_percent(cache['mean_frac'])}; "
            f"{_preemptions(cache)}; {prefix}",
        ),
        (
            "Steps",
            f"{steps['count']:,}, with {'–' if seqs is None else f'{seqs:,.1f}'} sequences on "
            f"average; busy {_percent(steps['busy_frac'])} of the time; at most "
            f"{steps['waiting_max']:,} left unscheduled by a step",
        ),
    ]


def _objectives(summary: dict[str, Any]) -> list[tuple[str, str]]:
    slo = summary["slo"]
    if slo is None:
        return []
    sound, so_far = summary["verdict"]["operating_point"], summary["verdict"]["growing"]
    own = [one for one in slo["classes"] if one["objectives"]]
    indent = "  " if own else ""
    rows = [("SLO", slo["reason"])]
    if own and slo["objectives"]:
        rows.append(("", f"all but {', '.join(one['name'] for one in own)}:"))
    rows += [("", indent + _objective(one, sound, so_far)) for one in slo["objectives"]]
    for one in slo["classes"]:
        rows.append(("", f"{one['name']}, {_count(one['requests'], 'request')}{_goodness(one)}"))
        rows += [
            ("", indent + _objective(objective, sound, so_far)) for objective in one["objectives"]
        ]
    if slo["goodput_per_s"] is not None:
        rows.append(("", f"{'together' if slo['classes'] else 'all of them'}{_goodness(slo)}"))
    return rows


def _objective(one: dict[str, Any], sound: bool, so_far: bool) -> str:
    asked = f"{one['name']} ≤ {one['limit_ms']:g} ms"
    if one["attained_frac"] is not None:
        came = f"{_percent(one['attained_frac'])} of requests"
    elif one["value_ms"] is None and not one["met"]:
        came = TOO_FEW_ANSWERED
    else:
        came = f"{_ms(one['value_ms'])} ms"
    kept = "met so far" if so_far else "met"
    word = (kept if one["met"] else "missed") if sound else NO_OPERATING_POINT
    return f"{asked}: {came}, {word}"


def _goodness(one: dict[str, Any]) -> str:
    if one["good_frac"] is None:
        return ""
    good = f"{_percent(one['good_frac'])} of requests"
    return f": {good}, goodput {one['goodput_per_s']:,.2f} requests/s"


def _notes(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what the latencies leave out, and what they rest on."""
    remark = summary["scenario"]["remark"]
    remarks = [("Note", f"{remark}.")] if remark else []
    return [*remarks, *_left_out(summary["traffic"]), *_basis(summary)]


def _left_out(traffic: dict[str, Any]) -> list[tuple[str, str]]:
    gave_up = traffic["timed_out"] + traffic["cancelled"]
    if not gave_up:
        return []
    share = _percent(gave_up / traffic["requests"])
    said = f"{share} of the requests were given up by their clients. Latencies and throughput "
    said += "are of those that were answered; to a percentile objective, a time-out is too late."
    return [("Note", said)]


def _basis(summary: dict[str, Any]) -> list[tuple[str, str]]:
    scenario = summary["scenario"]
    assumed = _count(scenario["assumed_numbers"], "assumed number")
    priced = scenario["priced_from"]
    if priced is None:
        estimate = f"{scenario['latency']} estimate"
        return [("Note", f"Latencies are a {estimate}, not a measurement; they rest on {assumed}.")]
    shares = ", ".join(
        f"{share:.0%} {source}"
        for source, share in sorted(priced["shares"].items(), key=lambda one: -one[1])
        if share >= _SMALLEST_SHARE
    )
    said = f"Latencies come from the {priced['kind']} profile {priced['profile']}: {shares} of the "
    notes = [("Note", f"{said}simulated time. The GPU's data has {assumed}.")]
    return notes + [("", warning) for warning in priced["warnings"]]


def _preemptions(cache: dict[str, Any]) -> str:
    if not cache["preemptions"]:
        return "no preemptions"
    requests = _count(cache["preempted_requests"], "request")
    return f"{_count(cache['preemptions'], 'preemption')} of {requests}"


def _ms(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.1f}" if value < _ONE_DECIMAL_BELOW else f"{value:,.0f}"


def _percent(frac: float | None) -> str:
    return "–" if frac is None else f"{frac:.1%}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
