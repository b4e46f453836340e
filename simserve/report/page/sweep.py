"""The page of a sweep: one setting, or several, at many values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simserve.planning.sweep import DOES_NOT_FIT
from simserve.planning.sweep_files import Row
from simserve.report.charts.load import MOST_LINES, Line, Panel, Point, curves, pareto
from simserve.report.page.basis import basis_section, reproduce_section
from simserve.report.page.markup import Child, element, paragraphs, table
from simserve.report.page.parts import Page, Section, Shown, count, ms, number, percent
from simserve.report.page.sweep_lines import SweepView, is_sound, short, view_of

_MS_PER_S = 1000
_MOST_ROWS = 300
_COLUMNS = {
    "median_ttft_ms": "TTFT p50, ms",
    "p99_ttft_ms": "TTFT p99, ms",
    "median_tpot_ms": "TPOT p50, ms",
    "p99_tpot_ms": "TPOT p99, ms",
    "output_throughput": "output tokens/s",
    "request_goodput": "goodput/s",
    "kv_peak_frac": "KV peak",
}
_LATENCIES = (("ttft", "Time to first token"), ("tpot", "Time per output token"))


def sweep_page(rows: Sequence[Row], source: Path) -> Page:
    """Return the page of a sweep's rows; runs beside the table add their scenario.

    Raises:
        InputError: if they are no rows of a sweep.
    """
    view = view_of(rows, str(source))
    bench = _first_bench(view, source)
    resolved = None if bench is None else bench["simserve"]["resolved"]
    keys = " × ".join(short(key) for key in view.varied)
    sections = [
        Section("In short", [paragraphs(_words(view))]),
        _load_section(view, resolved),
        _pareto_section(view, resolved),
        Section("All points", _table(view)),
    ]
    if bench is not None and resolved is not None:
        latency = resolved["deployment"]["latency"]
        sections.append(basis_section(resolved, latency, None))
        digest, version = bench["simserve"]["scenario_digest"], bench["simserve"]["version"]
        sections.append(reproduce_section(resolved, digest, version, _command(view)))
    else:
        said = (
            "The table holds the settings that were varied and not the scenario they were varied "
            "in. A sweep into a folder (--out DIR) keeps it."
        )
        sections.append(Section("Run it again", [element("p", said)]))
    return Page(
        title=f"{_title(resolved, source)}: {keys}",
        kind="Simulated sweep",
        subtitle=_subtitle(resolved, view),
        badges=_badges(view),
        sections=sections,
    )


def _title(resolved: Mapping[str, Any] | None, source: Path) -> str:
    return source.stem if resolved is None else str(resolved["name"])


def _subtitle(resolved: Mapping[str, Any] | None, view: SweepView) -> str:
    points = count(len(view.rows), "point")
    if resolved is None:
        return f"{points}, same requests wherever the workload is the same"
    deployment = resolved["deployment"]
    model, gpu, engine = deployment["model"], deployment["gpu"], deployment["engine"]
    return f"{model['name']} on {gpu['name']}, {engine['name']} {engine['version']}: {points}"


def _badges(view: SweepView) -> list[tuple[str, str]]:
    looks = {"stable": "good", "overloaded": "bad", DOES_NOT_FIT: "bad"}
    counts = Counter(row["verdict"] for row in view.rows)
    badges = [(looks.get(name, "warn"), f"{amount} {name}") for name, amount in counts.items()]
    judged = [row["slo_met"] for row in view.rows if "slo_met" in row]
    if judged:
        met = sum(judged)
        badges.append(("good" if met else "bad", f"{met} of {len(view.rows)} meet the SLO"))
    return badges


def _words(view: SweepView) -> list[str]:
    """Return what came out, in sentences."""
    fitting = view.fitting
    keys = " and ".join(map(short, view.varied))
    said = [f"{count(len(view.rows), 'point')}, which differ in {keys}"]
    unfit = len(view.rows) - len(fitting)
    if unfit:
        said.append(f"{unfit} that do not fit on the GPUs")
    bad = sum(not is_sound(row) for row in fitting)
    if bad:
        said.append(f"{bad} overloaded, so that latencies there are no operating points")
    texts = ["; ".join(said) + "."]
    judged = [row for row in fitting if row.get("slo_met")]
    pool = judged or [row for row in fitting if is_sound(row)]
    best = max(pool, key=lambda row: float(row["output_throughput"]), default=None)
    if best is not None:
        which = "that meet the SLO" if judged else "with an operating point"
        texts.append(
            f"Of the points {which}, {view.describe(best)} gives most: "
            f"{number(best['output_throughput'])} output tokens/s"
            + (f", TTFT p99 {ms(best['p99_ttft_ms'])} ms" if "p99_ttft_ms" in best else "")
            + (f", TPOT p99 {ms(best['p99_tpot_ms'])} ms." if "p99_tpot_ms" in best else ".")
        )
    if any("slo_met" in row for row in fitting) and not judged:
        texts.append("No point meets the SLO.")
    texts.append(
        "Every point is one run with one seed. Differences of a few percent may be chance: "
        "simserve run --replications gives intervals."
    )
    return texts


def _load_section(view: SweepView, resolved: Mapping[str, Any] | None) -> Section:
    limits = _limits(resolved)
    panels = []
    for metric, name in _LATENCIES:
        lines = view.lines("output_throughput", f"p99_{metric}_ms")
        if lines:
            limit, said = limits.get(metric, (None, ""))
            panels.append(
                Panel(
                    title=f"{name}, p99",
                    y_label="ms",
                    lines=lines,
                    limit=limit,
                    limit_name=said,
                    log=True,
                )
            )
    body: list[Child | Shown] = []
    if panels:
        body.append(
            Shown(
                name="throughput-latency",
                figure=curves(panels, "output tokens per second"),
                title="Latency against throughput",
                alt="The 99th percentile of TTFT and TPOT over output tokens per second. "
                + "; ".join(view.describe(row) for row in view.fitting[:6]),
                caption=(
                    f"Each point is one run; a line joins those that differ in {short(view.axis)} "
                    "only. Hollow points are overloaded: their latency depends on how long they "
                    f"were watched. {_left_out(view)}"
                ),
            )
        )
    served = _served_panels(view)
    if served:
        body.append(
            Shown(
                name="goodput",
                figure=curves(served, short(view.axis), view.axis_words),
                title="What is served",
                alt=f"Requests and goodput per second over {short(view.axis)}.",
                caption=(
                    "Goodput counts the requests that meet every objective asked of each."
                    if any("request_goodput" in row for row in view.fitting)
                    else "Without objectives asked of each request there is no goodput."
                ),
            )
        )
    return Section("Latency and load", body)


def _served_panels(view: SweepView) -> list[Panel]:
    columns = {
        "request_throughput": "Requests served per second",
        "request_goodput": "Goodput: requests per second within the SLO",
        "output_throughput": "Output tokens per second",
    }
    found = [
        Panel(title=title, y_label="", lines=lines)
        for column, title in columns.items()
        if (lines := view.lines(None, column))
    ]
    return found[:2]


def _limits(resolved: Mapping[str, Any] | None) -> dict[str, tuple[float, str]]:
    """Return the limit of TTFT and TPOT, and what is said beside its line."""
    found = {}
    for one in (resolved or {}).get("slo") or ():
        which = one["metric"] if one["percentile"] is None else f"p{one['percentile']:g}"
        said = "each request" if one["percentile"] is None else which
        found[one["metric"]] = (one["limit_ms"], f"limit of {said}: {one['limit_ms']:g} ms")
    return found


def _left_out(view: SweepView) -> str:
    hidden = len(view.groups) - MOST_LINES
    if hidden <= 0:
        return ""
    return f"{hidden} of {len(view.groups)} lines are not drawn; the table has every point."


def _pareto_section(view: SweepView, resolved: Mapping[str, Any] | None) -> Section:
    lines = []
    for name, rows in view.groups.items():
        points = [
            Point(
                x=_MS_PER_S / float(row["median_tpot_ms"]),
                y=float(row["output_throughput"]) / _gpus(row, resolved),
                sound=is_sound(row),
                note=f"{view.describe(row)}: {row['verdict']}",
            )
            for row in rows
            if row.get("median_tpot_ms")
        ]
        if points:
            lines.append(Line(name=name, points=tuple(points)))
    if sum(len(line.points) for line in lines) < 2:
        return Section("Speed and cost", [])
    per_gpu = "output tokens/s per GPU" if resolved is not None else "output tokens/s"
    figure = pareto(lines, "tokens/s for one user (1 / median TPOT)", per_gpu, "")
    return Section(
        "Speed for one, throughput for all",
        [
            Shown(
                name="pareto",
                figure=figure,
                title="The choice between speed and throughput",
                alt=f"{per_gpu} over tokens per second of one user, with the Pareto front.",
                caption=(
                    "Up is cheaper, right is faster for the user. Points on the dashed line are "
                    f"beaten by no other run of this sweep. {_left_out(view)}"
                ),
            )
        ],
    )


def _gpus(row: Row, resolved: Mapping[str, Any] | None) -> float:
    if resolved is None:
        return 1.0
    value = dict.fromkeys(("tp", "replicas"), 0)
    for key in value:
        value[key] = resolved["deployment"][key]
        value[key] = next((row[name] for name in row if short(name) == key), value[key])
    return float(value["tp"] * value["replicas"])


def _table(view: SweepView) -> list[Child | Shown]:
    columns = [name for name in _COLUMNS if any(name in row for row in view.rows)]
    judged = any("slo_met" in row for row in view.rows)
    head = [*map(short, view.varied), "verdict", *(["SLO"] if judged else [])]
    rows = []
    for row in view.rows[:_MOST_ROWS]:
        slo = {True: "met", False: "missed"}.get(row.get("slo_met"), "–")  # type: ignore[arg-type]
        cells: list[Child] = [str(row[key]) for key in view.varied]
        cells += [row["verdict"], *([slo] if judged else [])]
        rows.append([*cells, *(_cell(name, row) for name in columns)])
    body: list[Child | Shown] = [
        table([*head, *(_COLUMNS[name] for name in columns)], rows, "One row per point")
    ]
    if len(view.rows) > _MOST_ROWS:
        body.append(
            element("p", f"The first {_MOST_ROWS} of {len(view.rows)} points.", class_="note")
        )
    unfit = [row for row in view.rows if row.get("reason")]
    body += [
        element("p", f"{view.describe(row)} does not fit: {row['reason']}", class_="note")
        for row in unfit[:_MOST_ROWS]
    ]
    return body


def _cell(name: str, row: Row) -> str:
    value = row.get(name)
    if name.endswith("_ms"):
        return ms(value)
    return percent(value) if name.endswith("_frac") else number(value)


def _first_bench(view: SweepView, source: Path) -> dict[str, Any] | None:
    """Return the result file of the first point that has one beside the table."""
    folder = (source if source.is_dir() else source.parent) / "runs"
    for row in view.fitting:
        path = folder / f"{str(row.get('scenario_digest'))[:16]}.json"
        try:
            bench: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return bench if "resolved" in bench["simserve"] else None
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return None


def _command(view: SweepView) -> str:
    """Return the sweep over the scenario of the first point."""
    axes = []
    for key in view.varied:
        values = ",".join(dict.fromkeys(str(row[key]) for row in view.rows))
        axes.append(f"--vary '{key}={values}'")
    together = len(view.rows) != _product(view)
    note = "\n# some keys were linked: add --link KEY1=KEY2" if together else ""
    return f"simserve sweep scenario.yaml {' '.join(axes)} --out sweep{note}"


def _product(view: SweepView) -> int:
    size = 1
    for key in view.varied:
        size *= len({str(row[key]) for row in view.rows})
    return size
