"""The tables of a plan: what was removed, fleets, settings, fronts, people."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from simserve.planning.plan.answer import PlanAnswer, output_tokens_per_s
from simserve.planning.plan.outcomes import Outcome
from simserve.planning.plan.people import Crowd, Input
from simserve.planning.plan.race import Plan, Probability
from simserve.planning.plan.screen import Bound
from simserve.planning.plan.space import label_of
from simserve.report.columns import filled
from simserve.report.intervals import NO_INTERVAL, with_half_width
from simserve.results.critical_values import student_t
from simserve.results.samples import MS_PER_S
from simserve.results.token_cost import S_PER_HOUR, TOKENS_PER_MTOK

# With fewer runs, Student's t reaches so far that it says nothing.
_FEWEST_RUNS = 3
_MOST_ROWS = 12
_BAR = 18
_NAME_WIDTH, _SETTING_WIDTH = 40, 36

_BOUND_WORDS: dict[Bound, str] = {
    "impossible": "cannot be built or priced",
    "offer": "no machine on offer",
    "memory": "memory: does not fit (lemma 1)",
    "latency": "latency: too slow alone (lemma 2)",
    "rate": "rate: more work than time (lemma 3)",
}


def over_runs(
    outcomes: Sequence[Outcome], number: Callable[[Outcome], float | None]
) -> tuple[float | None, float | None]:
    """Return the mean of a run's number, and Student's t half-width if there are enough runs."""
    values = [found for one in outcomes if (found := number(one)) is not None]
    if not values:
        return None, None
    if len(values) < _FEWEST_RUNS:
        return float(np.mean(values)), None
    half = student_t(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)), half


def latency(metric: str, statistic: str) -> Callable[[Outcome], float | None]:
    """Return how to read a latency, in ms, off a run."""
    return lambda one: one.latency_ms.get(metric, {}).get(statistic)


def cell(outcomes: Sequence[Outcome], number: Callable[[Outcome], float | None]) -> str:
    """Return ``mean ±half-width``, or a dash where the runs cannot say."""
    mean, half = over_runs(outcomes, number)
    return NO_INTERVAL if mean is None or half is None else with_half_width(mean, half)


def percent(share: float) -> str:
    """Return a share as a whole percentage."""
    return f"{share:.0%}"


def probability_words(one: Probability) -> str:
    """Return ``19 of 20 runs (76% to 99%)``."""
    return f"{one.kept} of {one.runs} runs ({percent(one.low)} to {percent(one.high)})"


def usd_per_mtok(plan: Plan) -> float | None:
    """Return dollars per million tokens, input and output, at the load of the plan's runs."""
    seen = plan.seen
    rate = sum(one.input_tokens_per_s + one.output_tokens_per_s for one in seen) / len(seen)
    if not rate:
        return None
    return plan.price.usd_per_hour / (rate * S_PER_HOUR / TOKENS_PER_MTOK)


def fleet_words(plan: Plan) -> str:
    """Return a plan's GPUs as ``simserve run`` writes them, replicas apart."""
    gpu, tp = plan.candidate.gpu, plan.candidate.tp
    if tp == 1:
        return f"{plan.replicas} × {gpu}"
    replica = f"{tp} × {gpu} (tp {tp})"
    return replica if plan.replicas == 1 else f"{plan.replicas} replicas of {replica}"


def name_of(plan: Plan) -> str:
    """Return a plan in few words: GPUs, TP, what else is set."""
    router = f", {plan.candidate.router}" if plan.replicas > 1 else ""
    return f"{fleet_words(plan)}, {label_of(plan.candidate)}{router}"


def removed_lines(answer: PlanAnswer) -> list[str]:
    """Return how many candidates and plans each bound, and each heat, removed."""
    screening = answer.screening
    wins = answer.winner is not None
    rows = [("all", f"{len(screening.candidates):,}", f"{screening.total:,}")]
    rows += [
        (f"  {words}", f"{screening.gone(bound):,}", f"{screening.removed(bound):,}")
        for bound, words in _BOUND_WORDS.items()
    ]
    rows += [
        (
            "  price: no cheaper than the answer (lemma 4)" if wins else "  not run",
            "",
            f"{answer.priced_out:,}",
        ),
        ("  lost a short run", "", f"{answer.lost_at('short'):,}"),
        ("  lost whole runs", "", f"{answer.lost_at('some', 'all'):,}"),
        ("  left, the answer among them" if wins else "  left", "", f"{_left(answer):,}"),
    ]
    head = f"{'Candidates, each with 1 or more replicas':<46}{'candidates':>14}{'plans':>14}"
    return [head, *(f"{words:<46}{one:>14}{many:>14}".rstrip() for words, one, many in rows)]


def _left(answer: PlanAnswer) -> int:
    return sum(one.lost_at is None and one.stage != "waiting" for one in answer.screening.plans)


def size_lines(answer: PlanAnswer) -> list[str]:
    """Return the winner with a replica less, and with spares."""
    lines = [f"{'Replicas of the answer':<32}{'$/hour':>9}   runs that keep the SLO"]
    for one in answer.sizes:
        words = f"  {one.plan.replicas}, {one.what}"
        kept = probability_words(one.probability)
        lines.append(f"{words:<32}{one.plan.price.usd_per_hour:>9,.2f}   {kept}")
    return lines


def setting_lines(answer: PlanAnswer) -> list[str]:
    """Return what every setting does on the winner's GPUs."""
    winner = answer.winner
    if winner is None or len(answer.settings) < 2:
        return []
    ttft, tpot = shown_percentiles(answer)
    head = f"Settings on {fleet_words(winner)}"
    heads = f"{f'TTFT {ttft} ms':>16}{f'TPOT {tpot} ms':>16}{'kept':>10}"
    lines = [head] if len(head) > _SETTING_WIDTH else []
    lines.append(f"{'' if lines else head:<{_SETTING_WIDTH}}{heads}")
    for plan in answer.settings[:_MOST_ROWS]:
        seen = plan.runs
        mark = "*" if plan is winner else " "
        kept = answer.race.probability(seen)
        name = f"{mark} {label_of(plan.candidate)}"
        lines.append(
            f"{name:<{_SETTING_WIDTH}}{cell(seen, latency('ttft', ttft)):>16}"
            f"{cell(seen, latency('tpot', tpot)):>16}{f'{kept.kept} of {kept.runs}':>10}"
        )
    if len(answer.settings) > _MOST_ROWS:
        lines.append(f"  … {len(answer.settings) - _MOST_ROWS} more with --json")
    return lines


def front_lines(answer: PlanAnswer) -> list[str]:
    """Return both Pareto fronts, the answer above one that it is not on."""
    winner = answer.winner
    if winner is None:
        return []
    lines = [f"{'Front of price and TTFT':<40}{'$/hour':>9}{'$/M tokens':>12}{'TTFT p99 ms':>17}"]
    for plan in with_answer(answer.price_front, winner):
        cost = usd_per_mtok(plan)
        tokens = NO_INTERVAL if cost is None else f"{cost:.4f}"
        ttft = cell(plan.seen, latency("ttft", "p99"))
        cells = f"{plan.price.usd_per_hour:>9,.2f}{tokens:>12}{ttft:>17}"
        lines += _wide(name_of(plan), cells, marked=plan is winner)
    lines += ["", f"{'Front of GPUs and users':<40}{'tok/s/GPU':>12}{'tok/s/user':>17}"]
    for plan in with_answer(answer.speed_front, winner):
        per_gpu = output_tokens_per_s(plan) / plan.gpus
        cells = f"{per_gpu:>12,.0f}{_per_user(plan.seen):>17}"
        lines += _wide(name_of(plan), cells, marked=plan is winner)
    return lines


def with_answer(front: Sequence[Plan], winner: Plan) -> list[Plan]:
    """Return a front with the answer before it, if it is not on it."""
    missing = [] if any(plan is winner for plan in front) else [winner]
    return [*missing, *front]


def _wide(name: str, cells: str, *, marked: bool) -> list[str]:
    """Return a row; a long name has lines of its own."""
    name = f"{'*' if marked else ' '} {name}"
    if len(name) < _NAME_WIDTH:
        return [f"{name:<{_NAME_WIDTH}}{cells}"]
    return [*filled(name, hang="    "), f"{'':<{_NAME_WIDTH}}{cells}"]


def _per_user(outcomes: Sequence[Outcome]) -> str:
    def tokens(one: Outcome) -> float | None:
        ms = one.latency_ms.get("tpot", {}).get("mean")
        return MS_PER_S / ms if ms else None

    return cell(outcomes, tokens)


def input_lines(answer: PlanAnswer) -> list[str]:
    """Return the named inputs, their ranges, and what the answer does at both ends."""
    if not answer.inputs:
        return []
    ttft, tpot = shown_percentiles(answer)
    heads = f"{f'TTFT {ttft} ms':>15}{f'TPOT {tpot} ms':>14}{'kept':>9}"
    lines = [f"{'Inputs, one at a time':<41}{heads}"]
    for one in answer.inputs:
        lines += filled(
            f"  {one.name}: {one.number.value:g} ({one.number.low:g} to "
            f"{one.number.high:g}; {one.number.kind}: {one.number.source}, "
            f"{one.number.date})",
            hang="    ",
        )
        lines += [_end(answer, one, which) for which in ("low", "high")]
    return lines


def _end(answer: PlanAnswer, one: Input, which: str) -> str:
    ttft, tpot = shown_percentiles(answer)
    end = getattr(one, which)
    kept = answer.race.probability(end.outcomes)
    return (
        f"{f'    at {end.value:g}':<41}{cell(end.outcomes, latency('ttft', ttft)):>15}"
        f"{cell(end.outcomes, latency('tpot', tpot)):>14}{f'{kept.kept} of {kept.runs}':>9}"
    )


def crowd_lines(answer: PlanAnswer) -> list[str]:
    """Return latency and throughput as users grow, one table per weight format, with bars."""
    ttft, tpot = shown_percentiles(answer)
    bars = [over_runs(one.outcomes, latency("tpot", tpot))[0] or 0.0 for one in answer.crowds]
    heads = f"{f'TTFT {ttft} ms':>15}{f'TPOT {tpot} ms':>15}{'tokens/s out':>16}{'kept':>6}"
    lines: list[str] = []
    for plan in _distinct([one.plan for one in answer.crowds]):
        mine = [one for one in answer.crowds if one.plan is plan]
        lines += ["", f"Users at once: {name_of(plan)}", f"{'':>6}{heads}  TPOT"]
        lines += [_crowd_row(answer, one, max(bars)) for one in mine]
        within = [one for one in mine if one.kept == len(one.outcomes)]
        if within:
            most = max(within, key=lambda one: one.users)
            tokens = cell(most.outcomes, lambda one: one.output_tokens_per_s)
            lines.append(f"  {most.users} of those tried are within the SLO: {tokens} tokens/s out")
    return lines[1:]


def _distinct(plans: Sequence[Plan]) -> list[Plan]:
    return [one for at, one in enumerate(plans) if not any(one is other for other in plans[:at])]


def _crowd_row(answer: PlanAnswer, crowd: Crowd, longest: float) -> str:
    ttft, tpot = shown_percentiles(answer)
    outcomes = crowd.outcomes
    mean = over_runs(outcomes, latency("tpot", tpot))[0] or 0.0
    bar = "█" * round(_BAR * mean / longest) if longest else ""
    return (
        f"{crowd.users:>6}{cell(outcomes, latency('ttft', ttft)):>15}"
        f"{cell(outcomes, latency('tpot', tpot)):>15}"
        f"{cell(outcomes, lambda one: one.output_tokens_per_s):>16}"
        f"{f'{crowd.kept}/{len(outcomes)}':>6}  {bar}"
    ).rstrip()


def shown_percentiles(answer: PlanAnswer) -> tuple[str, str]:
    """Return which percentile of TTFT and of TPOT is shown: the one that is asked for, or p99."""
    slo = answer.question.scenario.slo
    asked = {
        one.metric: f"p{one.percentile:g}"
        for one in (slo.objectives if slo is not None else ())
        if one.percentile in (50, 95, 99)
    }
    return asked.get("ttft", "p99"), asked.get("tpot", "p99")
