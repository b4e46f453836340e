"""What is said of the winner: its dollars, how sure it is, and what it rests on."""

from __future__ import annotations

import math
from typing import Any

from simserve.inputs.prices import how_chosen, thin_choice
from simserve.planning.plan.answer import PlanAnswer
from simserve.planning.plan.prices import ASSUMED
from simserve.planning.plan.race import Plan
from simserve.report.cost_summary import fleet_words
from simserve.report.plan_tables import (
    cell,
    latency,
    name_of,
    percent,
    probability_words,
    shown_percentiles,
    usd_per_mtok,
)
from simserve.results.run_facts import assumed_names

# Less of a GPU's memory than this for KV values, and an error of the reserves decides.
_THIN_KV_SHARE = 0.1
_BYTES_PER_GB = 10**9


def answer_rows(answer: PlanAnswer, winner: Plan) -> list[tuple[str, str]]:
    """Return the winner as labels and texts."""
    price, names = winner.price, assumed_of(winner)
    rows = [("Answer", f"{name_of(winner)}: {fleet_words(fleet_dollars(answer, winner))}")]
    if answer.alternative is not None:
        rows.append(("Instead", _alternative(answer, winner, answer.alternative)))
    rows += [
        ("Sure", _sure(answer, winner)),
        (
            "Price",
            f"{price.offer.name}, {price.offer.terms}, of {price.price.date} "
            f"({price.price.kind}); {how_chosen(price.bills)}",
        ),
    ]
    thin = thin_choice(price.bills)
    if thin is not None:
        rows.append(("", f"Warning: {thin}"))
    rows.append(("Memory", _memory(winner)))
    if names:
        rows.append(("Assumed", f"{len(names)} of its numbers: {', '.join(names)}"))
    return rows


def fleet_dollars(answer: PlanAnswer, winner: Plan) -> list[dict[str, Any]]:
    """Return what the winner costs without a spare, and with those that are asked for."""
    per_mtok = usd_per_mtok(winner)
    fleets = [one.plan for one in answer.sizes if one.plan.replicas >= winner.replicas]
    return [
        {
            "spares": one.replicas - winner.replicas,
            "usd_per_hour": one.price.usd_per_hour,
            "usd_per_mtok": None
            if per_mtok is None
            else per_mtok * one.price.usd_per_hour / winner.price.usd_per_hour,
        }
        for one in fleets
    ]


def _alternative(answer: PlanAnswer, winner: Plan, other: Plan) -> str:
    ttft, tpot = shown_percentiles(answer)
    race = answer.race
    return (
        f"{name_of(other)}, for the same price: TTFT {ttft} "
        f"{cell(other.seen, latency('ttft', ttft))} ms, TPOT {tpot} "
        f"{cell(other.seen, latency('tpot', tpot))} ms; it uses at most "
        f"{_used(race.used_of_slo(other))} of a limit, the answer "
        f"{_used(race.used_of_slo(winner))}, but its weights or KV values are coarser"
    )


def _used(share: float) -> str:
    """Return a share of a limit; infinite where a run left too many without an answer."""
    return percent(share) if share < math.inf else "more than all"


def _sure(answer: PlanAnswer, winner: Plan) -> str:
    runs = answer.race.probability(winner.runs)
    words = f"the SLO is kept in {probability_words(runs)}"
    if winner.fresh:
        fresh = answer.race.probability(winner.fresh)
        words += f"; fresh seeds, that nothing was chosen by, keep it in {probability_words(fresh)}"
    asked = answer.question.probability
    words += f"; {percent(asked)} of them is asked"
    if runs.low < asked:
        words += f", and more than {percent(runs.low)} is not shown by so few (--replications)"
    if answer.unconfirmed:
        words += f"; fresh seeds did not confirm {len(answer.unconfirmed)} before it"
    return words


def memory_of(plan: Plan) -> dict[str, Any]:
    """Return what of a GPU's memory its KV values have, in bytes, and the assumed reserves."""
    kv = plan.deployment.kv
    pool = sum(term.bytes for term in kv.terms if term.name in ("kv_blocks", "kv_windows"))
    whole = sum(term.bytes for term in kv.terms)
    reserves = [term.name for term in kv.terms if term.kind == ASSUMED]
    return {
        "kv_bytes": pool,
        "gpu_bytes": whole,
        "kv_frac": pool / whole,
        "kv_tokens": kv.usable_tokens,
        "assumed_reserves": reserves,
    }


def _memory(plan: Plan) -> str:
    one = memory_of(plan)
    words = (
        f"KV values have {one['kv_bytes'] / _BYTES_PER_GB:.1f} of "
        f"{one['gpu_bytes'] / _BYTES_PER_GB:.1f} GB of each GPU ({percent(one['kv_frac'])}): "
        f"{one['kv_tokens']:,} tokens"
    )
    if one["kv_frac"] < _THIN_KV_SHARE and one["assumed_reserves"]:
        words += f". That is thin: {', '.join(one['assumed_reserves'])} beside it are assumed"
    return words


def assumed_of(plan: Plan) -> list[str]:
    """Return the names of the numbers of a plan that nobody has measured or published."""
    names = assumed_names(plan.deployment)
    price = plan.price
    return names + ([f"price of {price.offer.name}"] if price.price.kind == ASSUMED else [])
