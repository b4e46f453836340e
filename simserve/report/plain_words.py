"""One paragraph about a latency, made from an explanation's numbers and nothing else.

A sentence is there only if its numbers are, and says no more than they do: what may be chance is
called that.
"""

from __future__ import annotations

from simserve.planning.explanation import Explanation
from simserve.planning.sensitivity import TP, Swing
from simserve.planning.what_if import Effect
from simserve.results.samples import MS_PER_S
from simserve.results.waterfall_bands import MEDIAN_BAND

METRIC_WORDS = {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "e2el": "time to the last token",
}
PART_WORDS = {
    "slot_queue": "queue for a slot",
    "kv_queue": "queue for KV blocks",
    "own_prefill": "own prefill",
    "others_prefill": "others' prefill",
    "own_decode": "own decode steps",
    "decode_interference": "others' decodes",
    "preemption": "preemption and recompute",
    "host": "host",
}
"""What the parts of a waterfall are called."""

# Parts that are smaller than this share of a latency are not worth a word.
_WORTH_SAYING = 0.05
_MOST_PARTS = 3
_ALONE = 0.8  # from this share on, one part is the whole story


def in_plain_words(said: Explanation) -> str:
    """Return the paragraph."""
    sentences = [_how_long(said), _where(said), _at_the_median(said), _overload(said)]
    if said.base is not None:
        sentences += [_best(said), _sensitive(said), _dollars(said)]
    return " ".join(sentence for sentence in sentences if sentence)


def ms(seconds: float) -> str:
    """Return a time in ms with three digits, and none lost above a hundred."""
    value = seconds * MS_PER_S
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _name(said: Explanation) -> str:
    return f"p{said.question.percentile:g} {_short(said)}"


def _short(said: Explanation) -> str:
    return {"ttft": "TTFT", "tpot": "TPOT", "e2el": "E2E"}[said.question.metric]


def _how_long(said: Explanation) -> str:
    words = METRIC_WORDS[said.question.metric]
    text = f"The {_name(said)} ({words}) is {ms(said.value_s)} ms"
    if said.median_s and said.question.percentile != 50:
        text += f", {said.value_s / said.median_s:.1f} times the median of {ms(said.median_s)} ms"
    return text + "."


def _where(said: Explanation) -> str:
    band = said.asked_band
    parts = [name for name in band.ranked if band.share(name) >= _WORTH_SAYING][:_MOST_PARTS]
    if not parts:
        return ""
    who = "The request" if band.requests == 1 else f"The {band.requests:,} requests"
    verb = "spends" if band.requests == 1 else "spend"
    first = parts[0]
    extent = (
        "nearly all" if band.share(first) >= _ALONE else "most" if band.share(first) > 0.5 else ""
    )
    listed = _and([f"{PART_WORDS[name]} {band.share(name):.0%}" for name in parts])
    place = "there" if extent else "around it"
    if extent:
        return (
            f"{who} around it {verb} {extent} of that on {PART_WORDS[first]} "
            f"({ms(band.parts_s[first])} ms): {listed}."
        )
    return f"{who} {place} {verb} it on {listed}."


def _at_the_median(said: Explanation) -> str:
    """Say what is different at the median, if anything is."""
    middle = next((one for one in said.bands if (one.low, one.high) == MEDIAN_BAND), None)
    band = said.asked_band
    if middle is None or middle is band or not middle.ranked or not band.ranked:
        return ""
    top = middle.ranked[0]
    if top == band.ranked[0]:
        return f"At the median it is {PART_WORDS[top]} as well ({middle.share(top):.0%})."
    return (
        f"At the median the largest part is another: {PART_WORDS[top]} ({middle.share(top):.0%})."
    )


def _overload(said: Explanation) -> str:
    verdict = said.result.verdict
    if verdict.operating_point:
        return ""
    return "The run is overloaded: how long requests wait depends on how long it goes on."


def _best(said: Explanation) -> str:
    better = [one for one in said.counterfactuals if _is_gain(one)]
    if not better:
        beyond = " beyond chance" if said.question.has_intervals else ""
        return f"None of the counterfactuals lowers it{beyond}."
    sentence = f"{_as_it_is(said)} with {_cut(better[0])}, the most of all counterfactuals"
    if len(better) > 1:
        sentence += f"; with {_cut(better[1])}"
    return f"{sentence}.{_chance(said)}"


def _as_it_is(said: Explanation) -> str:
    """Return what the changes start from: of several replications, not the run's own number."""
    runs = said.question.replications
    if runs == 1 or said.base is None or said.base.value_s is None:
        return "In the same run"
    return f"Over {runs} replications it is {ms(said.base.value_s)} ms on average;"


def _cut(effect: Effect) -> str:
    value_s, change = effect.value_s or 0.0, effect.change_s
    saved = 0.0 if change is None else -change.value
    return f"{effect.name} it would be {ms(value_s)} ms ({ms(saved)} ms less)"


def _chance(said: Explanation) -> str:
    if said.question.has_intervals:
        return ""
    runs = said.question.replications
    return f" That is {'one run' if runs == 1 else f'{runs} runs'}; what is small may be chance."


def _is_gain(effect: Effect) -> bool:
    """Return whether a change lowers the latency, beyond chance where that is known."""
    change = effect.change_s
    if change is None or change.value >= 0:
        return False
    return change.high is None or change.high < 0


def is_sure(effect: Effect) -> bool:
    """Return whether a change moves the latency, one way, beyond chance."""
    change = effect.change_s
    if change is None or change.low is None or change.high is None:
        return False
    return change.high < 0 or change.low > 0


def _sensitive(said: Explanation) -> str:
    """Say which input moves it most, by a tenth; and which other tp does, if that gains more."""
    tenths = [one for one in said.swings if one.name != TP]
    known = [one for one in tenths if one.reach_s > 0 and _may_be_said(said, one)]
    if not known:
        return "No input moves it by itself when it is a tenth more or less." + _other_tp(said, 0.0)
    top = known[0]
    moves = [
        f"a tenth {word} of it {_moved(effect)}"
        for word, effect in (("less", top.less), ("more", top.more))
        if effect.change_s is not None
    ]
    sentence = f"Of the inputs it depends most on {top.name}: {_and(moves)}."
    return sentence + _other_tp(said, max(top.less.gain_s, top.more.gain_s))


def _other_tp(said: Explanation, most_s: float) -> str:
    """Say what half or twice the tp takes off, if that is more than ``most_s``."""
    tp = said.result.facts.tp
    for swing in (one for one in said.swings if one.name == TP):
        for changed, effect in ((tp // 2, swing.less), (tp * 2, swing.more)):
            if effect.gain_s > most_s and _is_gain(effect):
                return f" More still is in the GPUs: tp {changed} {_moved(effect)}."
    return ""


def _may_be_said(said: Explanation, swing: Swing) -> bool:
    return not said.question.has_intervals or is_sure(swing.less) or is_sure(swing.more)


def _moved(effect: Effect) -> str:
    value = 0.0 if effect.change_s is None else effect.change_s.value
    if not value:
        return "changes nothing"
    return f"adds {ms(value)} ms" if value > 0 else f"takes off {ms(-value)} ms"


def _dollars(said: Explanation) -> str:
    base = said.base
    if base is None or base.usd_per_mtok is None:
        return ""
    dearer = [
        (one, effect.usd_change)
        for one in said.swings
        for effect in (one.less, one.more)
        if effect.usd_change is not None and one.name != TP
    ]
    text = f"A million tokens cost ${base.usd_per_mtok:.3g} at this load"
    if not dearer:
        return text + "."
    top, change = max(dearer, key=lambda one: abs(one[1]))
    return f"{text}, and that depends most on {top.name} ({change:+.2g} for a tenth)."


def _and(words: list[str]) -> str:
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
