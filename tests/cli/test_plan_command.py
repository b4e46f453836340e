"""``plan`` as scripts see it: one line for what is wrong, data on stdout, the right status."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simserve.cli import app
from simserve.inputs.scenario import load_scenario
from simserve.inputs.yaml_reader import read_yaml

QUICK = (
    "plan small.yaml --slo ttft_p95:300 --rate 12 --vary gpu=l4,l40s --vary tp=1 "
    "--vary quantization=none,awq --vary kv_cache_dtype=auto --set max_num_seqs=64 "
    "--set max_num_batched_tokens=1024 --max-gpus 4 --replications 3 --confirm 2 --workers 1"
)


def simserve_command(*words: str) -> Any:
    return CliRunner().invoke(app, words[0].split() if len(words) == 1 else list(words))


@pytest.fixture(autouse=True)
def in_folder_of_small(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.parent)
    head = small.read_text() + "slo: ttft_p95:300\n"
    (small.parent / "wrong.yaml").write_text(head + "plan: {max_gpu: 3}\n")
    (small.parent / "range.yaml").write_text(
        head + "plan: {prompt_factor: {value: 1, low: 2, high: 3, kind: assumed, source: x, "
        "date: 2026-11-20}}\n"
    )
    (small.parent / "undated.yaml").write_text(
        "rentals: [{provider: me, kind: imported, source: x, rows: [{gpu: l4, usd_per_hour: 1}]}]\n"
    )
    (small.parent / "file").write_text("")


WRONG = [
    ("plan small.yaml", r"--slo: got no objective"),
    ("plan small.yaml --slo ttfb_p95:500", r"--slo: .*ttfb.*did you mean ttft"),
    ("plan small.yaml --slo ttft:1 --vary gpu=h1000", r"--vary gpu=h1000: .*mean h100"),
    ("plan small.yaml --slo ttft:1 --vary max_num_seq=4", r"--vary max_num_seq=4: .*max_num_seqs"),
    ("plan small.yaml --slo ttft:1 --vary max_num_seqs=-1", r"--vary max_num_seqs=-1: .*got -1"),
    ("plan small.yaml --slo ttft:1 --vary replicas=1,2", r"--vary replicas=1,2: .*the answer"),
    ("plan small.yaml --slo ttft:1 --vary quantization=fp9", r"--vary quantization=fp9: .*fp8"),
    ("plan small.yaml --slo ttft:1 --vary tp=3", r"--vary tp=3: .*sizes that cut llama"),
    (
        "plan small.yaml --slo ttft:9 --vary gpu=l4 --vary latency=zzz",
        r"--vary latency=zzz: .*got zzz",
    ),
    (
        "plan small.yaml --slo ttft:9 --vary gpu=l4 --vary latency=roofline,zzz",
        r"--vary latency=.*: got zzz",
    ),
    (
        "plan small.yaml --slo ttft:9 --gpu l4 --latency zzz",
        r"--latency: deployment.latency: got zzz",
    ),
    ("plan small.yaml --slo ttft:9 --gpu l4 --vary max_num_seqs=99999", r"max_num_seqs \(99999\)"),
    ("plan small.yaml --slo ttft:1 --vary tp=1 --vary tp=2", r"--vary: got tp, .*each key once"),
    ("plan small.yaml --slo ttft:1 --set quantization=fp9", r"--set quantization=fp9: .*fp8"),
    ("plan small.yaml --slo ttft:1 --set model=gpt-5", r"--set model=gpt-5: .*gpt-oss"),
    ("plan small.yaml --slo ttft:1 --set engine=tgi", r"--set engine=tgi: .*vllm"),
    ("plan small.yaml --slo ttft:1 --max-gpus 0", r"--max-gpus: got 0"),
    ("plan small.yaml --slo ttft:1 --replications 0", r"--replications: got 0"),
    ("plan small.yaml --slo ttft:1 --confirm -1", r"--confirm: got -1"),
    ("plan small.yaml --slo ttft:1 --probability 2", r"--probability: got 2"),
    ("plan small.yaml --slo ttft:1 --probability 100%", r"--probability: got 100%, .*less than"),
    ("plan small.yaml --slo ttft:1 --users 1,x", r"--users: got 1,x"),
    ("plan small.yaml --slo ttft:1 --workers 0", r"--workers: got 0"),
    ("plan small.yaml --slo ttft:1 --resume", r"--resume: allowed: only together with --store"),
    ("plan small.yaml --slo ttft:1 --store file", r"--store: got file, allowed: a directory"),
    ("plan small.yaml --slo ttft:1 --cluster x:1", r"--cluster: got x:1"),
    ("plan small.yaml --slo ttft:1 --prices undated.yaml", r"undated.yaml: .*date"),
    ("plan wrong.yaml", r"wrong.yaml: plan.max_gpu: .*max_gpus"),
    ("plan range.yaml", r"range.yaml: plan.prompt_factor.value: got 1"),
    (
        "plan small.yaml --slo ttft:1 --set workload.arrivals={process:all-at-once}",
        r"all-at-once|arrivals",
    ),
]


@pytest.mark.parametrize(("command", "pattern"), WRONG, ids=[row[0] for row in WRONG])
def test_wrong_input_is_one_line_and_status_2(command: str, pattern: str) -> None:
    done = simserve_command(command)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert re.fullmatch(rf"simserve: [^\n]*({pattern})[^\n]*\n", done.stderr), done.stderr


def test_an_slo_that_nobody_keeps_is_one_sentence_and_status_1() -> None:
    done = simserve_command(QUICK.replace("ttft_p95:300", "ttft_p95:0.5"))
    assert done.exit_code == 1
    assert re.match("No plan of up to 4 GPUs keeps ttft_p95:0.5: ", done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 80 and "\n\n" not in done.stdout


def test_the_report_the_json_and_the_store_agree(tmp_path: Path) -> None:
    text = simserve_command(f"{QUICK} --store {tmp_path / 'runs'}")
    data = simserve_command(f"{QUICK} --store {tmp_path / 'runs'} --resume --json")
    assert text.exit_code == data.exit_code == 0, text.output + data.output
    found = json.loads(data.stdout)
    assert found["winner"]["name"] in " ".join(text.stdout.split())
    assert "confirm" not in found["winner"] and found["winner"]["fresh_seeds"]["kept"] == 2
    assert {one["settings"]["max_num_seqs"] for one in found["settings"]} == {64}
    assert found["scenario"]["load"] == "12 requests/s, poisson"
    assert max(map(len, text.stdout.splitlines())) <= 80
    refused = simserve_command(f"{QUICK} --store {tmp_path / 'runs'}")
    assert refused.exit_code == 2 and "--resume to use them" in refused.stderr


def test_the_question_of_the_tutorial_ships_and_its_rate_is_that_of_its_people() -> None:
    scenario = load_scenario("thousand-users")
    plan, arrivals = scenario.plan, scenario.workload.arrivals
    assert plan is not None and plan.audience is not None and arrivals is not None
    assert arrivals.rate_per_s == pytest.approx(plan.audience.peak_rate_per_s(), rel=1e-12)
    assert plan.audience.daily_users == 1000


def test_no_run_depends_on_the_plan_section(tmp_path: Path) -> None:
    scenario = load_scenario("thousand-users")
    content = read_yaml(Path(__file__).resolve().parents[2] / "workloads" / "thousand-users.yaml")
    from simserve.inputs.scenario import scenario_from_dict

    without = scenario_from_dict({key: one for key, one in content.items() if key != "plan"})
    assert without.digest() == scenario.digest() and without.plan is None


def test_users_and_inputs_are_reported_with_intervals() -> None:
    words = "plan thousand-users --users 1,8 --replications 3 --confirm 0 --workers 1 --json"
    done = simserve_command(words + " --set workload.num_requests=500")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {one["users"] for one in found["users"]} == {1, 8}
    assert len({one["plan"] for one in found["users"]}) == 2  # with and without AWQ
    for one in found["users"]:
        assert one["latency_ms"]["tpot_p95"]["half_width"] > 0
    assert [one["name"] for one in found["inputs"]] == [
        "requests per user and day",
        "share of the busiest hour",
        "prompt tokens, times",
        "output tokens, times",
    ]
    for one in found["inputs"]:
        assert one["low"] <= one["value"] <= one["high"] and one["kind"] and one["source"]
        assert [end["value"] for end in one["ends"]] == [one["low"], one["high"]]
