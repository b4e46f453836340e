"""The page of a plan: the cheapest deployment that keeps an SLO, and what surrounds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simserve.report.charts.bars import Part, parts_bars
from simserve.report.charts.load import Line, Panel, Point, curves, pareto
from simserve.report.intervals import NO_INTERVAL, with_half_width
from simserve.report.page.markup import Child, element, paragraphs, table
from simserve.report.page.parts import Page, Section, Shown, code, count, details, number, tiles

_REMOVED = {
    "impossible": "cannot be built or priced",
    "offer": "no machine on offer",
    "memory": "does not fit into memory",
    "latency": "too slow even alone",
    "rate": "more work than time",
    "price": "dearer than the answer",
    "short_run": "lost in short runs",
    "whole_runs": "lost in whole runs",
}
_MS_PER_S = 1000
_HEAD = ["plan", "US$/hour", "SLO kept", "at least", "TTFT p95, ms", "TPOT p95, ms"]

Plan = Mapping[str, Any]


def plan_page(entry: Mapping[str, Any]) -> Page:
    """Return the page of what ``simserve plan --json`` printed."""
    scenario, winner = entry["scenario"], entry["winner"]
    found = (
        ("bad", "no plan keeps the SLO")
        if winner is None
        else ("good", f"${winner['usd_per_hour']:,.2f} an hour")
    )
    sections = [Section("In short", _short(entry)), Section("What was ruled out", _removed(entry))]
    if winner is not None:
        sections += [
            Section("Price against latency", _prices(entry)),
            Section("Speed for one, throughput for all", _speeds(entry)),
            Section("Plans around it", _around(entry)),
            Section("What the load rests on", _inputs(entry)),
            Section("More users at once", _users(entry)),
            Section("Start it", _start(winner)),
        ]
    return Page(
        title=f"The cheapest way to serve {scenario['name']}",
        kind="Plan, from simulations",
        subtitle=f"{scenario['model']}, {scenario['load']}: {scenario['slo']} ms",
        badges=[found],
        sections=[*sections, Section("What this rests on", _basis(entry))],
    )


def _short(entry: Mapping[str, Any]) -> list[Child | Shown]:
    winner = entry["winner"]
    if winner is None:
        return [element("p", f"{entry['reason']}.")]
    said = [
        f"{winner['name']} is the cheapest of {entry['plans']:,} plans that keeps the SLO: "
        f"${winner['usd_per_hour']:,.2f} an hour.",
        f"It keeps the SLO in {_kept(winner)}; the 95 % interval of that share is "
        f"{winner['probability_low']:.0%} to {winner['probability_high']:.0%}.",
    ]
    fresh = winner.get("fresh_seeds")
    if fresh is not None:
        said[1] += f" With fresh seeds, by which nothing was chosen, it does in {_kept(fresh)}."
    if entry["unconfirmed"]:
        earlier = count(len(entry["unconfirmed"]), "plan")
        said.append(f"{earlier} before it failed with fresh seeds.")
    other = entry.get("alternative")  # not in answers of older versions
    if other is not None:
        said.append(
            f"For the same price {other['name']} uses at most {other['most_used_of_a_limit']:.0%} "
            f"of a limit, the answer {winner['most_used_of_a_limit']:.0%}; its weights or KV "
            "values are coarser."
        )
    said += [
        f"With {count(one['spares'], 'spare')} it costs ${one['usd_per_hour']:,.2f} an hour."
        for one in winner.get("fleets", ())
        if one["spares"]
    ]
    warning = winner.get("offers", {}).get("warning")
    if warning is not None:
        said.append(f"Warning: {warning}.")
    entries = [
        ("Price", f"${winner['usd_per_hour']:,.2f}", "an hour", winner["offer"]["name"]),
        ("GPUs", f"{winner['gpus']}", "", count(winner["replicas"], "replica")),
        ("TTFT p95", _latency(winner, "ttft_p95"), "ms", ""),
        ("TPOT p95", _latency(winner, "tpot_p95"), "ms", ""),
    ]
    return [paragraphs(said), tiles(entries)]


def _kept(one: Plan) -> str:
    return f"{one['kept']} of {one['runs']} runs"


def _latency(one: Plan, name: str) -> str:
    found = one["latency_ms"].get(name)
    if found is None:
        return NO_INTERVAL
    if found["half_width"] is None:
        return number(found["value"])
    return with_half_width(found["value"], found["half_width"])


def _removed(entry: Mapping[str, Any]) -> list[Child | Shown]:
    parts = [
        Part(_REMOVED.get(name, name), amount, f"{amount:,}")
        for name, amount in entry["removed"].items()
        if amount
    ]
    said = (
        f"{entry['candidates']:,} settings and {entry['plans']:,} plans (settings with a number of "
        f"replicas) were looked at; {entry['runs']['outcomes']:,} simulations decided."
    )
    if not parts:
        return [element("p", said)]
    return [
        element("p", said),
        Shown(
            name="ruled-out",
            figure=parts_bars(parts, "plans"),
            title="Why the others are not the answer",
            alt="; ".join(f"{part.name}: {part.words}" for part in parts),
            caption="A plan is a setting with a number of replicas.",
        ),
    ]


def _prices(entry: Mapping[str, Any]) -> list[Child | Shown]:
    winner, front = entry["winner"], entry["front_price_ttft"]
    named = {one["name"] for one in (winner, *front)}
    others = [one for one in entry["settings"] + entry["replicas"] if one["name"] not in named]
    lines = (
        Line(name="no plan is better in both", points=_points(front, by_price=True)),
        Line(name="other plans", points=_points(others), joined=False),
        Line(name="the answer", points=_points([winner]), joined=False),  # on top
    )
    limits = dict(one.partition(":")[::2] for one in entry["scenario"]["slo"].split())
    asked = limits.get("ttft_p95")
    panel = Panel(
        title="TTFT p95",
        y_label="ms",
        lines=tuple(line for line in lines if line.points),
        limit=None if asked is None else float(asked),
        limit_name="" if asked is None else f"asked: {asked} ms",
        log=True,
    )
    return [
        Shown(
            name="price-latency",
            figure=curves([panel], "US$ an hour"),
            title="Price against time to first token",
            alt="; ".join(
                f"{one['name']}: ${one['usd_per_hour']:,.2f} an hour, "
                f"TTFT p95 {_latency(one, 'ttft_p95')} ms"
                for one in front
            ),
            caption=(
                "Left is cheaper, down is faster. Bars are 95 % intervals over the runs. Plans "
                "that do not keep the SLO in every run are hollow."
            ),
        ),
        _table(
            front if winner["name"] in {one["name"] for one in front} else [winner, *front],
            "Plans that no other beats in price and TTFT, and the answer",
        ),
    ]


def _points(plans: Sequence[Plan], *, by_price: bool = False) -> tuple[Point, ...]:
    if by_price:
        plans = sorted(plans, key=lambda one: float(one["usd_per_hour"]))
    found = []
    for one in plans:
        ttft = one["latency_ms"].get("ttft_p95")
        if ttft is not None:
            note = f"{one['name']}: SLO kept in {_kept(one)}"
            found.append(_point(one, one["usd_per_hour"], ttft, note))
    return tuple(found)


def _point(one: Plan, x: float, found: Mapping[str, Any], note: str) -> Point:
    """Return a latency with its interval, hollow where not every run keeps the SLO."""
    value, half = found["value"], found["half_width"]
    return Point(
        x=x,
        y=value,
        low=None if half is None else max(value - half, 0.0),
        high=None if half is None else value + half,
        sound=one["kept"] == one["runs"],
        note=note,
    )


def _speeds(entry: Mapping[str, Any]) -> list[Child | Shown]:
    points = tuple(
        Point(
            x=_MS_PER_S / tpot["value"],
            y=one["output_tokens_per_s_per_gpu"],
            note=one["name"],
        )
        for one in (*entry["front_gpu_user"], *entry["front_price_ttft"])
        if (tpot := one["latency_ms"].get("tpot_p50")) is not None
        and one["output_tokens_per_s_per_gpu"] is not None
    )
    if len(points) < 2:
        return []
    axes = ("tokens/s for one user (1 / median TPOT)", "output tokens/s per GPU")
    return [
        Shown(
            name="pareto",
            figure=pareto([Line(name="", points=points)], *axes, ""),
            title="The choice between speed and use of the GPUs",
            alt="; ".join(
                f"{one.note}: {one.x:,.0f} tokens/s, {one.y:,.0f} a GPU" for one in points
            ),
            caption="Right is faster for a user, up is more from every GPU, at the load asked for.",
        )
    ]


def _around(entry: Mapping[str, Any]) -> list[Child | Shown]:
    body: list[Child | Shown] = []
    if entry["replicas"]:
        rows = [[one["what"], *_row(one)] for one in entry["replicas"]]
        body.append(table(["fleet", *_HEAD], rows, "More and fewer replicas", texts=2))
    if entry["settings"]:
        body.append(_table(entry["settings"], "Other settings of the same GPUs"))
    return body


def _table(plans: Sequence[Plan], caption: str) -> Child:
    return table(_HEAD, [_row(one) for one in plans], caption)


def _row(one: Plan) -> list[Child]:
    return [
        one["name"],
        f"{one['usd_per_hour']:,.2f}",
        _kept(one),
        f"{one['probability_low']:.0%}",
        _latency(one, "ttft_p95"),
        _latency(one, "tpot_p95"),
    ]


def _inputs(entry: Mapping[str, Any]) -> list[Child | Shown]:
    rows = []
    for one in entry["inputs"]:
        source = f"{one['kind']}: {one['source']}" if "kind" in one else "given"
        ends = [f"{number(end['value'])}: {_kept(end)}" for end in one["ends"]]
        rows.append([one["name"].replace("_", " "), source, number(one["value"]), *ends])
    if not rows:
        return []
    head = ["assumption", "source", "value", "SLO kept, low end", "SLO kept, high end"]
    return [table(head, rows, "What is assumed of the people who use it", texts=2)]


def _users(entry: Mapping[str, Any]) -> list[Child | Shown]:
    rows = [
        [
            f"{one['users']:,}",
            one["plan"],
            _kept(one),
            _latency(one, "ttft_p95"),
            _latency(one, "tpot_p95"),
        ]
        for one in entry["users"]
    ]
    if not rows:
        return []
    head = ["users", "plan", "SLO kept", "TTFT p95, ms", "TPOT p95, ms"]
    panels = [
        _panel(entry["users"], name, title, entry["scenario"]["slo"])
        for name, title in (("ttft_p95", "TTFT p95"), ("tpot_p95", "TPOT p95"))
    ]
    return [
        Shown(
            name="users",
            figure=curves([one for one in panels if one.lines], "users at once"),
            title="Latency against users at once",
            alt="; ".join(
                f"{row[0]} users, {row[1]}: TTFT {row[3]}, TPOT {row[4]}" for row in rows
            ),
            caption=(
                "Users ask again as soon as they are answered. Bars are 95 % intervals over the "
                "runs; where not every run keeps the SLO, points are hollow."
            ),
        ),
        table(head, rows, "What so many users at once see", texts=2),
    ]


def _panel(crowds: Sequence[Plan], name: str, title: str, slo: str) -> Panel:
    points: dict[str, list[Point]] = {}
    for one in crowds:
        found = one["latency_ms"].get(name)
        if found is not None:
            note = f"{one['users']:,} users, {one['plan']}: {_latency(one, name)} ms"
            points.setdefault(one["plan"], []).append(_point(one, one["users"], found, note))
    asked = dict(word.partition(":")[::2] for word in slo.split()).get(name)
    return Panel(
        title=title,
        y_label="ms",
        lines=tuple(Line(name=plan, points=tuple(line)) for plan, line in points.items()),
        limit=None if asked is None else float(asked),
        limit_name="" if asked is None else f"asked: {asked} ms",
    )


def _start(winner: Plan) -> list[Child | Shown]:
    body: list[Child | Shown] = []
    if winner["serve"]:
        body.append(code(winner["serve"]))
    body += [element("p", remark, class_="note") for remark in winner["remarks"]]
    if winner["compose"]:
        body.append(details("compose.yaml", code(winner["compose"])))
    return body


def _basis(entry: Mapping[str, Any]) -> list[Child | Shown]:
    winner, scenario = entry["winner"], entry["scenario"]
    body: list[Child | Shown] = []
    if winner is not None:
        offer = winner["offer"]
        body.append(
            element(
                "p",
                f"Price: {offer['name']}, {offer['terms']}; {offer['kind']}, {offer['source']} "
                f"({offer['date']}).",
            )
        )
    length = entry["runs"]["whole_requests"]
    each = "" if length is None else f" of {length:,} requests each"
    body.append(
        element(
            "p",
            f"Whole runs{each}, seed {scenario['seed']} and seeds that follow from it. Latencies "
            "are simulated; how far the latency model may be off is part of no interval.",
        )
    )
    return body
