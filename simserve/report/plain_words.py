"""One paragraph about a latency, made from an explanation's numbers and nothing else.

A sentence is there only if its numbers are, and says no more than they do: what may be chance is
called that.
"""

from __future__ import annotations

from simserve.planning.counterfactuals import (
    INFINITE_KV,
    MORE_HARDWARE,
    NO_HOST_TIME,
    NO_INTERFERENCE,
    NO_SLOT_LIMIT,
    PERFECT_CACHE,
)
from simserve.planning.explanation import Explanation
from simserve.planning.sensitivity import TP, Swing
from simserve.planning.what_if import Effect
from simserve.planning.who_is_slow import ARRIVALS, PROMPT, Trait
from simserve.report.columns import enumerated
from simserve.report.intervals import SHORT_OF
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

# What takes a part away that is not the request's own.
_WITHOUT = {
    "slot_queue": NO_SLOT_LIMIT,
    "kv_queue": INFINITE_KV,
    "preemption": INFINITE_KV,
    "others_prefill": NO_INTERFERENCE,
    "host": NO_HOST_TIME,
}

# Parts that are smaller than this share of a latency are not worth a word.
_WORTH_SAYING = 0.05
_MOST_PARTS = 3
_MOST = 0.5
_ALONE = 0.8  # from this share on, one part is the whole story
# From this many times the mean of all requests on, a trait sets these apart.
_APART = 1.5
# A cause that gains at least this share of what the best one gains is named, too.
_AS_GOOD = 0.5
# A narrower cause is named before a wider one that takes more away, if it gains this share of it.
_NEARLY_ALL = 0.9


def in_plain_words(said: Explanation) -> str:
    """Return the paragraph."""
    sentences = [_how_long(said), _where(said), _at_the_median(said), _who(said), _overload(said)]
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
    return SHORT_OF[said.question.metric]


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
    first, share = parts[0], band.share(parts[0])
    listed = enumerated([f"{PART_WORDS[name]} {band.share(name):.0%}" for name in parts])
    if share <= _MOST:
        return f"{who} around it {verb} it on {listed}."
    extent = "nearly all" if share >= _ALONE else "most"
    spent = f"{who} around it {verb} {extent} of that on {PART_WORDS[first]}"
    if len(parts) == 1:
        return f"{spent} ({ms(band.parts_s[first])} ms, {share:.0%})."
    return f"{spent} ({ms(band.parts_s[first])} ms): {listed}."


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


def _who(said: Explanation) -> str:
    """Say what sets these requests apart from all others."""
    who = (
        ("it", "its prompt is") if said.asked_band.requests == 1 else ("them", "their prompts are")
    )
    found = [words for words in (_apart(one, *who) for one in said.traits) if words]
    return f"What sets {who[0]} apart: {'; '.join(found)}." if found else ""


def _apart(trait: Trait, them: str, their_prompts_are: str) -> str:
    if trait.ratio < _APART or trait.may_be_chance:
        return ""
    these, everyone = trait_number(trait, trait.these), trait_number(trait, trait.all)
    if trait.replica is not None:
        return f"{these} of them were on replica {trait.replica}, which has {everyone} of all"
    if trait.name == PROMPT:
        return f"{their_prompts_are} {trait.ratio:.1f} times as long as the mean ({these} tokens)"
    if trait.name == ARRIVALS:
        return f"just before {them} requests came at {these}/s, on average at {everyone}/s"
    return ""


def trait_number(trait: Trait, value: float) -> str:
    """Return one number of a trait: a share, a count, or a rate."""
    if trait.is_share:
        return f"{value:.0%}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _overload(said: Explanation) -> str:
    if said.result.verdict.operating_point:
        return ""
    text = "The run is overloaded: how long requests wait depends on how long it goes on."
    if said.base is None or not said.base.overloaded_in:
        return text
    tried = [(one.name, one) for one in said.counterfactuals]
    tried += [(f"{TP} {tp}", effect) for tp, effect in _other_sizes(said)]
    left = {name: one for name, one in tried if one.value_s is not None and not one.overloaded_in}
    if not left:
        return f"{text} None of the changes tried ends that: the load is too much as it is."
    ends = [name for name, one in left.items() if one.stable_in == said.question.replications]
    if ends:
        text += f" What ends that by itself: {enumerated(ends)}."
    if len(ends) < len(left):
        unknown = enumerated([name for name in left if name not in ends])
        text += f" The runs are too short to tell whether that ends with {unknown}."
    return text


def _best(said: Explanation) -> str:
    """Say which causes gain most, taken away, and which hardware; what overlaps does not add."""
    better = [one for one in said.counterfactuals if _is_gain(one)]
    causes = _narrow_first([one for one in better if one.name not in MORE_HARDWARE])
    hardware = [one for one in better if one.name in MORE_HARDWARE]
    if not better:
        return _no_gain(said)
    if not causes:
        beyond = " beyond chance" if said.question.has_intervals else ""
        sentence = f"{_as_it_is(said)} no cause taken away lowers it{beyond}; with"
        return f"{sentence} {_cut(hardware[0])}.{_chance(said)}"
    least_s, largest = _AS_GOOD * causes[0].gain_s, _of_the_largest_part(said)
    listed = [_cut(one) for one in causes[:_MOST_PARTS] if one.gain_s >= least_s]
    listed += [_cut(one) for one in causes if one is largest and _cut(one) not in listed]
    sentence = (
        f"{_as_it_is(said)} its causes taken away one at a time: with {'; with '.join(listed)}."
    )
    if largest is not None and largest not in better:
        sentence += f" With {largest.name} alone {_no_lower(largest)}."
    if hardware:
        sentence += f" Of more hardware, {hardware[0].name} gains most: {_to(hardware[0])}."
    return f"{sentence}{_chance(said)}"


def _of_the_largest_part(said: Explanation) -> Effect | None:
    """Return the change that takes the largest part away, if that is not the request's own work."""
    ranked = said.asked_band.ranked
    name = _WITHOUT.get(ranked[0]) if ranked else None
    return next((one for one in said.counterfactuals if one.name == name and not one.reason), None)


def _no_lower(effect: Effect) -> str:
    if effect.gain_s > 0:
        return "it is not lower beyond chance"
    return "it is no lower: who waits there waits elsewhere"


def _narrow_first(causes: list[Effect]) -> list[Effect]:
    """Return causes by gain, but one that takes much away at once after a narrow one of its gain.

    A perfect cache has endless KV besides, and without interference prompts take no capacity.
    """
    gain_s = {one.name: one.gain_s for one in causes}
    kv_s, cache_s = gain_s.get(INFINITE_KV, 0.0), gain_s.get(PERFECT_CACHE, 0.0)
    if kv_s >= _NEARLY_ALL * cache_s:
        causes = [one for one in causes if one.name != PERFECT_CACHE]
    if len(causes) < 2 or causes[0].name != NO_INTERFERENCE:
        return causes
    first, second, *rest = causes
    return [second, first, *rest] if second.gain_s >= _NEARLY_ALL * first.gain_s else causes


def _no_gain(said: Explanation) -> str:
    if not said.question.has_intervals:
        return "None of the counterfactuals lowers it."
    runs = said.question.replications
    always = [one for one in said.counterfactuals if one.lower_in == runs]
    text = "None of the counterfactuals lowers it beyond chance"
    if not always:
        return f"{text}."
    return (
        f"{text}, since the runs differ so much; but in each of the {runs} it is lower with "
        f"{always[0].name} (on average {_to(always[0])}). More --replications tell."
    )


def _to(effect: Effect) -> str:
    return f"{ms(effect.value_s or 0.0)} ms{_still(effect)}"


def _as_it_is(said: Explanation) -> str:
    """Return what the changes start from: of several replications, not the run's own number."""
    runs = said.question.replications
    if runs == 1 or said.base is None or said.base.value_s is None:
        return "In the same run,"
    return f"Over {runs} replications it is {ms(said.base.value_s)} ms on average;"


def _cut(effect: Effect) -> str:
    value_s, change = effect.value_s or 0.0, effect.change_s
    saved = 0.0 if change is None else -change.value
    return f"{effect.name} it would be {ms(value_s)} ms ({ms(saved)} ms less{_still(effect)})"


def _still(effect: Effect) -> str:
    runs = effect.overloaded_in
    return f"; overloaded in {runs} run{'s' if runs > 1 else ''}" if runs else ""


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
        beyond = " beyond chance" if said.question.has_intervals else ""
        return f"No input, a tenth more or less, moves it{beyond}." + _other_tp(said, 0.0)
    top = known[0]
    moves = [
        f"a tenth {word} of it {_moved(effect)}"
        for word, effect in (("less", top.less), ("more", top.more))
        if effect.change_s is not None
    ]
    sentence = f"Of the inputs it depends most on {top.name}: {enumerated(moves)}."
    return sentence + _other_tp(said, max(top.less.gain_s, top.more.gain_s))


def _other_tp(said: Explanation, most_s: float) -> str:
    """Say what half or twice the tp takes off, if that is more than ``most_s``."""
    for tp, effect in _other_sizes(said):
        if effect.gain_s > most_s and _is_gain(effect):
            return f" More still is in the GPUs: tp {tp} {_moved(effect)}."
    return ""


def _other_sizes(said: Explanation) -> list[tuple[int, Effect]]:
    """Return half and twice the tp, with what each does."""
    tp = said.result.facts.tp
    pairs = [(one.less, one.more) for one in said.swings if one.name == TP]
    return [found for less, more in pairs for found in ((tp // 2, less), (tp * 2, more))]


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
