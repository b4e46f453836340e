"""An explanation as text in 80 columns and as JSON: waterfall, counterfactuals, sensitivity."""

from __future__ import annotations

from typing import Any

from simserve.planning.explanation import Explanation
from simserve.planning.sensitivity import TP, Swing
from simserve.planning.what_if import Effect
from simserve.report.columns import filled, labelled
from simserve.report.deployed import stored_of_run
from simserve.report.intervals import NO_INTERVAL, SHORT_OF, with_half_width
from simserve.report.plain_words import PART_WORDS, in_plain_words, trait_number
from simserve.results.intervals import Interval
from simserve.results.samples import MS_PER_S
from simserve.results.waterfall import COMPONENTS
from simserve.results.waterfall_bands import Band

_INDENT = "  "
_LABEL, _CELL, _SHARE = 26, 11, 8
_NAME, _VALUE, _CHANGE = 26, 12, 18
_INPUT, _SIDE = 34, 16
_WHO = _LABEL + 2 * _CELL


def explain_text(said: Explanation) -> str:
    """Return the report."""
    facts, question = said.result.facts, said.question
    name = f"p{question.percentile:g} {SHORT_OF[question.metric]}"
    gpus = facts.tp * facts.replicas
    rows = [
        ("Scenario", f"{facts.name} (seed {facts.seed})"),
        ("Model", f"{stored_of_run(facts)}, on {gpus} × {facts.gpu} (tp {facts.tp})"),
        ("Traffic", facts.traffic),
        ("Verdict", f"{said.result.verdict.name}: {said.result.verdict.reason}"),
        ("Explained", f"{name}, {_ms(said.value_s)} ms"),
        *(("Note", note) for note in said.notes),
        ("Note", f"It rests on {facts.assumed_numbers:,} assumed numbers."),
    ]
    lines = [*labelled(rows), "", *_waterfall(said)]
    if said.traits:
        lines += ["", *_who(said)]
    if said.request is not None:
        lines += ["", *_one_request(said.request, question.metric)]
    if said.base is not None:
        lines += ["", *_counterfactuals(said, name), "", *_sensitivity(said, name)]
    return "\n".join([*lines, "", *filled(f"In plain words: {in_plain_words(said)}")])


def _waterfall(said: Explanation) -> list[str]:
    short = SHORT_OF[said.question.metric]
    asked = said.asked_band
    per = " per token after the first" if said.question.metric == "tpot" else ""
    title = f"Where the time goes: {short}{per} in ms, mean of the requests between percentiles"
    heads = "".join(f"{one.name:>{_CELL}}" for one in said.bands)
    lines = [*filled(title), f"{'':<{_LABEL}}{heads}{'share':>{_SHARE}}"]
    for part in COMPONENTS:
        if not any(one.parts_s[part] for one in said.bands):
            continue
        cells = "".join(f"{_ms(one.parts_s[part]):>{_CELL}}" for one in said.bands)
        lines.append(
            f"{_INDENT}{PART_WORDS[part]:<{_LABEL - 2}}{cells}{asked.share(part):>{_SHARE}.1%}"
        )
    sums = "".join(f"{_ms(one.latency_s):>{_CELL}}" for one in said.bands)
    counts = "".join(f"{one.requests:>{_CELL},}" for one in said.bands)
    lines.append(f"{short:<{_LABEL}}{sums}{1:>{_SHARE}.1%}")
    lines.append(f"{'requests':<{_LABEL}}{counts}")
    if len(said.bands) > 1:
        lines += filled(f"The share is that of {asked.name}.", _INDENT, _INDENT)
    return lines


def _who(said: Explanation) -> list[str]:
    head = f"Who they are, mean of {said.asked_band.name} and of all"
    lines = [f"{head:<{_WHO}}{'these':>{_CELL}}{'all':>{_CELL}}"]
    for one in said.traits:
        cells = "".join(f"{trait_number(one, value):>{_CELL}}" for value in (one.these, one.all))
        lines.append(f"{_INDENT + one.name:<{_WHO}}{cells}")
    return lines


def _one_request(band: Band, metric: str) -> list[str]:
    lines = [f"Request {band.name}: {SHORT_OF[metric]} {_ms(band.latency_s)} ms"]
    return lines + [
        f"{_INDENT}{PART_WORDS[part]:<{_LABEL - 2}}{_ms(band.parts_s[part]):>{_CELL}}"
        f"{band.share(part):>{_SHARE}.1%}"
        for part in COMPONENTS
        if band.parts_s[part]
    ]


def _counterfactuals(said: Explanation, name: str) -> list[str]:
    lines = filled(f"Without one of its causes: {name} in ms, {_runs(said)}", hang=_INDENT)
    lines.append(f"{'':<{_NAME}}{'would be':>{_VALUE}}{'change':>{_CHANGE}}")
    if said.base is not None:
        lines.append(f"{_INDENT}{'as it is':<{_NAME - 2}}{_value(said.base):>{_VALUE}}")
        if said.base.overloaded_in:
            runs = f"{said.base.overloaded_in} of {said.question.replications}"
            words = f"overloaded in {runs} runs: these latencies depend on how long they go on"
            lines += filled(words, _INDENT * 2, _INDENT * 2)
    for one in said.counterfactuals:
        lines += _effect_lines(one)
    return lines


def _effect_lines(one: Effect) -> list[str]:
    if one.reason is not None:
        return filled(f"{one.name}: cannot be made: {one.reason}", _INDENT, _INDENT * 2)
    line = f"{_INDENT}{one.name:<{_NAME - 2}}{_value(one):>{_VALUE}}{_change(one):>{_CHANGE}}"
    return [line, *filled("; ".join((one.meaning, *one.notes)), _INDENT * 2, _INDENT * 2)]


def _sensitivity(said: Explanation, name: str) -> list[str]:
    lines = filled(f"{_moved(said)}: change of {name} in ms", hang=_INDENT)
    lines.append(
        f"{'':<{_INPUT}}{'less':>{_SIDE}}{'more':>{_SIDE}}{'$/M':>{80 - _INPUT - 2 * _SIDE}}"
    )
    reasons: dict[str, list[str]] = {}
    for one in said.swings:
        if one.less.reason is not None and one.more.reason is not None:
            reasons.setdefault(one.more.reason, []).append(one.name)
            continue
        lines += _swing_lines(one)
    for reason, names in reasons.items():
        lines += filled(f"{', '.join(names)}: cannot be moved: {reason}", _INDENT, _INDENT * 2)
    base = said.base
    if said.offer is not None and base is not None and base.usd_per_mtok is not None:
        price = f"${said.offer.usd_per_gpu_hour:.4g} per GPU-hour ({said.offer.name}"
        words = f"A million tokens, prompts included, cost ${base.usd_per_mtok:.4g} if every hour"
        words += f" were like this one, at {price}, of {said.offer.price.date}); the column has the"
        words += " larger change."
        lines += filled(words, _INDENT, _INDENT)
    elif said.no_price is not None:
        lines += filled(f"No dollars: {said.no_price}", _INDENT, _INDENT)
    return lines


def _moved(said: Explanation) -> str:
    """Return by how much inputs are moved: GPUs come in powers of two, so tp is halved, doubled."""
    words = "One input a tenth less or more"
    return words + (" (tp halved or doubled)" if any(one.name == TP for one in said.swings) else "")


def _swing_lines(one: Swing) -> list[str]:
    usd = [effect.usd_change for effect in (one.less, one.more) if effect.usd_change is not None]
    shown = _usd(max(usd, key=abs)) if usd else NO_INTERVAL
    name = f"{one.name} {one.shown}"
    line = f"{_INDENT}{name:<{_INPUT - 2}}"
    lines = []
    if len(name) > _INPUT - 3:
        lines, line = [f"{_INDENT}{name}"], " " * _INPUT
    sides = "".join(f"{_change(effect):>{_SIDE}}" for effect in (one.less, one.more))
    lines.append(f"{line}{sides}{shown:>{80 - _INPUT - 2 * _SIDE}}")
    for word, effect in (("less", one.less), ("more", one.more)):
        said = [effect.reason] if effect.reason is not None else list(effect.notes)
        if said:
            lines += filled(f"{word}: {'; '.join(map(str, said))}", _INDENT * 2, _INDENT * 3)
    return lines


def _usd(change: float) -> str:
    text = f"{change:+.4f}"
    return text if float(text) else "0"


def _runs(said: Explanation) -> str:
    count = said.question.replications
    if count == 1:
        return "one run with the same random numbers, so without interval"
    if not said.question.has_intervals:
        return f"mean of {count} runs with the same random numbers, too few for intervals"
    return f"mean of {count} replications with the same random numbers, ± 95 %"


def _value(one: Effect) -> str:
    return NO_INTERVAL if one.value_s is None else _ms(one.value_s)


def _change(one: Effect) -> str:
    change = one.change_s
    if change is None:
        return NO_INTERVAL
    half = change.half_width
    if half:
        text = with_half_width(change.value * MS_PER_S, half * MS_PER_S)
        return text if change.value < 0 else f"+{text}"
    return (
        "0" if not change.value else f"{'+' if change.value > 0 else '-'}{_ms(abs(change.value))}"
    )


def _ms(seconds: float) -> str:
    value = seconds * MS_PER_S
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.2f}"


def explain_dict(said: Explanation) -> dict[str, Any]:
    """Return everything as JSON-able data; latencies in ms."""
    facts, question = said.result.facts, said.question
    return {
        "scenario": {
            "name": facts.name,
            "seed": facts.seed,
            "digest": facts.digest,
            "assumed_numbers": facts.assumed_numbers,
        },
        "resolved": facts.resolved,
        "verdict": said.result.verdict.name,
        "metric": question.metric,
        "percentile": question.percentile,
        "value_ms": said.value_s * MS_PER_S,
        "median_ms": said.median_s * MS_PER_S,
        "bands": [_band_dict(one) for one in said.bands],
        "request": None if said.request is None else _band_dict(said.request),
        "who": [
            {
                "name": one.name,
                "these": one.these,
                "all": one.all,
                "is_share": one.is_share,
            }
            for one in said.traits
        ],
        "replications": question.replications,
        "base": None if said.base is None else _effect_dict(said.base),
        "counterfactuals": [_effect_dict(one) for one in said.counterfactuals],
        "sensitivity": [
            {
                "input": one.name,
                "shown": one.shown,
                "less": _effect_dict(one.less),
                "more": _effect_dict(one.more),
            }
            for one in said.swings
        ],
        "price": None
        if said.offer is None
        else {
            "offer": said.offer.name,
            "usd_per_gpu_hour": said.offer.usd_per_gpu_hour,
            "date": said.offer.price.date,
        },
        "no_price": said.no_price,
        "notes": list(said.notes),
        "words": in_plain_words(said),
    }


def _band_dict(band: Band) -> dict[str, Any]:
    return {
        "name": band.name,
        "low": band.low,
        "high": band.high,
        "requests": band.requests,
        "latency_ms": band.latency_s * MS_PER_S,
        "parts_ms": {name: value * MS_PER_S for name, value in band.parts_s.items()},
    }


def _effect_dict(one: Effect) -> dict[str, Any]:
    change: Interval | None = one.change_s
    return {
        "name": one.name,
        "meaning": one.meaning,
        "value_ms": None if one.value_s is None else one.value_s * MS_PER_S,
        "change_ms": None if change is None else change.as_dict(MS_PER_S),
        "usd_per_mtok": one.usd_per_mtok,
        "usd_change": one.usd_change,
        "notes": list(one.notes),
        "lower_in": one.lower_in,
        "overloaded_in": one.overloaded_in,
        "stable_in": one.stable_in,
        "cannot_be_made": one.reason,
    }
