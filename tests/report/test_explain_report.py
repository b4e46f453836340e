"""The report of an explanation: 80 columns, and words that follow the numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import simserve
from simserve.planning.explanation import Explanation, explain
from simserve.planning.sensitivity import Swing
from simserve.planning.what_if import Effect, Question
from simserve.report.explain import explain_dict, explain_text
from simserve.report.plain_words import PART_WORDS, in_plain_words
from simserve.results.intervals import Interval
from simserve.results.waterfall import COMPONENTS
from simserve.results.waterfall_bands import Band


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Explanation:
    path = tmp_path_factory.mktemp("explained") / "made.yaml"
    path.write_text(
        "workload:\n"
        "  arrivals: {process: poisson, rate_per_s: 40}\n"
        "  prompt_tokens: {median: 200, p95: 600, max: 2000}\n"
        "  output_tokens: {median: 20, p95: 60, max: 200}\n"
        "  num_requests: 80\n"
        "deployment: {model: llama-3.1-8b, gpu: h100-sxm}\n"
    )
    question = Question(metric="ttft", percentile=99, replications=3)
    return explain(simserve.load_scenario(path), question)


def effect(name: str, change_ms: float, half_ms: float | None, base_ms: float = 500) -> Effect:
    change = Interval(value=change_ms / 1000)
    if half_ms is not None:
        low, high = (change_ms - half_ms) / 1000, (change_ms + half_ms) / 1000
        change = Interval(value=change_ms / 1000, low=low, high=high)
    return Effect(
        name=name,
        meaning=name,
        value_s=(base_ms + change_ms) / 1000,
        change_s=change,
        usd_per_mtok=0.1,
        usd_change=0.0,
        notes=(),
        reason=None,
    )


def band(said: Explanation, **parts_ms: float) -> Explanation:
    """Return the explanation with the same made-up waterfall in all bands but the median."""
    parts = {name: parts_ms.get(name, 0.0) / 1000 for name in COMPONENTS}
    middle = parts | {"own_prefill": 1.0}
    bands = tuple(
        replace(one, parts_s=middle if one.name == "p49-p51" else parts) for one in said.bands
    )
    return replace(said, bands=bands)


def test_report_has_every_section_in_80_columns(said: Explanation) -> None:
    text = explain_text(said)
    assert max(map(len, text.splitlines())) <= 80
    for words in (
        "Where the time goes",
        "Without one of its causes",
        "One input a tenth",
        "In plain",
    ):
        assert words in text


@pytest.mark.parametrize("metric", ["ttft", "tpot", "e2el"])
def test_shares_sum_to_one_and_parts_to_the_latency(said: Explanation, metric: str) -> None:
    assert said.result.scenario is not None
    question = Question(metric=metric, percentile=95)
    one = explain(said.result.scenario, question, result=said.result, changes=False)
    for found in one.bands:
        assert sum(found.share(name) for name in COMPONENTS) == pytest.approx(1.0)
    everyone = one.bands[0]
    mean = said.result.metrics.sample(metric).mean
    assert everyone.latency_s == pytest.approx(mean, abs=1e-9)
    assert everyone.requests == said.result.metrics.sample(metric).size


def test_the_band_of_the_percentile_is_around_it(said: Explanation) -> None:
    asked = said.asked_band
    assert (asked.low, asked.high) == (98.0, 100.0)
    assert asked.requests == 2
    assert said.bands[0].latency_s < asked.latency_s


def test_one_request_is_found_by_its_id(said: Explanation) -> None:
    assert said.result.scenario is not None
    question = said.question
    one = explain(said.result.scenario, question, result=said.result, request="r7", changes=False)
    assert one.request is not None
    frame = said.result.requests_frame()
    assert one.request.latency_s == pytest.approx(frame["ttft_s"][7], abs=1e-9)
    assert "Request r7" in explain_text(one)


def test_words_name_the_largest_part(said: Explanation) -> None:
    for name in COMPONENTS:
        words = in_plain_words(band(said, **{name: 900.0, "host": 100.0}))
        assert f"nearly all of that on {PART_WORDS[name]} " in words.replace("\n", " ")
    words = in_plain_words(band(said, kv_queue=40, slot_queue=35, host=25))
    assert "on queue for KV blocks 40%, queue for a slot 35% and host 25%" in words
    assert "At the median the largest part is another: own prefill" in words
    words = in_plain_words(band(said, own_prefill=60, host=40))
    assert "At the median it is own prefill as well" in words


def test_words_name_the_best_counterfactual_and_only_beyond_chance(said: Explanation) -> None:
    sure, doubtful, worse = (
        effect("infinite KV", -300, 20),
        effect("2x FLOPs", -350, 400),
        effect("no host time", 30, 5),
    )
    words = in_plain_words(replace(said, counterfactuals=(doubtful, sure, worse)))
    assert "with infinite KV it would be 200 ms (300 ms less)" in words
    assert "2x FLOPs" not in words and "no host time" not in words
    words = in_plain_words(replace(said, counterfactuals=(doubtful, worse)))
    assert "None of the counterfactuals lowers it beyond chance." in words


def test_a_narrow_cause_is_named_before_a_wide_one_that_gains_no_more(said: Explanation) -> None:
    wide = effect("no interference", -300, 20)
    words = in_plain_words(replace(said, counterfactuals=(wide, effect("even arrivals", -290, 20))))
    assert words.index("with even arrivals") < words.index("with no interference")
    words = in_plain_words(replace(said, counterfactuals=(wide, effect("even arrivals", -200, 20))))
    assert words.index("with no interference") < words.index("with even arrivals")
    cache = effect("perfect prefix cache", -310, 20)
    words = in_plain_words(replace(said, counterfactuals=(cache, effect("infinite KV", -300, 20))))
    assert "with infinite KV" in words and "perfect prefix cache" not in words
    words = in_plain_words(replace(said, counterfactuals=(cache, effect("infinite KV", -90, 20))))
    assert "with perfect prefix cache" in words


def test_hardware_is_never_called_a_cause(said: Explanation) -> None:
    found = (effect("2x FLOPs", -400, 20), effect("infinite KV", -50, 20))
    words = in_plain_words(replace(said, counterfactuals=found))
    assert "its causes taken away one at a time: with infinite KV it would be 450 ms" in words
    assert "Of more hardware, 2x FLOPs gains most: 100 ms." in words


def test_a_queue_that_is_not_shorter_without_its_limit_is_said_to_be_none(
    said: Explanation,
) -> None:
    queued = band(said, slot_queue=900, host=100)
    no_gain = (effect("even arrivals", -300, 20), effect("no slot limit", 0, 0))
    words = in_plain_words(replace(queued, counterfactuals=no_gain))
    assert "With no slot limit alone it is no lower" in words
    doubtful = (effect("even arrivals", -300, 20), effect("no slot limit", -40, 60))
    words = in_plain_words(replace(queued, counterfactuals=doubtful))
    assert "With no slot limit alone it is not lower beyond chance." in words
    gain = (effect("even arrivals", -300, 20), effect("no slot limit", -40, 10))
    words = in_plain_words(replace(queued, counterfactuals=gain))
    assert "with no slot limit it would be 460 ms (40 ms less)" in words


def test_what_falls_in_every_run_is_told_where_the_runs_differ_too_much(said: Explanation) -> None:
    wild = replace(effect("even arrivals", -300, 900), lower_in=3)
    words = in_plain_words(replace(said, counterfactuals=(wild,)))
    assert "in each of the 3 it is lower with even arrivals (on average 200 ms)" in words
    words = in_plain_words(replace(said, counterfactuals=(replace(wild, lower_in=2),)))
    assert "None of the counterfactuals lowers it beyond chance." in words


def test_words_call_a_single_run_a_single_run(said: Explanation) -> None:
    one_run = replace(
        said,
        question=replace(said.question, replications=1),
        counterfactuals=(effect("2x FLOPs", -5, None),),
    )
    words = in_plain_words(one_run)
    assert "In the same run, no cause taken away lowers it; with 2x FLOPs it would be" in words
    assert "That is one run; what is small may be chance." in words


def test_words_name_the_input_that_moves_it_most(said: Explanation) -> None:
    rate = Swing(
        name="arrival rate",
        shown="±10%",
        less=effect("rate", -80, 10),
        more=effect("rate", 200, 10),
    )
    tp = Swing(name="tp", shown="1 → 2", less=effect("tp", 0, 0), more=effect("tp", -400, 10))
    words = in_plain_words(replace(said, swings=(tp, rate)))
    assert "depends most on arrival rate: a tenth less of it takes off 80 ms" in words
    assert "a tenth more of it adds 200 ms" in words
    still = Swing(name="seats", shown="±10%", less=effect("s", 0, 0), more=effect("s", 1, 9))
    words = in_plain_words(replace(said, swings=(still,)))
    assert "No input, a tenth more or less, moves it beyond chance." in words


def test_every_number_of_the_words_is_a_number_of_the_explanation(said: Explanation) -> None:
    words = in_plain_words(said)
    base = said.base
    assert base is not None and base.value_s is not None
    seen = [said.value_s * 1000, said.median_s * 1000, said.value_s / said.median_s]
    seen += [99, said.question.replications, said.asked_band.requests, base.value_s * 1000]
    for one in said.bands:
        seen += [one.share(name) * 100 for name in COMPONENTS]
        seen += [value * 1000 for value in one.parts_s.values()]
    seen += [number for one in said.traits for number in (one.these, one.all, one.ratio)]
    everything = [*said.counterfactuals, *(e for s in said.swings for e in (s.less, s.more)), base]
    for one_effect in everything:
        seen += [(one_effect.value_s or 0) * 1000, one_effect.usd_per_mtok or 0]
        seen += [one_effect.usd_change or 0]
        seen += [abs(one_effect.change_s.value) * 1000] if one_effect.change_s else []
    plain = re.sub(r"2x |tp \d+", "", words).replace(",", "")
    for number in map(float, re.findall(r"(?<![\w.])\d+(?:\.\d+)?", plain)):
        assert any(
            abs(number - abs(one)) <= 0.006 * abs(one) + 0.5 * (number >= 10) + 0.05 for one in seen
        ), number


def test_json_carries_what_the_text_shows(said: Explanation) -> None:
    data = explain_dict(said)
    assert data["value_ms"] == said.value_s * 1000
    for entry, found in zip(data["bands"], said.bands, strict=True):
        assert sum(entry["parts_ms"].values()) == pytest.approx(entry["latency_ms"], abs=1e-6)
        assert entry["requests"] == found.requests
    assert [one["name"] for one in data["counterfactuals"]] == [
        one.name for one in said.counterfactuals
    ]
    assert data["words"] == in_plain_words(said)


def test_a_saved_run_has_the_waterfall_of_the_run(tmp_path: Path, said: Explanation) -> None:
    said.result.save(tmp_path / "run")
    assert said.result.scenario is not None
    loaded = simserve.Result.load(tmp_path / "run")
    again = explain(said.result.scenario, said.question, result=loaded, changes=False)
    assert again.bands == said.bands


def test_a_saved_run_that_differs_from_now_is_told(said: Explanation) -> None:
    assert said.result.scenario is not None
    other = simserve.run(replace(said.result.scenario, seed=9))
    told = explain(said.result.scenario, replace(said.question, replications=1), result=other)
    assert "the saved run has" in told.notes[0]
    assert isinstance(told.bands[0], Band)


def test_the_change_of_tp_is_not_called_a_tenth(said: Explanation) -> None:
    flat = " ".join(explain_text(said).split())
    assert "a tenth less or more (tp halved or doubled)" in flat
    without = replace(said, swings=tuple(one for one in said.swings if one.name != "tp"))
    assert "tp halved" not in explain_text(without)


def test_words_name_another_tp_where_that_gains_most(said: Explanation) -> None:
    rate = Swing(name="arrival rate", shown="±10%", less=effect("", -50, 5), more=effect("", 60, 5))
    for gained_ms, told in ((65, True), (45, False)):
        less, more = effect("tp halved", 900, 5), effect("tp doubled", -gained_ms, 5)
        tp = Swing(name="tp", shown="1 → 2", less=less, more=more)
        words = in_plain_words(replace(said, swings=(tp, rate)))
        assert ("tp 2 takes off 65 ms" in words) is told


def test_the_assumed_numbers_are_counted(said: Explanation) -> None:
    count = said.result.facts.assumed_numbers
    assert f"It rests on {count} assumed numbers." in explain_text(said)
    assert explain_dict(said)["scenario"]["assumed_numbers"] == count
