"""What tokens cost, as text for a terminal; the numbers are those of ``cost_summary``."""

from __future__ import annotations

import math

from simserve.inputs.prices import GIVEN, how_chosen
from simserve.planning.break_even import BreakEven, Swing
from simserve.planning.cost import CostReport
from simserve.planning.fleet import TOKEN_KINDS, Bill
from simserve.planning.self_host_or_api import ApiComparison
from simserve.report.columns import filled, labelled
from simserve.report.cost_summary import (
    LINES,
    band_of,
    fleet_dollars,
    fleet_words,
    million_tokens_per_day,
    plain_sum,
)
from simserve.report.deployed import stored

_NONE = "–"
_NEVER = "at no load"
_IN_MILLIONS = 1e7  # as many dollars as a column of the table holds


def cost_report(report: CostReport) -> str:
    """Return the answer as text; no line is longer than 80 columns."""
    lines = labelled(_head(report))
    lines += ["", *_per_mtok(report), "", *_month(report.now), *_units(report)]
    lines += ["", *_apis(report)]
    if report.swings:
        lines += ["", *_swings(report)]
    return "\n".join([*lines, "", *_plain_words(report), "", *_notes(report)])


def _head(report: CostReport) -> list[tuple[str, str]]:
    scenario, rule, question = report.scenario, report.rule, report.question
    deployment, offer, bill = scenario.deployment, rule.offer, report.now
    price = f"${offer.usd_per_gpu_hour:,.2f} per GPU-hour: "
    if offer.provider == GIVEN:
        price += f"as given ({offer.price.source})"
    else:
        price += f"{offer.name}, {offer.terms}, of {offer.price.date}"
    if report.offers:
        price += f"; {how_chosen([one.usd_per_gpu_hour for one in report.offers])}"
    peak = f"sized for a peak of {rule.peak_to_mean:g} × that"
    fleet = f"{_count(bill.serving, 'replica')} for the load and {_count(bill.spares, 'spare')}: "
    fleet += f"{_count(bill.gpus_paid, 'GPU')}, paid {question.hours.paid:g} h a day, "
    fleet += f"with traffic {question.hours.active:g} h a day"
    model = stored(deployment.model.name, deployment.model.described())
    rows = [
        ("Scenario", f"{scenario.name} (seed {scenario.seed})"),
        ("Model", f"{model}, on {deployment.gpu.name} (tp {deployment.tp})"),
        ("Price", price),
        (
            "Load",
            f"{_rate(report.rate_per_s)} requests/s on average, "
            f"{_three_digits(report.tokens_per_day / 1e6)} M tokens a day; {peak}",
        ),
        (
            "Replica",
            f"serves {_rate(report.capacity.per_s)} requests/s ({report.capacity.basis})",
        ),
        ("Fleet", fleet),
        ("Answer", fleet_words(fleet_dollars(report))),
        ("Engineers", _engineers(report)),
    ]
    if not report.meets_slo:
        rows.insert(2, ("SLO", f"missed at this load: {report.point.reason}"))
    return rows


def _engineers(report: CostReport) -> str:
    question = report.question
    if not question.fte:
        return "$0: nobody's time is counted (--fte and --fte-cost count it)"
    return (
        f"{question.fte:g} at ${question.fte_usd_per_year:,.0f} a year: "
        f"${report.rule.fixed_usd_per_month:,.0f} a month"
    )


def _per_mtok(report: CostReport) -> list[str]:
    head = f"{'US$ per million tokens':<34}{'input':>10}{'cached':>10}{'output':>10}{'all':>10}"
    lines = [head]
    if report.at_slo is not None:
        lines.append(_mtok_row("a full replica, at the SLO", report.at_slo))
    else:
        lines.append("  a full replica, at the SLO: unknown, for want of an SLO or of a rate")
    lines.append(_mtok_row("the fleet, at this load", report.now))
    return lines


def _mtok_row(label: str, bill: Bill) -> str:
    cells = [_usd(bill.usd_per_mtok[kind]) for kind in TOKEN_KINDS]
    cells.append(_usd(bill.blended_usd_per_mtok))
    return f"  {label:<32}" + "".join(f"{cell:>10}" for cell in cells)


def _month(bill: Bill) -> list[str]:
    lines = [f"{'A month of the fleet':<36}{'US$':>12}{'share':>10}"]
    for name, usd in bill.lines.items():
        if usd or name in TOKEN_KINDS or name == "idle":
            lines.append(f"  {LINES[name]:<34}{usd:>12,.2f}{usd / bill.usd:>10.1%}")
    lines.append(f"  {'the bill':<34}{bill.usd:>12,.2f}")
    return lines


def _units(report: CostReport) -> list[str]:
    bill, energy = report.now, report.energy
    lines = [
        f"A request costs {_usd(bill.usd_per_request, '$')}. With the whole bill on output tokens "
        f"(the textbook sum), a million of them cost {_usd(plain_sum(report), '$')}."
    ]
    users = report.question.users
    if users:
        lines.append(f"Each of {users:,} users costs {_usd(bill.usd / users, '$')} a month.")
    parts = []
    if energy.tdp is not None and energy.tdp_j_per_output_token is not None:
        parts.append(
            f"at most {_three_digits(energy.tdp_j_per_output_token)} J in the GPUs while they are "
            f"busy ({energy.tdp.value:,.0f} W each, {energy.tdp.kind})"
        )
    if energy.all_in is not None and energy.all_in_j_per_output_token is not None:
        parts.append(
            f"{_three_digits(energy.all_in_j_per_output_token)} J with host, cooling and every "
            f"paid hour ({energy.all_in.value:,.0f} W a GPU, {energy.all_in.kind})"
        )
    said = "; ".join(parts) if parts else "unknown: no power figure of this GPU"
    lines.append(f"Energy for an output token: {said}.")
    return [line for text in lines for line in filled(text)]


def _apis(report: CostReport) -> list[str]:
    if not report.apis:
        return filled(
            f"No API in the price list sells {report.scenario.deployment.model.name}: name one to "
            "compare with (--api openai/gpt-4o-mini)."
        )
    lines = [
        f"{'The same requests at an API':<36}{'US$':>10}{'in batch':>11}{'fleet':>8}"
        f"{'pays from':>15}",
        f"{'':<36}{'a month':>10}{'':>11}{'/ API':>8}{'M tokens/day':>15}",
    ]
    for one in report.apis:
        lines += _api_row(report, one)
    return lines


def _api_row(report: CostReport, one: ApiComparison) -> list[str]:
    name, prices = one.bill.price.name, one.bill.price.prices
    batch = _NONE if one.batch_usd is None else _whole_usd(one.batch_usd)
    from_day = _from(report, one.break_even)
    cells = f"{_whole_usd(one.usd):>10}{batch:>11}{_ratio(one.self_host_ratio):>8}{from_day:>15}"
    first = [f"  {name:<34}{cells}"] if len(name) <= 34 else [f"  {name}", f"{'':<36}{cells}"]
    cached = "as input" if prices.cached_input is None else f"${prices.cached_input:g}"
    text = f"${prices.input:g} in, {cached} cached, ${prices.output:g} out per million; "
    text += _pays(_from(report, one.best), _from(report, one.worst))
    good = one.break_even.for_good_per_s
    if good is not None and good != one.break_even.first_per_s:
        text += f"; for good from {_tokens_per_day(report, good)}"
    return [*first, *filled(text, indent="    ", hang="    ")]


def _pays(best: str, worst: str) -> str:
    """Return from which load on the fleet pays, where the ranges are at their ends."""
    if best == worst:
        return f"pays {_NEVER}" if best == _NEVER else f"pays from {best}, best and worst"
    if worst == _NEVER:
        return f"pays from {best} at best, {_NEVER} at worst"
    return f"pays from {best} at best, {worst} at worst"


def _pays_between(low: str, high: str) -> str:
    """Return from which load on the fleet pays at the two ends of one input, in their order."""
    if low == high:
        return f"pays {_load_words(low)}" + ("" if low == _NEVER else " at both ends")
    return f"pays {_load_words(low)} or {_load_words(high)}"


def _load_words(from_day: str) -> str:
    return _NEVER if from_day == _NEVER else f"from {from_day} M tokens a day"


def _from(report: CostReport, found: BreakEven) -> str:
    if found.first_per_s is None:
        return _NEVER
    return _tokens_per_day(report, found.first_per_s)


def _tokens_per_day(report: CostReport, rate_per_s: float) -> str:
    return _three_digits(million_tokens_per_day(report, rate_per_s))


def _swings(report: CostReport) -> list[str]:
    lines = [
        f"{'What decides (one input at a time)':<36}{'from':>10}{'to':>10}{'fleet / ' + 'API':>24}"
    ]
    for one in report.swings:
        lines.append(_swing_row(one))
        ends = _from(report, one.break_even_at_low), _from(report, one.break_even_at_high)
        text = f"{one.input.unit}; the fleet {_pays_between(*ends)}; {one.input.kind}: "
        lines += filled(text + one.input.basis, indent="    ", hang="    ")
    return lines


def _swing_row(one: Swing) -> str:
    ends = [_ratio(one.ratio_at_low), _ratio(one.ratio_at_high)]
    ratios = " to ".join(dict.fromkeys(ends))
    low, high = _three_digits(one.input.low), _three_digits(one.input.high)
    return f"  {one.input.name:<34}{low:>10}{high:>10}{ratios:>24}"


def _plain_words(report: CostReport) -> list[str]:
    """Return the answer in words, all of it made from the numbers above."""
    band = band_of(report.tokens_per_day)
    per_day = _three_digits(report.tokens_per_day / 1e6)
    text = f"In plain words: {per_day} M tokens a day is {band.words}."
    if report.apis:
        cheapest = report.apis[0]
        name = cheapest.bill.price.name
        text += f" At this load the fleet costs {_ratio(cheapest.self_host_ratio)} times what "
        text += f"{name} asks, the cheapest API compared."
        if cheapest.bill.price.kind == "assumed":
            text += f" That price is assumed ({cheapest.bill.price.source})."
        first = cheapest.break_even.first_per_s
        if first is None:
            text += " It would not pay at any load: the API takes less for the requests of a "
            text += "replica than the replica costs."
        else:
            text += f" It begins to pay at {_tokens_per_day(report, first)} M tokens a day"
            best, worst = _from(report, cheapest.best), _from(report, cheapest.worst)
            text += f" (it {_pays(best, worst)})." if best != worst else "."
    decisive = [one for one in report.swings if one.size > 1]
    if decisive:
        text += f" What decides most is the {decisive[0].input.name}."
    text += " If the data may not leave the house, the API is no choice whatever it costs."
    text += " Whether another model answers as well is not compared."
    return filled(text)


def _notes(report: CostReport) -> list[str]:
    lines = [line for one in report.warnings for line in filled(f"Warning: {one}.", hang="  ")]
    lines += filled(
        "A mixed step's time is divided between prefill and decode in the ratio of what each "
        "would take alone; idle hours, spares and the like are spread over tokens in proportion."
    )
    if report.assumed:
        count = f"{len(report.assumed)} assumed values: "
        lines += filled(count + ", ".join(report.assumed), hang="  ")
    return lines


def _whole_usd(value: float) -> str:
    """Return dollars without cents, in at most nine columns."""
    return f"{value:,.0f}" if value < _IN_MILLIONS else f"{value / 1e6:,.0f} M"


def _usd(value: float | None, sign: str = "") -> str:
    """Return dollars with three digits that matter, or two decimals."""
    if value is None:
        return _NONE
    return f"{sign}{value:,.2f}" if value >= 10 else f"{sign}{_three_digits(value)}"


def _rate(per_s: float) -> str:
    """Return requests per second with up to three digits that matter, and no zeros behind."""
    text = _three_digits(per_s)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _three_digits(value: float) -> str:
    """Return a number with three digits that matter and no exponent: 0.0123, 295,000."""
    if not value:
        return "0"
    places = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(places, 0)}f}"


def _ratio(value: float) -> str:
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"  # 100: no decimals matter


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
