"""The page of one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from simserve.records.clock import PS_PER_S
from simserve.report.charts.downsample import COLUMNS, QUANTILES
from simserve.report.charts.engine import engine_over_time
from simserve.report.charts.latency import latency_cdfs, ttft_over_time
from simserve.report.intervals import NO_INTERVAL, TOO_FEW_ANSWERED, with_half_width
from simserve.report.page.basis import basis_section, reproduce_section
from simserve.report.page.markup import Child, Markup, element, paragraphs, table
from simserve.report.page.parts import Page, Section, Shown, count, ms, number, percent, tiles
from simserve.report.page.run_words import summary_words
from simserve.report.page.where_time_goes import waterfall_section
from simserve.report.summary import PERCENTILES, run_summary
from simserve.results.attainment import attainments
from simserve.results.counters import counters
from simserve.results.intervals import Interval
from simserve.results.metrics import LATENCY_METRICS, request_latencies
from simserve.results.result import Result
from simserve.results.samples import MS_PER_S
from simserve.results.steady_state import STATISTICS, SteadyState

SHORT_OF = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2el": "E2E"}
_COLUMNS = ("mean", *(f"p{q}" for q in PERCENTILES))
_VERDICT_LOOKS = {"stable": "good", "undecided": "warn", "backlogged": "warn", "overloaded": "bad"}


def run_page(result: Result) -> Page:
    """Return the page of a run."""
    summary = run_summary(result)
    facts = result.facts
    gpus = facts.tp * facts.replicas
    commands = "simserve run scenario.yaml --out run\nsimserve report run --html report.html"
    return Page(
        title=facts.name,
        kind="Simulated run",
        subtitle=f"{facts.model} on {gpus} × {facts.gpu}, {facts.engine}: {facts.traffic}",
        badges=_badges(summary),
        sections=[
            Section("In short", [paragraphs(summary_words(summary)), _headline(summary)]),
            *_slo(result, summary),
            _latency(result, summary),
            _over_time(result),
            waterfall_section(result),
            basis_section(facts.resolved, facts.latency, result.record.meta.priced_from),
            reproduce_section(facts.resolved, facts.digest, facts.version, commands),
        ],
    )


def _badges(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    name, slo = summary["verdict"]["name"], summary["slo"]
    badges = [(_VERDICT_LOOKS[name], name)]
    if slo is None:
        return [*badges, ("plain", "no SLO asked")]
    if summary["verdict"]["growing"] and not slo["met"]:
        return [*badges, ("bad", "SLO not shown to be met")]
    return [*badges, ("good", "SLO met") if slo["met"] else ("bad", "SLO missed")]


def _headline(summary: Mapping[str, Any]) -> Markup:
    latency, rates, slo = summary["latency_ms"], summary["throughput"], summary["slo"]
    sound = "" if summary["verdict"]["operating_point"] else " · no operating point"
    entries = []
    for metric, unit in (("ttft", "ms"), ("tpot", "ms"), ("e2el", "s")):
        values, factor = latency.get(metric, {}), 1 if unit == "ms" else 1 / MS_PER_S
        if values:
            more = f"p99 {ms(values['p99'] * factor)} {unit}{sound}"
            entries.append((f"{SHORT_OF[metric]}, median", ms(values["p50"] * factor), unit, more))
    tokens = f"{number(rates['total_tokens_per_s'])} with prompts"
    entries.append(("Output", number(rates["output_tokens_per_s"]), "tokens/s", tokens))
    good = ""
    if slo is not None and slo["goodput_per_s"] is not None:
        good = f"goodput {number(slo['goodput_per_s'])}"
    entries.append(("Served", number(rates["requests_per_s"]), "requests/s", good))
    use, steps = summary["kv_cache"], summary["steps"]
    entries.append(
        ("KV cache, peak", percent(use["peak_frac"]), "", f"mean {percent(use['mean_frac'])}")
    )
    seqs = f"busy {percent(steps['busy_frac'])}"
    entries.append(("Batch, mean", number(steps["mean_seqs"]), "sequences", seqs))
    waiting = f"{count(use['preemptions'], 'preemption')}"
    entries.append(("Left by a step, most", f"{steps['waiting_max']:,}", "requests", waiting))
    return tiles(entries)


def _slo(result: Result, summary: Mapping[str, Any]) -> list[Section]:
    slo = summary["slo"]
    if slo is None:
        return []
    rows = [_objective("all others", one, summary["verdict"]) for one in slo["objectives"]]
    rows += [
        _objective(group["name"], one, summary["verdict"])
        for group in slo["classes"]
        for one in group["objectives"]
    ]
    head: tuple[str, ...] = ("objective", "limit", "came out", "verdict", "asked of")
    if not slo["classes"]:
        head, rows = head[:-1], [row[:-1] for row in rows]
    body: list[Child | Shown] = [
        element("p", f"The objectives are {slo['reason']}."),
        table(head, rows, "In this run"),
    ]
    if slo["good_frac"] is not None:
        body.append(
            element(
                "p",
                f"{percent(slo['good_frac'])} of requests meet everything that is asked of each: "
                f"goodput {number(slo['goodput_per_s'])} requests/s.",
            )
        )
    return [Section("Service-level objectives", [*body, *_how_sure(result)])]


def _objective(who: str, one: Mapping[str, Any], verdict: Mapping[str, Any]) -> tuple[Child, ...]:
    if one["attained_frac"] is not None:
        came = f"{percent(one['attained_frac'])} of requests"
    elif one["value_ms"] is None and not one["met"]:
        came = TOO_FEW_ANSWERED
    else:
        came = f"{ms(one['value_ms'])} ms"
    met, word = one["met"], "met" if one["met"] else "missed"
    if not verdict["operating_point"]:
        met, word = False, "no operating point"
    elif verdict["growing"] and met:
        met, word = False, "met so far"
    return one["name"], f"{one['limit_ms']:g} ms", came, _badge(word, met), who


def _badge(word: str, good: bool) -> Markup:
    return element("span", word, class_=f"badge {'good' if good else 'bad'}")


def _how_sure(result: Result) -> list[Child]:
    """Return the share of requests that keep each promise, with its interval."""
    if result.steady_state.reason is not None or not result.sample.promises:
        return []
    rows: list[tuple[Child, ...]] = []
    for one in attainments([result.sample], good_share=1.0):
        sure = "surely met" if one.surely_met else "surely missed"
        rows.append(
            (
                one.name,
                f"{one.required * 100:.4g} %",
                f"{one.share:.2%}",
                f"{one.low:.2%} to {one.high:.2%}",
                sure if one.surely_met or one.surely_missed else "too close to tell",
            )
        )
    head = ("promise", "asked of", "kept by", "95 % interval", "beyond chance")
    return [table(head, rows, "In the steady state, by the requests of this run")]


def _latency(result: Result, summary: Mapping[str, Any]) -> Section:
    sound = summary["verdict"]["operating_point"]
    rows = []
    for metric in LATENCY_METRICS:
        values = summary["latency_ms"].get(metric)
        if values:
            cells = [ms(values[name]) for name in _COLUMNS]
            rows.append((SHORT_OF[metric], *(cells if sound else [f"({one})" for one in cells])))
    caption = "Whole run, ms from arrival, as vllm bench serve defines them"
    if not sound:
        caption += " · no operating point: these depend on the length of the run"
    body: list[Child | Shown] = [
        *_steady(result.steady_state),
        table(("", *_COLUMNS), rows, caption),
    ]
    samples = {name: result.metrics.sample(name) for name in LATENCY_METRICS}
    asked = result.facts.slo()
    if any(one.size for one in samples.values()):
        said = _median_words(summary)
        body.append(
            Shown(
                name="latency-cdf",
                figure=latency_cdfs(samples, asked.objectives if asked is not None else ()),
                title="How latencies are distributed",
                alt=f"Cumulative distributions of the latencies of the whole run. {said}",
                caption=(
                    "Share of requests (of tokens, for ITL) that are at or below a latency, whole "
                    f"run. Dots are p50, p95 and p99. {_drawn(samples['ttft'].size, 'request')}"
                ),
            )
        )
    return Section("Latency", body)


def _median_words(summary: Mapping[str, Any]) -> str:
    return " ".join(
        f"{SHORT_OF[name]}: median {ms(one['p50'])} ms, p99 {ms(one['p99'])} ms."
        for name, one in summary["latency_ms"].items()
    )


def _drawn(size: int, noun: str) -> str:
    if size <= len(QUANTILES):
        return ""
    return f"{count(size, noun)} are drawn at {len(QUANTILES)} quantiles."


def _steady(state: SteadyState) -> list[Child]:
    if state.reason is not None:
        return [element("p", f"No steady-state intervals: {state.reason}.")]
    rows = [
        (SHORT_OF[metric], *(_interval(found.get(name)) for name in STATISTICS))
        for metric, found in state.latencies.items()
    ]
    window = state.runs[0].window
    left_out = (
        f"The first {count(window.first, 'request')} ({number(window.warmup_s)} s) are left out as "
        f"warm-up, the last {count(window.drain_requests, 'request')} ({number(window.drain_s)} s) "
        "as drain."
    )
    reasons: dict[str, list[str]] = {}
    for metric, found in state.latencies.items():
        for name, one in found.items():
            if one.reason is not None:
                reasons.setdefault(one.reason, []).append(f"{SHORT_OF[metric]} {name}")
    why = [
        element("p", f"{NO_INTERVAL} {', '.join(names)}: {reason}.", class_="note")
        for reason, names in reasons.items()
    ]
    return [
        table(("", *STATISTICS), rows, "Steady state, ms, with 95 % intervals"),
        element("p", left_out, class_="note"),
        *why,
    ]


def _interval(one: Interval | None) -> Child:
    if one is None or one.half_width is None:
        return NO_INTERVAL
    return with_half_width(one.value * MS_PER_S, one.half_width * MS_PER_S)


def _over_time(result: Result) -> Section:
    record = result.record
    end_s = record.end_ps / PS_PER_S
    if not end_s or not any(len(log) for log in record.steps):
        return Section("Over time", [])
    use, steps = result.engine_use, result.engine_use.steps
    several = f" of {count(len(record.steps), 'replica')}" if len(record.steps) > 1 else ""
    engine = Shown(
        name="engine-over-time",
        figure=engine_over_time([counters(log) for log in record.steps if len(log)], end_s),
        title="KV cache, batch and queue over time",
        alt=(
            f"Four series over {end_s:,.0f} s: KV cache held (peak {percent(use.kv_peak_frac)}), "
            f"running requests, requests left unscheduled (at most {use.waiting_max:,}), "
            "tokens per step."
        ),
        caption=(
            f"{count(steps, 'step')}{several} in {COLUMNS} columns: the band is from the lowest to "
            "the highest value in each column, the line is the mean over time. No peak is left out."
        ),
    )
    latencies, window = request_latencies(record), result.sample.window
    arrival_s = record.requests.arrival_ps / PS_PER_S
    there = ~np.isnan(latencies.ttft_s)
    body: list[Child | Shown] = [engine]
    if there.any() and arrival_s[-1] > arrival_s[0]:
        inside = arrival_s[window.first : window.stop]
        settled = result.steady_state.reason is None and len(inside) > 0
        steady_s = (float(inside[0]), float(inside[-1])) if settled else None
        body.append(
            Shown(
                name="ttft-over-time",
                figure=ttft_over_time(arrival_s, latencies.ttft_s, steady_s),
                title="TTFT in the course of the run",
                alt="Median and 99th percentile of the time to first token by time of arrival.",
                caption=(
                    "Median and p99 of the requests that arrived in each stretch of time. What is "
                    "left out of the steady state is not shaded."
                    if settled
                    else "Median and p99 of the requests that arrived in each stretch of time."
                ),
            )
        )
    return Section("Over time", body)
