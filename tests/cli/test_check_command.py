"""``simserve check``: what a file is and stands for, every bad one in one line, broken laws."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simserve.cli import app
from simserve.inputs.data_files import data_dir
from tests.fuzz.seeds import CONFIGS, FULL_SCENARIO, LAUNCH_LINES, MANIFESTS
from tests.results.test_folder_laws import CORRUPTIONS
from tests.traffic.test_trace_formats import AZURE

ROOT = Path(__file__).resolve().parents[2]
ORACLE = ROOT.parent / "shared" / "oracle" / "open"
PLAIN = "{arrivals: {rate_per_s: 5}, prompt_tokens: 100, output_tokens: 2k, num_requests: 9}"
DEPLOYED = "model: qwen3-8b\ngpu: h200-sxm\nmax_num_seqs: 64\nmax_model_len: 16K\n"
FILES = {
    "scenario.yaml": ("scenario", FULL_SCENARIO),
    "workload.yaml": ("workload", PLAIN),
    "nested.yaml": ("workload", f"workload: {PLAIN}\n"),
    "deployment.yaml": ("deployment", DEPLOYED),
    "config.json": ("model", json.dumps(CONFIGS[0])),
    "launch.sh": ("launch-line", LAUNCH_LINES[1]),
    "launch": ("launch-line", LAUNCH_LINES[0]),
    "compose.yaml": ("launch-line", MANIFESTS[0]),
    "kubernetes.yaml": ("launch-line", MANIFESTS[1]),
    "azure.csv": ("trace", AZURE),
    "lengths.json": ("trace", '[{"prompt_len": 5, "output_len": 6}]'),
}


def check(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["check", *map(str, words)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, (_, text) in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_recognised_and_its_values_have_sources(folder: Path, name: str) -> None:
    done = check(folder / name, "--json")
    assert done.exit_code == 0, done.stderr
    [report] = json.loads(done.stdout)
    assert (report["kind"], report["ok"]) == (FILES[name][0], True)
    assert report["values"]
    assert all(one["source"] for key, one in report["values"].items() if key != "note")


def test_device_files_and_shipped_scenarios_are_fine() -> None:
    devices = sorted(data_dir("hardware_profiles").glob("*/device.yaml"))[:6]
    scenarios = sorted(data_dir("workloads").glob("*.yaml"))
    done = check(*devices, *scenarios, "--json")
    assert done.exit_code == 0, done.stderr
    kinds = [report["kind"] for report in json.loads(done.stdout)]
    assert kinds == ["device"] * len(devices) + ["scenario"] * len(scenarios)


@pytest.mark.skipif(not ORACLE.is_dir(), reason="the recorded cases are not beside the checkout")
def test_a_scheduler_case_is_recognised() -> None:
    [report] = json.loads(check(ORACLE / "o01-hand-chunked.case.json", "--json").stdout)
    assert (report["kind"], report["values"]["requests"]["value"]) == ("case", 5)


def test_values_are_resolved_with_units(folder: Path) -> None:
    [report] = json.loads(check(folder / "deployment.yaml", "--json").stdout)
    values = report["values"]
    assert values["engine.max_model_len"] == {
        "value": 16384,
        "unit": "tokens",
        "source": f"given: {folder / 'deployment.yaml'}",
    }
    assert values["gpu.hbm_bytes_per_s"]["unit"] == "bytes/s"
    assert values["gpu.efficiency.host_per_seq_s"]["unit"] == "s/sequence"
    assert values["engine.max_num_batched_tokens"]["source"].startswith("default of vllm")
    assert values["memory.weights"]["value"] == values["model.weight_bytes"]["value"]


@pytest.mark.parametrize("name", FILES)
def test_table_fits_80_columns(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    lines = check(name).stdout.splitlines()
    assert lines[0].startswith(f"{name}: {FILES[name][0]}, ")
    assert max(map(len, lines)) <= 80 and lines[2].split() == ["key", "value", "unit", "from"]


def test_every_bad_file_costs_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("typo.yaml").write_text(FULL_SCENARIO.replace("max_num_seqs", "max_num_seq"))
    Path("odd.yaml").write_text("colour: green\n")
    Path("torn.json").write_text('{\n  "model_type": \n')
    Path("torn.csv").write_text(AZURE[:-9])
    Path("folder").mkdir()
    bad = ["nowhere.yaml", "typo.yaml", "odd.yaml", "torn.csv", "torn.json", "folder"]
    done = check(*bad[:2], "azure.csv", *bad[2:])
    assert done.exit_code == 2
    assert "azure.csv: trace, " in done.stdout
    told = done.stderr.splitlines()
    assert [re.split("[ :]+", line)[:2] for line in told] == [["simserve", name] for name in bad]
    assert "did you mean" not in told[2] and "max_num_seqs" in told[1]
    assert max(map(len, told)) < 240


def test_kind_can_be_said(folder: Path) -> None:
    assert check("--as", "scenario", folder / "workload.yaml").exit_code == 2
    assert check("--as", "launch_line", folder / "launch").exit_code == 0
    done = check("--as", "poem", folder / "launch")
    assert (done.exit_code, "did you mean" in done.stderr) == (2, False)
    assert "scenario, trace, workload" in done.stderr


def test_json_tells_of_good_and_bad_files(folder: Path) -> None:
    done = check(folder / "azure.csv", folder / "nowhere", "--json")
    good, bad = json.loads(done.stdout)
    assert (done.exit_code, good["ok"], bad["ok"]) == (2, True, False)
    assert bad["error"] in done.stderr


def test_a_result_is_checked_again_and_a_broken_law_named(tmp_path: Path, small: Path) -> None:
    place = tmp_path / "results"
    assert CliRunner().invoke(app, ["run", str(small), "--out", str(place)]).exit_code == 0
    fine = check(place)
    assert (fine.exit_code, fine.stdout) == (0, f"{place}: result, 15 laws hold\n")
    assert check(place / "run.json").exit_code == 0
    CORRUPTIONS["queue-counts"](place)
    done = check(place)
    assert done.exit_code == 1
    told = r"law broken: queue-counts: replica 0, step 4: running \+ waiting is \d+, arrived - left"
    assert re.search(told, done.stdout)
    [report] = json.loads(check(place, "--json").stdout)
    assert [one["law"] for one in report["broken_laws"]] == ["queue-counts"]
    shutil.rmtree(place)
    assert check(place).exit_code == 2
