"""The page of a bill: GPUs of one's own beside an API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simserve.report.charts.bars import Part, Swing, parts_bars, tornado
from simserve.report.cost_summary import LINES, fleet_words
from simserve.report.page.markup import Child, element, paragraphs, table
from simserve.report.page.parts import Page, Section, Shown, count, number, percent, tiles

_MILLION = 1e6


def cost_page(entry: Mapping[str, Any]) -> Page:
    """Return the page of what ``simserve cost --json`` printed."""
    now = entry["now"]
    met = ("good", "SLO met") if entry["meets_slo"] else ("bad", "SLO missed")
    return Page(
        title=f"What {entry['scenario']} costs",
        kind="Cost of a simulated deployment",
        subtitle=f"{entry['model']} on {entry['gpu']}, tp {entry['tp']}; {entry['today']}",
        badges=[met, ("plain", f"{number(entry['rate_per_s'])} requests/s")],
        sections=[
            Section("In short", [paragraphs(_words(entry)), _headline(entry)]),
            Section("The bill", _bill(now)),
            Section("Beside an API", _apis(entry)),
            Section("What would turn the answer", _swings(entry)),
            Section("What this rests on", _basis(entry)),
        ],
    )


def _words(entry: Mapping[str, Any]) -> list[str]:
    now, offer = entry["now"], entry["offer"]
    texts = [f"{fleet_words(entry['fleets'])}."] if "fleets" in entry else []
    texts += [
        f"{count(now['gpus_paid'], 'GPU')} at ${offer['usd_per_gpu_hour']:,.2f} an hour "
        f"({offer['name']}, {offer['terms']}) come to ${now['usd']:,.0f} a month for "
        f"{entry['tokens_per_day'] / _MILLION:,.0f} million tokens a day. "
        f"{percent(now['overhead_frac'])} of that is not serving: idle time, spares, hours without "
        "traffic."
    ]
    cheapest = min(entry["apis"], key=lambda one: float(one["usd_per_month"]), default=None)
    if cheapest is None:
        texts.append("No API in the price list sells this model.")
    else:
        ratio = cheapest["self_host_ratio"]
        texts.append(
            f"The cheapest API, {cheapest['name']}, would bill ${cheapest['usd_per_month']:,.0f}: "
            f"GPUs of one's own cost {number(ratio)} times as much at this load. "
            f"{_break_even(cheapest)}"
        )
        if cheapest["kind"] == "assumed":
            texts.append(f"The price of that API is assumed ({cheapest['source']}).")
    return texts


def _break_even(one: Mapping[str, Any]) -> str:
    found, best, worst = (
        one[name]["first_mtok_per_day"]
        for name in ("break_even", "break_even_at_best", "break_even_at_worst")
    )
    if found is None:
        return "There is no load at which they become cheaper."
    ends = [
        f"{number(load)} {which}" if load is not None else f"at no load {which}"
        for load, which in ((best, "at best"), (worst, "at worst"))
    ]
    return f"They break even at {number(found)} million tokens a day ({', '.join(ends)})."


def _headline(entry: Mapping[str, Any]) -> Child:
    now = entry["now"]
    per_mtok = now["usd_per_mtok"]
    entries = [
        ("A month", f"${now['usd']:,.0f}", "", f"{count(now['gpus_paid'], 'GPU')} paid"),
        ("Per million tokens", _usd(now["blended_usd_per_mtok"]), "", "prompts and output"),
        ("Output tokens", _usd(per_mtok["output"]), "per million", ""),
        ("A request", _usd(now["usd_per_request"]), "", ""),
    ]
    return tiles(entries)


def _usd(value: float | None) -> str:
    if value is None:
        return "–"
    return f"${value:,.2f}" if value >= 1 else f"${value:.3g}"


def _bill(now: Mapping[str, Any]) -> list[Child | Shown]:
    lines = {LINES.get(name, name): usd for name, usd in now["lines"].items() if usd}
    parts = [
        Part(name, usd, f"${usd:,.0f} ({usd / now['usd']:.0%})") for name, usd in lines.items()
    ]
    said = ", ".join(f"{part.name} {part.words}" for part in parts)
    return [
        Shown(
            name="bill",
            figure=parts_bars(parts, "US$ a month"),
            title="Whose the dollars are",
            alt=f"Bars of the monthly bill: {said}.",
            caption="GPU time of each step says whose the dollars are. The lines sum to the bill.",
        )
    ]


def _apis(entry: Mapping[str, Any]) -> list[Child | Shown]:
    if not entry["apis"]:
        return []
    own = Part("GPUs of one's own", entry["now"]["usd"], f"${entry['now']['usd']:,.0f}")
    parts = [own]
    parts += [
        Part(one["name"], one["usd_per_month"], f"${one['usd_per_month']:,.0f}")
        for one in entry["apis"]
    ]
    rows = [
        [
            one["name"],
            f"{one['kind']}: {one['source']} ({one['date']})",
            f"${one['usd_per_month']:,.0f}",
            f"{one['self_host_ratio']:,.2f}",
            _mtok(one["break_even"]),
            _band(one),
        ]
        for one in entry["apis"]
    ]
    head = ["API", "price from", "a month", "own / API", "break-even, M tokens/day", "band"]
    return [
        Shown(
            name="own-or-api",
            figure=parts_bars(parts, "US$ a month"),
            title="The same load, GPUs or an API",
            alt="; ".join(f"{part.name} {part.words} a month" for part in parts),
            caption="The same requests, billed by the hour or by the token.",
        ),
        table(head, rows, "APIs that sell the model", texts=2),
    ]


def _band(one: Mapping[str, Any]) -> str:
    best, worst = _mtok(one["break_even_at_best"]), _mtok(one["break_even_at_worst"])
    return best if best == worst else f"{best} at best, {worst} at worst"


def _mtok(found: Mapping[str, Any]) -> str:
    value = found["first_mtok_per_day"]
    return "at no load" if value is None else number(value)


def _swings(entry: Mapping[str, Any]) -> list[Child | Shown]:
    swings = [
        Swing(
            one["input"]["name"],
            one["ratio_at_low"],
            one["ratio_at_high"],
            f"{number(one['input']['low'])} to {number(one['input']['high'])} "
            f"{one['input']['unit']}: {number(one['ratio_at_low'])} to "
            f"{number(one['ratio_at_high'])} times the API",
        )
        for one in entry["swings"]
        if one["ratio_at_low"] is not None and one["ratio_at_high"] is not None
    ]
    if not swings or not entry["apis"]:
        return []
    first = entry["apis"][0]
    return [
        Shown(
            name="cost-swings",
            figure=tornado(swings, first["self_host_ratio"], f"own bill / bill of {first['name']}"),
            title="How far each assumption moves the answer",
            alt="; ".join(f"{one.name}, {one.words}" for one in swings),
            caption="Below 1, GPUs of one's own are cheaper. The line is the answer as it stands.",
        )
    ]


def _basis(entry: Mapping[str, Any]) -> list[Child | Shown]:
    offer, capacity = entry["offer"], entry["capacity"]
    price = offer["usd_per_hour"]
    return [
        element(
            "p", f"A replica serves {number(capacity['per_s'])} requests/s: {capacity['basis']}."
        ),
        element("p", f"GPU price: {price['kind']}, {price['source']} ({price['date']})."),
        element("p", f"Assumed: {'; '.join(entry['assumed'])}.") if entry["assumed"] else None,
        *(element("p", text, class_="note") for text in entry["warnings"]),
        element(
            "p", f"Seed {entry['seed']}, scenario digest ", element("code", entry["digest"]), "."
        ),
    ]
