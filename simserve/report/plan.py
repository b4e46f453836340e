"""The cheapest plan and what surrounds it, as text in 80 columns and as JSON."""

from __future__ import annotations

import math
from typing import Any

from simserve.inputs.prices import how_chosen, thin_choice
from simserve.planning.plan.answer import PlanAnswer, output_tokens_per_s
from simserve.planning.plan.outcomes import SERVED, Outcome
from simserve.planning.plan.race import Plan
from simserve.planning.plan.screen import BOUNDS
from simserve.report.columns import WIDTH, filled, labelled
from simserve.report.plan_answer import answer_rows, assumed_of, fleet_dollars, memory_of
from simserve.report.plan_deploy import compose_text, serve_lines
from simserve.report.plan_tables import (
    crowd_lines,
    front_lines,
    input_lines,
    name_of,
    over_runs,
    removed_lines,
    setting_lines,
    size_lines,
    usd_per_mtok,
)
from simserve.results.run_facts import remark_of

NOT_LOOKED_AT = (
    "pipeline and expert parallelism, speculative decoding and disaggregated prefill, which "
    "simserve does not model"
)
"""What a deployment may also be, and no candidate is."""

_METRICS = ("ttft", "tpot", "e2el")


def plan_text(answer: PlanAnswer) -> str:
    """Return the report; without a winner, why there is none in one line, and what was tried."""
    parts = [labelled(_head(answer)), removed_lines(answer)]
    if answer.winner is not None:
        parts += [
            size_lines(answer),
            setting_lines(answer),
            front_lines(answer),
            input_lines(answer),
            crowd_lines(answer),
            _start(answer.winner),
            labelled(_notes(answer)),
        ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def nobody_can(answer: PlanAnswer) -> str:
    """Return the one line that says that no plan keeps the SLO, and what came closest."""
    screening, question = answer.screening, answer.question
    slo = _slo(answer)
    tried = [one for one in screening.plans if one.seen]
    if not tried and screening.removals:
        counts = {bound: screening.removed(bound) for bound in BOUNDS}
        most = max(counts, key=lambda bound: counts[bound])
        reason = next(one.reason for one in reversed(screening.removals) if one.bound == most)
        return (
            f"No plan of up to {question.max_gpus} GPUs keeps {slo}: bounds remove all "
            f"{screening.total:,}, {most} most of them; such as: {reason}"
        )
    best = max(tried, key=_closest, default=None)
    if best is None:
        return f"No plan of up to {question.max_gpus} GPUs keeps {slo}: there is none to try"
    worst = min(_last(best).kept, key=lambda one: one.steady)
    unsteady = sum(not one.steady for one in best.seen)
    text = f"No plan of up to {question.max_gpus} GPUs keeps {slo}: the closest, {name_of(best)}, "
    if worst.name == SERVED:
        return f"{text}has a context that refuses {1 - worst.whole:.1%} of requests"
    if unsteady > len(best.seen) / 2:
        return f"{text}has no steady state in {unsteady} of {len(best.seen)} runs"
    return f"{text}keeps {worst.name} for {worst.steady:.1%} of requests"


def _last(plan: Plan) -> Outcome:
    return plan.seen[-1]


def _closest(plan: Plan) -> tuple[bool, float]:
    outcome = _last(plan)
    return outcome.verdict != "overloaded", min((one.steady for one in outcome.kept), default=0.0)


def _slo(answer: PlanAnswer) -> str:
    scenario = answer.question.scenario
    words = [str(scenario.slo)] if scenario.slo is not None else []
    words += [
        f"{one.name} {one.slo}" for one in scenario.workload.classes or () if one.slo is not None
    ]
    return ", ".join(words)


def _head(answer: PlanAnswer) -> list[tuple[str, str]]:
    question = answer.question
    scenario = question.scenario
    rows = [
        ("Question", f"{scenario.name} (seed {scenario.seed}): {_load(answer)}, {_slo(answer)}"),
        (
            "Model",
            f"{question.spec.model}, a context of {answer.context_tokens:,} tokens; latencies by "
            f"{question.spec.latency}",
        ),
    ]
    winner = answer.winner
    if winner is None:
        return [*rows, ("Answer", nobody_can(answer))]
    return [*rows, *answer_rows(answer, winner)]


def _load(answer: PlanAnswer) -> str:
    audience = answer.question.plan.audience
    arrivals = answer.question.scenario.workload.arrivals
    if audience is not None:
        each, share = audience.requests_per_user_per_day, audience.peak_hour_share
        return (
            f"{audience.daily_users:,} users a day, {each.value:g} requests each, "
            f"{share.value:.0%} of them in the busiest hour: {audience.peak_rate_per_s():.3g} "
            "requests/s then"
        )
    if arrivals is not None and arrivals.rate_per_s is not None:
        what = "requests" if answer.question.scenario.workload.sessions is None else "conversations"
        return f"{arrivals.rate_per_s:g} {what}/s, {arrivals.process}"
    if arrivals is not None:
        return arrivals.process
    return "a trace"


def _start(winner: Plan) -> list[str]:
    line, remarks = serve_lines(winner)
    lines = _continued(line) if line else []
    for remark in remarks:
        lines += filled(f"# {remark}", hang="# ")
    compose = compose_text(winner)
    return [*lines, "", "# compose.yaml", *compose.splitlines()] if compose else lines


def _continued(line: str) -> list[str]:
    """Return a shell line in 80 columns, continued before flags."""
    if len(line) <= WIDTH:
        return [line]
    parts = line.split(" --")
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + len(" -- \\") > WIDTH:
            lines[-1] += " \\"
            lines.append(f"    --{part}")
        else:
            lines[-1] += f" --{part}"
    return lines


def _notes(answer: PlanAnswer) -> list[tuple[str, str]]:
    whole, short = answer.runs.whole, answer.runs.short
    length = "" if whole is None else f" of {whole:,} requests (short ones of {short:,})"
    notes = [
        f"Runs{length} meet the same requests in every plan. A run keeps the SLO if it does as a "
        "whole, as 'simserve run' judges it, and without warm-up and drain. Latencies are means "
        "over runs of each run's percentile, ± 95 %; – is what the runs are too few to say. "
        "Fronts and settings rest on 4 runs a plan.",
        "Of equally dear plans that keep the SLO the answer is one whose weights and KV values are "
        "as given, or least coarser; of those, the one with the most room below the limits. A "
        "tenth of a limit less gives way to usual settings. The answer (*) stands above a front "
        "that it is not on.",
        f"Not looked at: {NOT_LOOKED_AT}.",
        f"Latencies are those of {answer.question.spec.latency}; how far that may be off is not "
        "part of any interval. Whether other weights answer as well is not compared.",
    ]
    shown = [answer.winner] if answer.winner is not None else answer.screening.plans[:1]
    notes += [f"{remark}." for plan in shown if (remark := remark_of(plan.deployment))]
    if not answer.screening.proven:
        notes.append(
            f"Nothing is proven of latencies by {answer.question.spec.latency}: lemmas 2 and 3 "
            "removed nothing."
        )
    return [("Note", text) if not at else ("", text) for at, text in enumerate(notes)]


def _resolved(answer: PlanAnswer, winner: Plan) -> dict[str, Any]:
    """Return the scenario in which the winner serves, as ``Scenario.resolved`` gives it."""
    whole = answer.runs.at(winner.deployment, winner.replicas, 0, short=False)
    return whole.resolved()


def plan_dict(answer: PlanAnswer) -> dict[str, Any]:
    """Return everything as JSON-able data; latencies in ms."""
    screening, winner = answer.screening, answer.winner
    return {
        "scenario": {
            "name": answer.question.scenario.name,
            "seed": answer.question.scenario.seed,
            "slo": _slo(answer),
            "model": answer.question.spec.model,
            "context_tokens": answer.context_tokens,
            "load": _load(answer),
        },
        "resolved": None if winner is None else _resolved(answer, winner),
        "not_looked_at": NOT_LOOKED_AT,
        "candidates": len(screening.candidates),
        "plans": screening.total,
        "removed": {bound: screening.removed(bound) for bound in BOUNDS}
        | {
            "price": answer.priced_out,
            "short_run": answer.lost_at("short"),
            "whole_runs": answer.lost_at("some", "all"),
        },
        "runs": {
            "whole_requests": answer.runs.whole,
            "short_requests": answer.runs.short,
            "outcomes": len(answer.race.outcomes),
        },
        "winner": None if winner is None else _winner_dict(answer, winner),
        "alternative": None
        if answer.alternative is None
        else _plan_dict(answer, answer.alternative),
        "reason": nobody_can(answer) if winner is None else None,
        "unconfirmed": [_plan_dict(answer, one) for one in answer.unconfirmed],
        "replicas": [_plan_dict(answer, one.plan) | {"what": one.what} for one in answer.sizes],
        "settings": [_plan_dict(answer, one) for one in answer.settings],
        "front_price_ttft": [_plan_dict(answer, one) for one in answer.price_front],
        "front_gpu_user": [_plan_dict(answer, one) for one in answer.speed_front],
        "inputs": [
            {
                "name": one.name,
                **one.number.model_dump(),
                "ends": [
                    {"value": end.value, **_outcomes_dict(answer, end.outcomes)}
                    for end in (one.low, one.high)
                ],
            }
            for one in answer.inputs
        ],
        "users": [
            {
                "plan": name_of(one.plan),
                "users": one.users,
                "kept_when_steady": one.kept,
                **_outcomes_dict(answer, one.outcomes),
            }
            for one in answer.crowds
        ],
    }


def _winner_dict(answer: PlanAnswer, winner: Plan) -> dict[str, Any]:
    line, remarks = serve_lines(winner)
    remark = remark_of(winner.deployment)
    price = winner.price
    return _plan_dict(answer, winner) | {
        "fleets": fleet_dollars(answer, winner),
        "offers": {"chosen": how_chosen(price.bills), "warning": thin_choice(price.bills)},
        "memory": memory_of(winner),
        "assumed": assumed_of(winner),
        "serve": line,
        "remarks": [*remarks, *([f"{remark}."] if remark else [])],
        "compose": compose_text(winner),
    }


def _plan_dict(answer: PlanAnswer, plan: Plan) -> dict[str, Any]:
    price, used = plan.price, answer.race.used_of_slo(plan)
    found: dict[str, Any] = {
        "name": name_of(plan),
        "settings": plan.candidate.settings,
        "replicas": plan.replicas,
        "gpus": plan.gpus,
        "usd_per_hour": price.usd_per_hour,
        "usd_per_mtok": usd_per_mtok(plan) if plan.seen else None,
        "offer": {"name": price.offer.name, "terms": price.offer.terms, **_sourced(plan)},
        "busy_replicas_at_least": plan.work,
        "most_used_of_a_limit": used if plan.seen and used < math.inf else None,
        "output_tokens_per_s_per_gpu": output_tokens_per_s(plan) / plan.gpus if plan.seen else None,
        **_outcomes_dict(answer, plan.seen),
    }
    if plan.fresh:
        found["fresh_seeds"] = _outcomes_dict(answer, plan.fresh)
    return found


def _sourced(plan: Plan) -> dict[str, str]:
    price = plan.price.price
    return {"kind": price.kind, "source": price.source, "date": price.date}


def _outcomes_dict(
    answer: PlanAnswer, outcomes: list[Outcome] | tuple[Outcome, ...]
) -> dict[str, Any]:
    kept = answer.race.probability(outcomes)
    latencies = {
        f"{metric}_{statistic}": _number(outcomes, metric, statistic)
        for metric in _METRICS
        for statistic in ("mean", "p50", "p95", "p99")
    }
    mean, half = over_runs(outcomes, lambda one: one.output_tokens_per_s)
    return {
        "runs": kept.runs,
        "kept": kept.kept,
        "probability_low": kept.low,
        "probability_high": kept.high,
        "latency_ms": {name: one for name, one in latencies.items() if one["value"] is not None},
        "output_tokens_per_s": {"value": mean, "half_width": half},
        "digests": [one.digest for one in outcomes],
    }


def _number(
    outcomes: list[Outcome] | tuple[Outcome, ...], metric: str, statistic: str
) -> dict[str, float | None]:
    mean, half = over_runs(outcomes, lambda one: one.latency_ms.get(metric, {}).get(statistic))
    return {"value": mean, "half_width": half}
