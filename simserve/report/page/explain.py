"""The page of an explanation: where a latency comes from, and what would change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simserve.planning.sensitivity import TP
from simserve.report.charts.bars import Swing, tornado
from simserve.report.intervals import SHORT_OF
from simserve.report.page.markup import Child, element, table
from simserve.report.page.parts import Page, Section, Shown, ms, number, percent
from simserve.report.page.where_time_goes import TITLE, waterfall_parts


def explain_page(entry: Mapping[str, Any]) -> Page:
    """Return the page of what ``simserve explain --json`` printed."""
    scenario, metric = entry["scenario"], entry["metric"]
    name = f"p{entry['percentile']:g} {SHORT_OF[metric]}"
    parts = {one["name"]: one["parts_ms"] for one in entry["bands"]}
    digest = element("code", scenario["digest"])
    return Page(
        title=f"{name} of {scenario['name']}",
        kind="Explanation of a simulated latency",
        subtitle=f"{ms(entry['value_ms'])} ms; the median is {ms(entry['median_ms'])} ms",
        badges=[("plain", entry["verdict"])],
        sections=[
            Section("In short", [element("p", entry["words"])]),
            Section(TITLE, [*waterfall_parts(metric, parts), *_who(entry)]),
            Section("What would change it", _counterfactuals(entry, name)),
            Section("What it depends on", _sensitivity(entry, name)),
            Section(
                "What this rests on",
                [
                    *(element("p", note) for note in entry["notes"]),
                    element("p", f"Seed {scenario['seed']}, scenario digest ", digest, "."),
                ],
            ),
        ],
    )


def _who(entry: Mapping[str, Any]) -> list[Child | Shown]:
    """Return who the requests around the percentile are; older answers do not say."""
    rows = [
        [one["name"], *(_trait(one, one[side]) for side in ("these", "all"))]
        for one in entry.get("who", ())
    ]
    if not rows:
        return []
    around = f"p{entry['percentile']:g}"
    return [table(["mean", f"around {around}", "all"], rows, f"The requests around {around}")]


def _trait(one: Mapping[str, Any], value: float) -> str:
    return percent(value) if one["is_share"] else number(value)


def _counterfactuals(entry: Mapping[str, Any], name: str) -> list[Child | Shown]:
    effects = entry["counterfactuals"]
    if entry["base"] is None or not effects:
        return []
    rows = [
        [one["name"], "; ".join([one["meaning"], *one["notes"]]), ms(one["value_ms"]), _change(one)]
        for one in [entry["base"], *effects]
    ]
    caption = f"{name}, {_runs(entry)}"
    return [table(["change", "what it means", "ms", "change, ms"], rows, caption, texts=2)]


def _runs(entry: Mapping[str, Any]) -> str:
    runs = entry["replications"]
    return "one run, so without intervals" if runs == 1 else f"mean of {runs} replications"


def _change(one: Mapping[str, Any]) -> str:
    if one["cannot_be_made"] is not None:
        return str(one["cannot_be_made"])
    change = one["change_ms"]
    if change is None:
        return "–"
    text = f"{change['value']:+,.1f}"
    if "low" in change:
        return f"{text} ({change['low']:+,.1f} to {change['high']:+,.1f})"
    return text


def _sensitivity(entry: Mapping[str, Any], name: str) -> list[Child | Shown]:
    base = entry["base"]
    if base is None or base["value_ms"] is None:
        return []
    swings = [
        Swing(
            one["input"],
            one["less"]["value_ms"],
            one["more"]["value_ms"],
            f"{one['shown']}: {ms(one['less']['value_ms'])} to {ms(one['more']['value_ms'])} ms",
        )
        for one in entry["sensitivity"]
        if one["less"]["value_ms"] is not None and one["more"]["value_ms"] is not None
    ]
    if not swings:
        return []
    moved = "a tenth less or more"
    if any(one.name == TP for one in swings):
        moved += ", and tp halved or doubled"
    return [
        Shown(
            name="sensitivity",
            figure=tornado(swings, base["value_ms"], f"{name}, ms"),
            title=f"{name} if one input is {moved}",
            alt=_said(swings),
            caption=(
                f"The line is the latency as it is, {number(base['value_ms'])} ms, "
                f"{_runs(entry)}. Each bar moves one input: {moved}."
            ),
        )
    ]


def _said(swings: Sequence[Swing]) -> str:
    return "; ".join(f"{one.name} {one.words}" for one in swings)
