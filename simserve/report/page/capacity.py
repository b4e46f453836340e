"""The page of a capacity: the highest load that meets the SLO, and the way there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simserve.report.charts.load import Line, Panel, Point, curves
from simserve.report.intervals import SHORT_OF
from simserve.report.page.markup import Child, element, table
from simserve.report.page.parts import Page, Section, Shown, ms, number, percent, tiles


def capacity_page(entry: Mapping[str, Any]) -> Page:
    """Return the page of what ``simserve capacity --json`` printed."""
    scenario, unit, load = entry["scenario"], entry["unit"], entry["capacity"]
    asked = ", ".join(f"{name} ms" for name in scenario["slo"])
    found = load is not None
    return Page(
        title=f"Capacity of {scenario['name']}",
        kind="Simulated capacity",
        subtitle=f"The highest load that meets {asked}",
        badges=[("good", f"{number(load)} {unit}") if found else ("bad", "no load meets the SLO")],
        sections=[
            Section("In short", _short(entry)),
            Section("Loads that were tried", [*_figures(entry), _table(entry)]),
            Section("What this rests on", [_basis(entry)]),
        ],
    )


def _short(entry: Mapping[str, Any]) -> list[Child | Shown]:
    unit, load = entry["unit"], entry["capacity"]
    if load is None:
        return [element("p", "Not even an idle server meets these objectives.")]
    said = f"The deployment carries {number(load)} {unit}"
    if entry["low"] is not None and entry["high"] is not None:
        said += f"; by chance it might be from {number(entry['low'])} to {number(entry['high'])}"
    said += {
        None: ". No higher load was found that breaks it.",
        "load": ". Above it the queue grows without end, before any objective is missed.",
    }.get(entry["limited_by"], f". The limit is set by {entry['limited_by']}.")
    entries = [("Capacity", number(load), unit, "")]
    if entry["low"] is not None and entry["high"] is not None:
        low, high = number(entry["low"]), number(entry["high"])
        entries.append(("Interval", f"{low}–{high}", unit, "95 %"))
    if entry["knee"] is not None:
        entries.append(("Knee", number(entry["knee"]), unit, "from here on latency rises"))
    entries.append(
        ("Loads tried", str(entry["loads_tested"]), "", f"{entry['replications']} runs each")
    )
    notes = [element("p", f"{entry['remark']}.", class_="note")] if entry.get("remark") else []
    return [element("p", said), tiles(entries), *notes]


def _figures(entry: Mapping[str, Any]) -> list[Shown]:
    tests = sorted(entry["frontier"], key=lambda test: float(test["load"]))
    panels = []
    for name in dict.fromkeys(name for test in tests for name in test["latency_ms"]):
        points = tuple(
            Point(
                x=test["load"],
                y=one["value"],
                low=one.get("low"),
                high=one.get("high"),
                sound=test["steady"],
                note=f"{number(test['load'])} {entry['unit']}: {ms(one['value'])} ms",
            )
            for test in tests
            if (one := test["latency_ms"].get(name)) is not None
        )
        metric, _, percentile = name.partition("_p")
        limit = _limit(entry["scenario"]["slo"], name, metric)
        panels.append(
            Panel(
                title=f"{SHORT_OF[metric]} p{percentile}",
                y_label="ms",
                lines=(Line(name="", points=points),),
                limit=limit,
                limit_name="" if limit is None else f"asked: {limit:g} ms",
                log=True,
            )
        )
    if not panels:
        return []
    return [
        Shown(
            name="capacity-latency",
            figure=curves(panels, f"load, {entry['unit']}"),
            title="Latency against load",
            alt="Percentiles of latency over load, with their limits.",
            caption=(
                "Bars are 95 % intervals over the replications. Hollow points have no steady "
                "state: their latency depends on how long they were watched."
            ),
        )
    ]


def _limit(slo: list[str], name: str, metric: str) -> float | None:
    """Return what the SLO asks of a percentile, or of each request."""
    limits = dict(one.partition(":")[::2] for one in slo)
    found = limits.get(name, limits.get(metric))
    return None if found is None else float(found)


def _table(entry: Mapping[str, Any]) -> Child:
    rows = []
    for test in sorted(entry["frontier"], key=lambda one: float(one["load"])):
        sure = test["surely_met"] or test["surely_missed"]
        word = ("met" if test["met"] else "missed") + ("" if sure else ", may be chance")
        kept = min((one["attained_frac"] for one in test["objectives"]), default=None)
        rows.append(
            [
                number(test["load"]),
                word if test["steady"] else f"{word}, not steady",
                percent(kept),
                *(_value(test[name]) for name in ("served_per_s", "output_tokens_per_s")),
            ]
        )
    head = ["load", "SLO", "kept by", "served/s", "output tokens/s"]
    return table(head, rows, f"Loads in {entry['unit']}")


def _value(one: Mapping[str, Any] | None) -> str:
    return "–" if one is None else number(one["value"])


def _basis(entry: Mapping[str, Any]) -> Child:
    return element(
        "p",
        f"Each load was simulated {entry['replications']} times with seeds of their own "
        f"(seed {entry['scenario']['seed']}); objectives per request are asked of "
        f"{entry['good_share']:.1%} of them. Scenario digest ",
        element("code", entry["scenario"]["digest"]),
        ".",
    )
