"""The pages of answers show the numbers that the commands printed."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simserve.cli import app
from simserve.errors import InputError
from simserve.inputs.prices import load_prices
from simserve.inputs.scenario import load_scenario
from simserve.planning.cost import cost
from simserve.planning.cost_question import CostQuestion
from simserve.report.cost_summary import cost_data, fleet_words
from simserve.report.html import load_page
from tests.report.pages import Page, read

QUESTION = CostQuestion(today=dt.date(2026, 11, 20), capacity_per_s=20.0)


def _page(folder: Path, answer: dict[str, Any]) -> Page:
    path = folder / "answer.json"
    path.write_text(json.dumps(answer))
    page = read(load_page(path).markup())
    assert page.problems == []
    return page


def _printed(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code in (0, 1), done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_bill_is_shown_with_its_lines_and_its_apis(small: Path, tmp_path: Path) -> None:
    answer = json.loads(json.dumps(cost_data(cost(load_scenario(small), QUESTION, load_prices()))))
    text = _page(tmp_path, answer).text()
    assert f"${answer['now']['usd']:,.0f}" in text
    for usd in answer["now"]["lines"].values():
        assert not usd or f"${usd:,.0f} (" in text
    for one in answer["apis"]:
        assert one["name"] in text
        assert one["source"] in text
    assert answer["digest"] in text
    assert f"{fleet_words(answer['fleets'])}." in text
    assert "without a spare" in text and "with 1 spare" in text
    assert "at no load to" not in text and "never" not in text


def test_a_bill_without_any_api_says_so(small: Path, tmp_path: Path) -> None:
    question = dataclasses.replace(QUESTION, rate_per_s=0.5)
    answer = cost_data(cost(load_scenario(small), question, load_prices()))
    answer = json.loads(json.dumps(answer)) | {"apis": [], "swings": []}
    assert "No API in the price list sells this model." in _page(tmp_path, answer).text()


def test_an_explanation_is_shown_with_its_waterfall_and_words(small: Path, tmp_path: Path) -> None:
    answer = _printed("explain", str(small), "--replications", "1", "--workers", "1")
    page = _page(tmp_path, answer)
    assert answer["words"] in page.text()
    for one in answer["counterfactuals"]:
        assert one["meaning"] in page.text()
    few = _printed("explain", str(small), "--no-changes", "--metric", "tpot")
    page = _page(tmp_path, few)
    assert "What would change it" not in page.text()


def test_a_capacity_is_shown_with_every_load_that_was_tried(small: Path, tmp_path: Path) -> None:
    words = ("capacity", str(small), "--replications", "1", "--precision", "50%", "--workers", "1")
    answer = _printed(*words, "--slo", "ttft_p95:200", "--set", "workload.num_requests=150")
    page = _page(tmp_path, answer)
    assert f"{answer['capacity']:.3g} requests/s" in page.text()
    for test in answer["frontier"]:
        load = test["load"]
        assert (f"{load:,.0f}" if load >= 100 else f"{load:.3g}") in page.text()
    assert answer["again"] in page.text()
    assert "resolves to the same values as the answer's" in page.text()
    for term in answer["resolved"]["deployment"]["kv"]["terms"]:
        assert term["source"] in page.text()
    for limit, said in ((None, "No higher load"), ("load", "grows without end")):
        assert said in _page(tmp_path, answer | {"limited_by": limit}).text()
    never = answer | {"capacity": None, "low": None, "high": None, "knee": None}
    assert "no load meets the SLO" in _page(tmp_path, never).text()


FEW_PLANS = (
    *("--gpu", "h100-sxm", "--tp", "1", "--max-gpus", "2", "--replications", "2", "--confirm", "1"),
    *(
        "--vary",
        "quantization=none",
        "--vary",
        "kv_cache_dtype=auto",
        "--vary",
        "max_num_seqs=64,9",
    ),
    *("--vary", "max_num_batched_tokens=2048", "--vary", "router=round-robin", "--workers", "1"),
    *("--set", "workload.num_requests=60"),
)


def test_an_answer_of_an_older_version_is_shown_without_a_scenario(
    small: Path, tmp_path: Path
) -> None:
    answer = _printed("explain", str(small), "--no-changes")
    older = {key: one for key, one in answer.items() if key not in ("resolved", "again")}
    assert "Run it again" in _page(tmp_path, answer).text()
    assert "Run it again" not in _page(tmp_path, older).text()


def test_a_plan_is_shown_with_its_price_its_proof_and_its_launch_line(
    small: Path, tmp_path: Path
) -> None:
    answer = _printed("plan", str(small), "--slo", "ttft_p95:500", *FEW_PLANS)
    winner, text = answer["winner"], _page(tmp_path, answer).text()
    assert winner["name"] in text
    assert f"${winner['usd_per_hour']:,.2f} an hour" in text
    assert f"{winner['kept']} of {winner['runs']} runs" in text
    assert winner["serve"] in text
    assert winner["offer"]["source"] in text
    assert text.count(winner["name"]) >= 2  # in words and in the table of the front
    none = _printed("plan", str(small), "--slo", "ttft_p95:0.001", *FEW_PLANS)
    assert none["winner"] is None
    text = _page(tmp_path, none).text()
    assert "no plan keeps the SLO" in text
    assert none["reason"] in text


def test_an_answer_that_lacks_something_is_refused_in_one_line(small: Path, tmp_path: Path) -> None:
    whole = json.loads(json.dumps(cost_data(cost(load_scenario(small), QUESTION, load_prices()))))
    for key in ("now", "offer", "capacity", "apis"):
        answer = copy.deepcopy(whole)
        answer[key] = [1, 2] if key == "apis" else {}
        path = tmp_path / f"{key}.json"
        path.write_text(json.dumps(answer))
        with pytest.raises(InputError, match=rf"{key}\.json"):
            load_page(path)
