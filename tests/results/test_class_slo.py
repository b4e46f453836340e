"""Objectives of classes of requests: judged over their own requests, and all of it together."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simserve
from simserve.errors import InputError
from simserve.inputs.slo import ClassSlo, parse_slo
from simserve.inputs.workload import read_workload
from simserve.records.run_record import REJECTED
from simserve.report.text import run_report
from simserve.results.folder_laws import check_folder
from simserve.results.metrics import request_latencies
from simserve.results.result import Result
from simserve.results.slo_judge import SloReport, judge_slo
from simserve.traffic.generate import generate
from tests.results.scenarios import result, scenario

RUN = result()
COUNT = len(RUN.record.requests)


def judged(general: str | None, classes: dict[str, str | None], members: Any) -> SloReport:
    """Judge one run whose requests belong to classes as ``members`` (numbers) says."""
    numbers = np.asarray(members, dtype=np.int64)
    requests = dataclasses.replace(
        RUN.record.requests, request_class=numbers, class_names=tuple(classes)
    )
    record = dataclasses.replace(RUN.record, requests=requests)
    slos = [ClassSlo(name, parse_slo(one) if one else None) for name, one in classes.items()]
    slo = parse_slo(general) if general else None
    return judge_slo(slo, record, RUN.metrics, RUN.verdict, slos)


members = st.lists(st.integers(0, 1), min_size=COUNT, max_size=COUNT)
limits = st.sampled_from(["ttft:{}", "tpot:{} e2el:2000", "ttft_p90:{}", "itl_p99:{} ttft:50"])


@settings(max_examples=60)
@given(members, limits, st.floats(1, 500))
def test_classes_without_objectives_change_nothing(who: list[int], form: str, ms: float) -> None:
    general = form.format(ms)
    plain = judged(general, {}, who)
    split = judged(general, {"a": None, "b": None}, who)
    assert dataclasses.replace(split, classes=()) == plain
    if plain.good_requests is not None:
        assert sum(one.good_requests or 0 for one in split.classes) == plain.good_requests


@settings(max_examples=60)
@given(members, limits, st.floats(1, 500))
def test_an_slo_is_the_same_said_of_everyone_or_of_every_class(
    who: list[int], form: str, ms: float
) -> None:
    slo = parse_slo(form.format(ms))
    general, own = judged(str(slo), {}, who), judged(None, {"a": str(slo), "b": str(slo)}, who)
    assert own.objectives == ()
    assert own.good_requests == general.good_requests
    assert own.good_frac == general.good_frac
    if all(one.percentile is None for one in slo.objectives):
        assert own.met == general.met


@settings(max_examples=60)
@given(members, st.floats(1, 500), st.floats(1, 500))
def test_everyone_is_judged_by_the_own_class_or_else_the_general_objectives(
    who: list[int], own_ms: float, general_ms: float
) -> None:
    report = judged(f"ttft:{general_ms}", {"a": f"ttft:{own_ms}", "b": None}, who)
    latencies = request_latencies(RUN.record)
    limit_s = np.where(np.array(who) == 0, own_ms, general_ms) / 1000
    good = latencies.finished & (latencies.ttft_s <= limit_s)
    assert report.good_requests == good.sum()
    assert [one.requests for one in report.classes] == [who.count(0), who.count(1)]


@settings(max_examples=60)
@given(members)
def test_percentiles_of_a_class_are_those_of_its_own_requests(who: list[int]) -> None:
    slo = "ttft_p90:1 tpot_p50:1 e2el_p99:1 itl_p95:1"
    own = {one.name: one for one in judged(None, {"a": slo, "b": None}, who).classes[0].objectives}
    latencies = request_latencies(RUN.record)
    members = np.array(who) == 0
    chosen = latencies.finished & members
    rejected = (RUN.record.outcomes.status == REJECTED) & members
    for name, values_s, percentile in (
        ("ttft_p90", latencies.ttft_s, 90),
        ("tpot_p50", latencies.tpot_s, 50),
        ("e2el_p99", latencies.e2el_s, 99),
    ):
        picked = values_s[chosen & ~np.isnan(values_s)]
        at = percentile * (len(picked) + rejected.sum()) / len(picked) if len(picked) else 101
        value_ms = own[name].value_ms
        if at > 100:
            assert value_ms is None
        else:
            assert value_ms == pytest.approx(np.percentile(picked, at) * 1000, rel=1e-12)
    if all(number == 0 for number in who):
        assert own["itl_p95"].value_ms == (RUN.metrics.itl.percentile(95) or 0) * 1000


def test_requests_of_which_nothing_is_asked_are_neither_good_nor_bad() -> None:
    who = [0, 1] * (COUNT // 2)
    report = judged(None, {"a": "ttft:1000000", "b": None}, who)
    finished = request_latencies(RUN.record).finished
    assert report.good_requests == finished[::2].sum()
    assert report.good_frac == finished[::2].mean()
    assert report.classes[1].good_requests is None


def test_a_missed_objective_names_its_class() -> None:
    report = judged("ttft:1000000 e2el_p50:1000000", {"a": "ttft_p50:1", "b": None}, [0] * COUNT)
    assert report.reason == "not met: ttft_p50 of a"


WORKLOAD: dict[str, Any] = {
    "arrivals": {"rate_per_s": 10},
    "prompt_tokens": 200,
    "output_tokens": 12,
    "num_requests": 60,
    "classes": [
        {"name": "chat", "weight": 2, "slo": "ttft:500 tpot:0.05s"},
        {"name": "batch", "weight": 1, "slo": {"e2el_p95": "30s"}},
        {"name": "others", "weight": 1},
    ],
}


def test_a_run_says_what_came_of_every_class_and_its_files_say_the_same(tmp_path: Path) -> None:
    requests = generate(read_workload(WORKLOAD), seed=1)
    assert requests.class_names == ("chat", "batch", "others")
    run = result()
    record = dataclasses.replace(
        run.record,
        requests=dataclasses.replace(
            run.record.requests,
            request_class=requests.request_class[:COUNT] % 2,  # type: ignore[index]
            class_names=requests.class_names,
        ),
    )
    shipped = scenario("ttft:500", workload=read_workload(WORKLOAD))
    run = Result(shipped, record)
    run.save(tmp_path)
    loaded = Result.load(tmp_path)
    assert loaded.slo_report == run.slo_report
    assert run.bench_dict() == loaded.bench_dict()
    classes = run.bench_dict()["simserve"]["classes"]
    assert list(classes) == ["chat", "batch", "others"] and classes["others"]["requests"] == 0
    assert not any(one.law == "metrics-recomputed" for one in check_folder(tmp_path))
    assert loaded.requests_frame()["class"].tolist() == run.requests_frame()["class"].tolist()
    text = run_report(run)
    assert "all but chat, batch:" in text and "  e2el_p95 ≤ 30000 ms: " in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slo": "ttft"}, "workload.classes.0.slo: got ttft, allowed: name:limit"),
        ({"slo": {"tttf": 5}}, "did you mean ttft"),
        ({"slo": "ttft:-5"}, "workload.classes.0.slo: got ttft:-5, allowed: a limit above 0"),
        ({"slo": []}, "workload.classes.0.slo: got no objective"),
    ],
)
def test_wrong_objectives_of_a_class_are_named(change: dict[str, Any], message: str) -> None:
    entry = WORKLOAD | {"classes": [{"name": "chat", "weight": 1, **change}]}
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        read_workload(entry)


def test_general_objectives_that_nobody_is_asked_are_refused() -> None:
    classes = [{"name": "chat", "weight": 1, "slo": "ttft:500"}]
    entry = {"workload": WORKLOAD | {"classes": classes}, "slo": "tpot:50"}
    deployment = {"model": "llama-3.1-8b", "gpu": "h100-sxm"}
    with pytest.raises(InputError, match="slo: got tpot:50, allowed: nothing: every class"):
        simserve.run(entry | {"deployment": deployment})


def test_how_an_slo_is_written_does_not_change_the_digest() -> None:
    dumps = [
        read_workload(WORKLOAD | {"classes": [{"name": "a", "weight": 1, "slo": slo}]}).model_dump(
            mode="json"
        )["classes"][0]["slo"]
        for slo in ("ttft:500 tpot:50", {"ttft": 0.5 * 1000, "tpot": "50ms"}, ["ttft:0.5s tpot:50"])
    ]
    assert dumps == [{"ttft": 500.0, "tpot": 50.0}] * 3
