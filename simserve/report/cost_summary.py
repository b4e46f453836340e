"""What a cost report says, as JSON-able data, and the rule of thumb that frames its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from simserve.inputs.prices import Offer
from simserve.inputs.sourced import Sourced
from simserve.planning.break_even import BreakEven
from simserve.planning.cost import CostReport
from simserve.planning.fleet import Bill
from simserve.planning.self_host_or_api import ApiComparison
from simserve.results.token_cost import S_PER_HOUR, TOKENS_PER_MTOK, plain_usd_per_mtok

_RULE_OF_THUMB = "the usual rule of thumb for self-hosting; not derived from these prices"
SMALL_TOKENS_PER_DAY = Sourced(1e6, "assumed", _RULE_OF_THUMB, "2026-11-20")
LARGE_TOKENS_PER_DAY = Sourced(100e6, "assumed", _RULE_OF_THUMB, "2026-11-20")

LINES = {
    "input": "prompts, computed",
    "cached_input": "prompts, found in the cache",
    "output": "output",
    "idle": "idle, between steps",
    "hours_without_traffic": "paid hours without traffic",
    "spares": "spares",
    "unused_gpus": "GPUs that a machine has too many",
    "engineering": "engineers",
}
"""What the lines of a bill are called."""


@dataclass(frozen=True, slots=True)
class Band:
    """Where a load stands in the rule of thumb."""

    name: str
    words: str


def band_of(tokens_per_day: float) -> Band:
    """Return what the rule of thumb says of a load."""
    if tokens_per_day < SMALL_TOKENS_PER_DAY.value:
        return Band("small", "under 1 M, where an API is usually the answer")
    if tokens_per_day <= LARGE_TOKENS_PER_DAY.value:
        return Band("middle", "between 1 and 100 M, where the sums decide")
    return Band("large", "over 100 M, where GPUs of one's own are usually looked at")


def million_tokens_per_day(report: CostReport, rate_per_s: float) -> float:
    """Return a mean load as input and output tokens of a day, in millions."""
    per_day = rate_per_s * report.question.hours.active * S_PER_HOUR
    return per_day * report.point.tokens_per_request / TOKENS_PER_MTOK


def plain_sum(report: CostReport) -> float:
    """Return the bill over its output tokens alone, US$ per million."""
    per_hour = report.now.usd / report.rule.hours.active_per_month
    tokens_per_s = report.now.tokens["output"] / report.rule.hours.active_per_month / S_PER_HOUR
    return plain_usd_per_mtok(per_hour, tokens_per_s)


def fleet_dollars(report: CostReport) -> list[dict[str, Any]]:
    """Return what the fleet costs without a spare, and with those that are asked for."""
    serving, tokens = report.now.serving, sum(report.now.tokens.values())
    rules = [replace(report.rule, spares=count) for count in sorted({0, report.rule.spares})]
    return [
        {
            "spares": rule.spares,
            "usd_per_hour": rule.offer.usd_per_hour(serving + rule.spares, rule.tp),
            "usd_per_mtok": rule.usd_per_month(serving) / tokens * TOKENS_PER_MTOK,
        }
        for rule in rules
    ]


def fleet_words(fleets: Sequence[Mapping[str, Any]]) -> str:
    """Return dollars an hour, and per million tokens, without spares and with those asked for.

    ``fleets`` are entries such as those of ``fleet_dollars``.
    """
    by_dollars: dict[str, list[str]] = {}
    for one in fleets:
        words = f"${one['usd_per_hour']:,.2f} an hour"
        if one["usd_per_mtok"] is not None:
            words += f" and ${one['usd_per_mtok']:.4g} per million tokens"
        by_dollars.setdefault(words, []).append(_spare_words(one["spares"]))
    said = [f"{words} {' or '.join(spares)}" for words, spares in by_dollars.items()]
    whole = ", as machines are paid whole" if len(by_dollars) < len(fleets) else ""
    return f"{'; '.join(said)}{whole}; at this load"


def _spare_words(spares: int) -> str:
    if not spares:
        return "without a spare"
    return f"with {spares} spare" + ("" if spares == 1 else "s")


def cost_data(report: CostReport) -> dict[str, Any]:
    """Return the whole answer as JSON-able data; money in US$, loads in requests/s."""
    scenario, rule, question = report.scenario, report.rule, report.question
    return {
        "scenario": scenario.name,
        "seed": scenario.seed,
        "digest": scenario.digest(),
        "resolved": scenario.resolved(),
        "model": scenario.deployment.model.name,
        "gpu": scenario.deployment.gpu.name,
        "tp": rule.tp,
        "today": question.today.isoformat(),
        "offer": _offer(rule.offer),
        "offers": [_offer(one) for one in report.offers],
        "rate_per_s": report.rate_per_s,
        "tokens_per_day": report.tokens_per_day,
        "band": band_of(report.tokens_per_day).name,
        "peak_to_mean": rule.peak_to_mean,
        "capacity": asdict(report.capacity),
        "hours": asdict(rule.hours),
        "fleets": fleet_dollars(report),
        "fte": question.fte,
        "fte_usd_per_year": question.fte_usd_per_year,
        "meets_slo": report.meets_slo,
        "verdict": report.point.verdict,
        "reason": report.point.reason,
        "at_slo": None if report.at_slo is None else bill_data(report.at_slo),
        "now": bill_data(report.now)
        | {
            "usd_per_user": report.now.usd / question.users if question.users else None,
            "plain_usd_per_output_mtok": plain_sum(report),
        },
        "gpu_time_ps": asdict(report.point.time),
        "energy": asdict(report.energy),
        "apis": [_api(report, one) for one in report.apis],
        "swings": [asdict(one) | {"size": one.size} for one in report.swings],
        "assumed": list(report.assumed),
        "warnings": list(report.warnings),
    }


def bill_data(bill: Bill) -> dict[str, Any]:
    """Return a bill with what follows from it."""
    return asdict(bill) | {
        "usd_per_request": bill.usd_per_request,
        "blended_usd_per_mtok": bill.blended_usd_per_mtok,
        "overhead_frac": bill.overhead_frac,
    }


def _offer(offer: Offer) -> dict[str, Any]:
    return {
        "name": offer.name,
        "gpus": offer.gpus,
        "terms": offer.terms,
        "region": offer.region,
        "usd_per_hour": asdict(offer.price),
        "usd_per_gpu_hour": offer.usd_per_gpu_hour,
    }


def _api(report: CostReport, one: ApiComparison) -> dict[str, Any]:
    price = one.bill.price
    return {
        "name": price.name,
        "usd_per_mtok": price.prices.model_dump(),
        "kind": price.kind,
        "source": price.source,
        "date": price.date,
        "usd_per_request": one.bill.usd_per_request,
        "parts_usd_per_request": one.bill.parts,
        "usd_per_month": one.usd,
        "batch_usd_per_month": one.batch_usd,
        "long_prompts": one.bill.long_prompts,
        "self_host_ratio": one.self_host_ratio,
        "break_even": _break_even(report, one.break_even),
        "break_even_at_best": _break_even(report, one.best),
        "break_even_at_worst": _break_even(report, one.worst),
    }


def _break_even(report: CostReport, found: BreakEven) -> dict[str, Any]:
    return asdict(found) | {
        "first_mtok_per_day": None
        if found.first_per_s is None
        else million_tokens_per_day(report, found.first_per_s)
    }
