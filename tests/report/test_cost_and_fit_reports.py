"""The texts of ``fit`` and ``cost``: 80 columns, and every number that of the data beside it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest

from simserve.inputs.prices import load_prices
from simserve.inputs.scenario import load_deployment_spec, load_scenario
from simserve.planning.contiguous import Pool, compare_contiguous
from simserve.planning.cost import CostReport, cost
from simserve.planning.cost_question import CostQuestion
from simserve.planning.fit_changes import _KINDS
from simserve.planning.memory_fit import memory_fit
from simserve.report.columns import WIDTH, labelled
from simserve.report.cost import _pays, _pays_between, cost_report
from simserve.report.cost_summary import band_of, cost_data, plain_sum
from simserve.report.fit import fit_data, fit_report
from simserve.traffic.generate import generate

QUESTION = CostQuestion(today=dt.date(2026, 11, 20), capacity_per_s=20.0)


def asked(small: Path, **changes: Any) -> CostReport:
    return cost(load_scenario(small), dataclasses.replace(QUESTION, **changes), load_prices())


FITS: list[dict[str, Any]] = [
    {},
    {"model": "llama-3.1-405b", "tp": 8},
    {"model": "gemma-3-27b"},
    {"gpu": "gaudi-2", "model": "llama-3.1-70b"},
]
QUESTIONS: list[dict[str, Any]] = [
    {},
    {"rate_per_s": 0.001},
    {"rate_per_s": 1e5, "users": 10_000_000, "fte": 2.5, "fte_usd_per_year": 250_000.0},
    {"apis": ("together/meta-llama/Meta-Llama-3.1-405B-Instruct-Turbo", "openai/gpt-4.1-nano")},
    {"gpu_usd_per_hour": 2.49, "spares": 0, "apis": ("openai/gpt-5.5",)},
    {"offer": "aws/p5.48xlarge", "rate_per_s": 200.0, "peak_to_mean": 2.0},
]


@pytest.mark.parametrize("case", FITS, ids=str)
def test_fit_is_said_in_80_columns_with_every_term(case: dict[str, Any]) -> None:
    spec, origins = load_deployment_spec(**case)
    fit = memory_fit(spec, origins, load_prices())
    text = fit_report(fit)
    assert max(map(len, text.splitlines())) <= WIDTH
    flat = " ".join(text.split())
    for term in fit.terms:
        assert f"{term.name.replace('_', ' ')} {term.bytes / 2**30:.2f}" in flat
    for change in fit.changes:
        assert all(str(value) in flat for value in change.settings.values())
    data = json.loads(json.dumps(fit_data(fit), allow_nan=False))
    assert data["fits"] == fit.fits == ("Fits yes" in flat)
    assert sum(term["bytes"] for term in data["terms"]) == data["memory_bytes"] + data["over_bytes"]
    for name in data["assumed"]:
        assert name.replace("_", " ") in flat


def test_both_log_lines_of_vllm_stand_alone() -> None:
    spec, origins = load_deployment_spec(settings=["max_model_len=8k"])
    lines = fit_report(memory_fit(spec, origins, load_prices())).splitlines()
    [at] = [at for at, line in enumerate(lines) if line.startswith("GPU KV cache size: ")]
    assert lines[at].endswith(" tokens")
    assert lines[at + 1].startswith("Maximum concurrency for 8,000 tokens per request: ")


def test_contiguous_is_compared_with_the_literature(small: Path) -> None:
    scenario = load_scenario(small, settings=["max_model_len=2048"])
    pool = Pool(tokens=65_536, block_size=16, max_model_len=2048, max_num_seqs=256)
    found = compare_contiguous(generate(scenario.workload, scenario.seed), pool)
    spec, origins = load_deployment_spec(settings=["max_model_len=2048"])
    fit = memory_fit(spec, origins, load_prices())
    text = " ".join(fit_report(fit, found).split())
    assert f"{found.more_requests:,.1f} times as many requests at once" in text
    assert "20.4%-38.2% of the literature" in text
    data = fit_data(fit, found)["contiguous"]
    assert [one["name"] for one in data["servers"]] == ["contiguous", "buddy", "paged"]
    assert data["literature"][0]["source"].startswith("Kwon et al.")


@pytest.mark.parametrize("changes", QUESTIONS, ids=str)
def test_cost_is_said_in_80_columns_and_as_data(small: Path, changes: dict[str, Any]) -> None:
    report = asked(small, **changes)
    text = cost_report(report)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert not any(line != line.rstrip() for line in text.splitlines())
    assert not re.search(r"\b(nan|inf)\b|\de[+-]\d", text.replace("4.1-nano", ""))
    flat = " ".join(text.split())
    assert f"the bill {report.now.usd:,.2f}" in flat
    for one in report.apis:
        assert one.bill.price.name in flat
    for name in report.assumed:
        assert name.split()[0] in flat
    for warning in report.warnings:
        assert warning in flat
    data = json.loads(json.dumps(cost_data(report), allow_nan=False))
    assert sum(data["now"]["lines"].values()) == pytest.approx(data["now"]["usd"])
    assert len(data["apis"]) == len(report.apis)


def test_engineers_are_counted_or_said_not_to_be(small: Path) -> None:
    assert "$0: nobody's time is counted" in cost_report(asked(small))
    text = cost_report(asked(small, fte=0.5, fte_usd_per_year=120_000.0))
    assert "0.5 at $120,000 a year: $5,000 a month" in text


def test_a_range_whose_ends_are_equal_is_one_number() -> None:
    assert _pays("958", "958") == "pays from 958, best and worst"
    assert _pays("at no load", "at no load") == "pays at no load"
    assert _pays("958", "at no load") == "pays from 958 at best, at no load at worst"
    assert _pays_between("958", "958") == "pays from 958 M tokens a day at both ends"
    assert _pays_between("at no load", "7") == "pays at no load or from 7 M tokens a day"
    assert _pays_between("at no load", "at no load") == "pays at no load"


def test_a_fleet_that_never_pays_is_said_to_pay_at_no_load(small: Path) -> None:
    report = asked(small, apis=("openai/gpt-5-nano",), gpu_usd_per_hour=500.0)
    assert report.apis[0].break_even.first_per_s is None
    text = cost_report(report)
    row = next(line for line in text.splitlines() if "openai/gpt-5-nano" in line)
    assert row.endswith("  at no load")
    assert "from never" not in text and "  never" not in text


@pytest.mark.parametrize("gpu", ["gaudi-2", "tpu-v6e"])
def test_hardware_of_other_software_is_remarked_by_fit_and_cost(gpu: str, small: Path) -> None:
    said = f"itself does not run on {gpu}: "
    spec, origins = load_deployment_spec(gpu=gpu, settings=["max_model_len=4096"])
    fit = memory_fit(spec, origins, load_prices())
    assert said in " ".join(fit_report(fit).split()) and said in fit_data(fit)["remark"]
    scenario = load_scenario(small, gpu=gpu, settings=["max_model_len=4096"])
    question = dataclasses.replace(QUESTION, gpu_usd_per_hour=2.0)
    assert said in " ".join(cost_report(cost(scenario, question, load_prices())).split())
    spec, origins = load_deployment_spec()
    assert "Note" not in fit_report(memory_fit(spec, origins, load_prices()))


def test_a_bill_of_a_thousand_machines_stays_in_its_columns(small: Path) -> None:
    text = cost_report(asked(small, rate_per_s=1e6))
    assert re.search(r"groq/llama-3.1-8b-instant +[\d,]+ M +[\d,]+ M ", text)


def test_each_user_pays_a_share(small: Path) -> None:
    report = asked(small, users=1000)
    assert cost_data(report)["now"]["usd_per_user"] == pytest.approx(report.now.usd / 1000)
    assert f"Each of 1,000 users costs ${report.now.usd / 1000:.2f} a month." in cost_report(report)


def test_the_textbook_sum_of_a_report_is_its_bill_over_output_tokens(small: Path) -> None:
    report = asked(small)
    assert plain_sum(report) == pytest.approx(report.now.usd / report.now.tokens["output"] * 1e6)


@pytest.mark.parametrize(
    ("tokens", "name"), [(9e5, "small"), (1e6, "middle"), (1e8, "middle"), (1.1e8, "large")]
)
def test_bands_are_those_of_the_rule_of_thumb(tokens: float, name: str) -> None:
    assert band_of(tokens).name == name


def test_labels_keep_long_texts_beside_them() -> None:
    lines = labelled([("A", "word " * 40), ("Longer", "x")])
    assert lines[-1] == "Longer  x"
    assert all(line.startswith(("A       ", "        ")) for line in lines[:-1])
    assert max(map(len, lines)) <= WIDTH


def test_python_of_the_cost_page_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "cost.md").read_text(encoding="utf-8")
    [source] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(source, "docs/cost.md", "exec"), {})
    [said] = re.findall(r"\)  # (.*)$", source, re.MULTILINE)
    assert capsys.readouterr().out == f"{said}\n" == "$5.93\n"


def test_the_fit_page_names_every_kind_of_change_and_no_other() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "fit.md").read_text(encoding="utf-8")
    table = page.partition("What is tried:")[2].partition("One change")[0]
    named = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    assert [*named, "tp", "gpu"] == list(_KINDS)
