"""``simserve fit`` and ``simserve cost`` from the shell: status, one line of complaint, JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simserve.cli import app
from simserve.planning import cost as planning

PRICES = """\
rentals:
  - provider: mine
    kind: imported
    source: contract
    date: 2026-01-01
    rows:
      - {gpu: h100-sxm, usd_per_hour: 2.00}
"""


def simserve(*words: str) -> Any:
    return CliRunner().invoke(app, words[0].split() if len(words) == 1 else list(words))


@pytest.fixture(autouse=True)
def in_folder_of_small(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.parent)
    (small.parent / "prices.yaml").write_text(PRICES)
    (small.parent / "undated.yaml").write_text(PRICES.replace("    date: 2026-01-01\n", ""))


COST = "cost small.yaml --today 2026-11-20 --capacity 20"


def test_a_model_that_fits_is_a_yes() -> None:
    done = simserve("fit small.yaml")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "GPU KV cache size: 445,712 tokens" in done.stdout


def test_a_model_that_does_not_fit_is_a_no_with_three_ways_out() -> None:
    done = simserve("fit small.yaml --model llama-3.1-70b --json")
    assert (done.exit_code, done.stderr) == (1, "")
    data = json.loads(done.stdout)
    assert not data["fits"] and len(data["changes"]) == 3
    again = ["--set=" + f"{key}={value}" for key, value in data["changes"][0]["settings"].items()]
    assert simserve("fit", "small.yaml", "--model", "llama-3.1-70b", *again).exit_code == 0


def test_contiguous_needs_a_pool() -> None:
    done = simserve("fit small.yaml --set max_model_len=4096 --contiguous --json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["contiguous"]["more_requests"] > 1
    none = simserve("fit small.yaml --model llama-3.1-70b --contiguous")
    assert none.exit_code == 1
    assert none.stderr == "simserve: --contiguous: nothing to compare, it does not fit\n"


def test_cost_as_json_is_the_answer_of_the_text() -> None:
    done, text = simserve(f"{COST} --json"), simserve(COST)
    assert (done.exit_code, text.exit_code) == (0, 0)
    data = json.loads(done.stdout)
    assert f"{data['now']['usd']:,.2f}" in text.stdout
    assert data["capacity"]["basis"] == "given: --capacity"
    assert data["today"] == "2026-11-20"


def test_same_cost_command_prints_the_same_bytes() -> None:
    assert simserve(COST).stdout == simserve(COST).stdout


def test_own_price_is_used_and_its_age_is_said() -> None:
    done = simserve(f"{COST} --prices prices.yaml --json --api openai/gpt-4o")
    assert json.loads(done.stdout)["offer"]["usd_per_gpu_hour"] == 2.0
    assert done.stderr == "simserve: the price of mine is 323 days old (2026-01-01)\n"
    assert simserve(f"{COST} --prices prices.yaml --max-age 400").stderr == ""
    given = simserve(f"{COST} --gpu-price $2.50/h --json")
    assert json.loads(given.stdout)["offer"]["usd_per_gpu_hour"] == 2.5


def test_textbook_machine_comes_at_its_price() -> None:
    done = simserve(f"{COST} --gpu a100 --tp 4 --gpu-price 16 --spares 0 --json")
    data = json.loads(done.stdout)
    assert data["now"]["usd"] == pytest.approx(64 * 24 * 365 / 12)


def test_missed_slo_is_a_no() -> None:
    done = simserve(f"{COST} --slo ttft_p50:0.001")
    assert done.exit_code == 1
    assert "SLO" in done.stdout and "missed at this load" in done.stdout


def test_one_of_two_offers_is_not_called_a_median_and_their_spread_is_warned_of() -> None:
    done = simserve(f"{COST} --tp 4 --terms spot")
    words = " ".join(done.stdout.split())
    assert "the lower of 2 offers, $" in words and "median" not in words
    assert "only 2 offers decide this price" in done.stderr


def test_cost_is_said_with_and_without_the_spare() -> None:
    data = json.loads(simserve(f"{COST} --json").stdout)
    without, spare = data["fleets"]
    assert (without["spares"], spare["spares"]) == (0, 1)
    assert spare["usd_per_hour"] == 2 * without["usd_per_hour"]
    assert spare["usd_per_mtok"] == pytest.approx(data["now"]["blended_usd_per_mtok"])
    words = " ".join(simserve(COST).stdout.split())
    assert f"${without['usd_per_mtok']:.4g} per million tokens without a spare" in words
    assert f"${spare['usd_per_mtok']:.4g} per million tokens with 1 spare" in words


def test_what_a_replica_serves_does_not_depend_on_how_much_is_asked() -> None:
    """A fleet of thousands of replicas is sized as one of two is."""
    small = "cost small.yaml --slo ttft_p95:500 --today 2026-11-20 --json"
    few, many = (json.loads(simserve(f"{small}{more}").stdout) for more in ("", " --rate 1000000"))
    assert many["capacity"] == few["capacity"]
    assert many["resolved"]["workload"]["arrivals"]["rate_per_s"] == 1_000_000
    assert many["now"]["serving"] == -(-1_000_000 // many["capacity"]["per_s"])


BAD = [
    (f"{COST} --rate 0", r"--rate: got 0, allowed: a number above 0"),
    (f"{COST} --spares -1", r"--spares: got -1, allowed: a number of at least 0"),
    (f"{COST} --rate nan", r"--rate: got nan, allowed: a number above 0"),
    (f"{COST} --peak-to-mean 0.5", r"--peak-to-mean: got 0.5, allowed: a number of at least 1"),
    (f"{COST} --active-hours 25", r"--active-hours: got 25, allowed: above 0, at most 24"),
    (f"{COST} --active-hours 12 --paid-hours 8", r"--paid-hours: got 8, allowed: from 12"),
    (f"{COST} --fte 1", r"--fte: got 1, allowed: only with --fte-cost"),
    (f"{COST} --fte-cost 1000", r"--fte-cost: got 1000, allowed: only with --fte"),
    (f"{COST} --rate 0/min", r"--rate: got 0/min, allowed: a number above 0, .*600/min"),
    (f"{COST} --gpu-price free", r"--gpu-price: got free, allowed: a price"),
    (f"{COST} --gpu-price 0", r"--gpu-price: got 0, allowed: a price above 0"),
    (f"{COST} --gpu-price -1", r"--gpu-price: got -1, allowed: a price above 0"),
    (f"{COST} --workers 0", r"--workers: got 0, allowed: a whole number, at least 1"),
    (f"{COST} --gpu-price 2 --offer aws", r"--gpu-price: got 2, allowed: it or --offer"),
    (f"{COST} --offer azurre", r"--offer: h100-sxm: got azurre, allowed: "),
    (f"{COST} --gpu gaudi-2", r"--gpu: price: got gaudi-2, allowed: --gpu-price"),
    (f"{COST} --gpu-price 1e308", r"--gpu-price: got 1e308, .*at most 1e\+12"),
    (f"{COST} --rate 1e300", r"--rate: got 1e300, .*at most 1e\+12"),
    (f"{COST} --peak-to-mean 1e300", r"--peak-to-mean: got 1e\+300, .*at most 1e\+12"),
    (f"{COST} --active-hours nan", r"--active-hours: got nan, allowed: above 0, at most 24"),
    (f"{COST} --gpu l40s --terms spot", r"--gpu: price: got l40s, allowed: .*no spot price"),
    (f"{COST} --api openai/gpt-4o-mimi", r"--api: model: got .*did you mean openai/gpt-4o-mini"),
    (f"{COST} --prices undated.yaml", r"undated.yaml: .*rentals.0.date: got nothing"),
    (f"{COST} --prices nowhere.yaml", r"nowhere.yaml: got no such file"),
    ("cost small.yaml --today soon", r"--today: got soon, allowed: a date such as 2026-11-20"),
    ("fit small.yaml --prices undated.yaml", r"undated.yaml: .*rentals.0.date: got nothing"),
    ("fit small.yaml --tp 3", r"--tp: .*got 3, allowed: 1, 2, 4"),
    ("fit small.yaml --gpus 1 --tp 2", r"--gpus 1: got 1 GPU, allowed: at least 2 GPUs"),
    ("fit small.yaml --set max_num_seq=4", r"did you mean .*max_num_seqs"),
    ("fit small.yaml --workload nowhere.yaml", r"--workload: .*allowed: an existing file"),
]


@pytest.mark.parametrize(("command", "pattern"), BAD, ids=[command for command, _ in BAD])
def test_wrong_input_is_one_line_and_status_2(
    command: str, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "operate", lambda *_: pytest.fail("simulated"))
    done = simserve(command)
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert re.fullmatch(rf"simserve: [^\n]*{pattern}[^\n]*\n", done.stderr), done.stderr


@pytest.mark.parametrize("name", ["fit", "cost"])
def test_help_fits_80_columns_and_every_option_is_explained(name: str) -> None:
    from simserve.cli import click_command

    done = simserve(f"{name} --help")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert f"  simserve {name} " in done.stdout
    assert all(getattr(one, "help", None) for one in click_command().commands[name].params)
