"""How much load a deployment carries, as text in 80 columns and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simserve.planning.capacity import Capacity
from simserve.planning.load_tests import LoadTest
from simserve.report.columns import labelled
from simserve.report.deployed import deployed
from simserve.report.intervals import NO_INTERVAL, attainment_dict, with_half_width
from simserve.results.intervals import Interval
from simserve.results.run_facts import assumed_numbers, remark_of
from simserve.results.samples import MS_PER_S, three_digits

_SHORT_OF = {"ttft": "TTFT", "tpot": "TPOT"}
_USUAL_PERCENTILE = 99.0
_WIDTHS = (10, 14, 15, 15, 22)


def capacity_text(found: Capacity) -> str:
    """Return the report; of an SLO that no load meets, one line."""
    if found.load is None:
        return cannot_be_met(found)
    scenario = found.dial.scenario
    rows = [
        ("Scenario", f"{scenario.name} (seed {scenario.seed})"),
        ("Model", deployed(scenario.deployment)),
        ("SLO", _slo_words(found)),
        ("Capacity", _capacity_words(found)),
        ("Limit", _limit_words(found)),
        ("Knee", _knee_words(found)),
    ]
    notes = [("Note", text) if not at else ("", text) for at, text in enumerate(_notes(found))]
    return "\n".join([*labelled(rows), "", *_table(found), "", *labelled(notes)])


def cannot_be_met(found: Capacity) -> str:
    """Return the one line that says which promise no load keeps, and what idle servers do."""
    idle = found.idle
    if not idle.steady:
        run = next(run for run in idle.runs if run.unsteady is not None)
        why = f"the run is {run.verdict}" if run.changes else run.unsteady
        return f"No capacity is found: even at {_load(found, idle.load)} {why}"
    worst = idle.worst
    metric, _, percentile = worst.name.partition(":")[0].partition("_p")
    value = None
    if percentile:
        value = found.idle.percentile_s(metric, float(percentile))
    if value is not None and not found.refused_frac:
        came = f"{metric.upper()} p{percentile} is {three_digits(value.value * MS_PER_S)} ms"
    else:
        came = f"{worst.share:.1%} of requests keep it, {_asked(worst.required)} is asked"
        came += f"; {_refused_words(found)}" if found.refused_frac else ""
    return f"No load meets {worst.name}: even at {_load(found, idle.load)} {came}"


def _asked(share: float) -> str:
    return f"{share * 100:.4g}%"


def capacity_dict(found: Capacity) -> dict[str, Any]:
    """Return everything as JSON-able data; latencies in ms."""
    scenario = found.dial.scenario
    return {
        "scenario": {
            "name": scenario.name,
            "seed": scenario.seed,
            "digest": scenario.digest(),
            "assumed_numbers": assumed_numbers(scenario.deployment),
            "slo": [one.name for one in found.idle.attainments],
        },
        "resolved": scenario.resolved(),
        "remark": ". ".join(_remarks(found)) or None,
        "refused_frac": found.refused_frac,
        "unit": found.dial.kind,
        "think_time_s": found.dial.think_time_s if found.dial.whole else None,
        "capacity": found.load,
        "low": found.low,
        "high": found.high,
        "limited_by": _limit(found),
        "knee": found.knee,
        "good_share": found.good_share,
        "replications": found.replications,
        "loads_tested": found.loads_tested,
        "idle": _test_dict(found, found.idle),
        "frontier": [_test_dict(found, test) for test in found.frontier],
    }


def _test_dict(found: Capacity, test: LoadTest) -> dict[str, Any]:
    rates = {
        "served_per_s": test.served_per_s,
        "goodput_per_s": test.goodput_per_s,
        "output_tokens_per_s": test.output_tokens_per_s,
    }
    percentiles = {
        f"{metric}_p{q:g}": test.percentile_s(metric, q) for metric, q in _percentiles(found)
    }
    return {
        "load": test.load,
        "steady": test.steady,
        "met": test.met,
        "surely_met": test.surely_met,
        "surely_missed": test.surely_missed,
        **{
            name: None if one is None or not test.steady else one.as_dict()
            for name, one in rates.items()
        },
        "latency_ms": {
            name: one.as_dict(MS_PER_S) for name, one in percentiles.items() if one is not None
        },
        "objectives": [attainment_dict(one) for one in test.attainments],
    }


def _percentiles(found: Capacity) -> list[tuple[str, float]]:
    """Return which percentile of TTFT and TPOT is shown: the one that is asked for, or p99."""
    objectives = found.dial.scenario.slo.objectives if found.dial.scenario.slo else ()
    asked = {one.metric: one.percentile for one in objectives if one.percentile is not None}
    return [(metric, asked.get(metric) or _USUAL_PERCENTILE) for metric in _SHORT_OF]


def _slo_words(found: Capacity) -> str:
    slo = ", ".join(one.name for one in found.idle.attainments)
    if any(one.required_share is None for one in found.idle.runs[0].promises):
        return f"{slo}; those per request are asked of {_asked(found.good_share)} of them"
    return slo


def _capacity_words(found: Capacity) -> str:
    load = found.load if found.load is not None else 0.0
    if found.above is None:
        return f"more than {_load(found, load)}: no number of users that was tried is too many"
    low = "–" if found.low is None else _number(found, found.low)
    high = "–" if found.high is None else _number(found, found.high)
    words = f"{_load(found, load)} ({low} to {high} with 95 % confidence)"
    if found.dial.whole:
        words += f", who think {found.dial.think_time_s:g} s between answers on average"
    return words


def _limit(found: Capacity) -> str | None:
    """Return what breaks first: an objective, or ``load`` where there is no steady state."""
    if found.above is None:
        return None
    return found.above.worst.name if found.above.steady else "load"


def _limit_words(found: Capacity) -> str:
    if found.above is None:
        return "none found"
    at = f"at {_load(found, found.above.load)}"
    if not found.above.steady:
        runs = f"{found.above.unsteady_runs} of {len(found.above.runs)} replications"
        return f"the load itself: {at} {runs} have no steady state"
    worst = found.above.worst
    return (
        f"{worst.name}: {at} it is kept by {worst.share:.2%} of requests "
        f"({worst.low:.2%} to {worst.high:.2%}); {_asked(worst.required)} is asked"
    )


def _knee_words(found: Capacity) -> str:
    if found.knee is None:
        return "not reached: up to the highest load tried, throughput grows faster than latency"
    return f"about {_load(found, found.knee)}: from there on latency grows faster than throughput"


def _table(found: Capacity) -> list[str]:
    heads = [f"{_SHORT_OF[metric]} p{q:g} ms" for metric, q in _percentiles(found)]
    unit = "users" if found.dial.whole else "load /s"
    lines = [_row([unit, "goodput /s", *heads, "worst objective kept"])]
    lines += [_row(_cells(found, test)) + _mark(found, test) for test in found.frontier]
    return lines


def _row(cells: Sequence[str]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True))


def _cells(found: Capacity, test: LoadTest) -> list[str]:
    load = _number(found, test.load)
    if not test.steady:
        return [load, NO_INTERVAL, NO_INTERVAL, NO_INTERVAL, "no steady state"]
    latencies = [test.percentile_s(metric, q) for metric, q in _percentiles(found)]
    worst = test.worst
    share = f"{worst.share:.1%} ({worst.low:.1%}-{worst.high:.1%})"
    return [
        load,
        _cell(test.goodput_per_s, 1.0),
        *(_cell(one, MS_PER_S) for one in latencies),
        share,
    ]


def _cell(interval: Interval | None, factor: float) -> str:
    half = interval.half_width if interval is not None else None
    if interval is None or half is None:
        return NO_INTERVAL
    return with_half_width(interval.value * factor, half * factor)


def _mark(found: Capacity, test: LoadTest) -> str:
    return "  *" if test.load == found.load else ""


def _notes(found: Capacity) -> list[str]:
    requests = found.dial.scenario.workload.num_requests
    each = f" of {requests:,} requests or more" if requests is not None else ""
    runs = f"with the same {found.replications} replications{each}"
    if found.replications == 1:
        runs = "in one run each, for the workload is the same whatever the seed"
    deployment = found.dial.scenario.deployment
    return [
        f"* the capacity. {found.loads_tested} loads were tried {runs}; warm-up and drain are "
        "left out, ± and ranges are 95 % intervals, and – is what the runs are too short to say.",
        f"Latencies are those of {deployment.latency} and rest on "
        f"{assumed_numbers(deployment):,} assumed numbers; how far that may be off is not part of "
        "the interval.",
        *(f"{remark}." for remark in _remarks(found)),
    ]


def _remarks(found: Capacity) -> list[str]:
    """Return what has to be said of who is not served, of the engine and of the latency model."""
    deployment = found.dial.scenario.deployment
    remark = remark_of(deployment)
    remarks = [] if remark is None else [remark]
    if found.refused_frac:
        remarks.append(
            f"{_refused_words(found)}. They count as later than anybody; the latencies are those "
            "of the others"
        )
    return remarks


def _refused_words(found: Capacity) -> str:
    tokens = found.dial.scenario.deployment.engine.max_model_len
    return (
        f"{found.refused_frac:.1%} of the requests are refused at every load, for their prompts "
        f"fill the context of {tokens:,} tokens"
    )


def _load(found: Capacity, load: float) -> str:
    word = "user" if found.dial.whole and load == 1 else found.dial.kind
    return f"{_number(found, load)} {word}"


def _number(found: Capacity, load: float) -> str:
    return f"{load:,.0f}" if found.dial.whole else three_digits(load)
