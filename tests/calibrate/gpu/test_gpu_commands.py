"""The commands for a GPU host, from the check to a simulation, on a GPU that is pretended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

from calibrate.measure.journal import END, read_journal
from calibrate.measure.session import FINISHED
from calibrate.results import Results, read_results
from simserve.latency.tables.profile import read_profile
from tests.calibrate.gpu.pretend_cuda import device_guards

try:
    device_guards()
except (OSError, ValueError) as error:
    pytest.skip(f"no GPU can be pretended with this torch: {error}", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[3]
SITE = Path(__file__).parent / "site"
pytestmark = pytest.mark.slow


def run(*words: object, **variables: str) -> tuple[int, str]:
    """Run a module on the pretended GPU; return its exit status and all that it said."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(SITE), str(ROOT))),
        "TRITON_INTERPRET": "1",
        "PRETEND_QUICK": "1",
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)], cwd=ROOT, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def on_host(task: str, out: Path, *more: object, **variables: str) -> str:
    """Run a task of a GPU host that must go well."""
    words = ("calibrate.kit", "host", task, "--no-kit", "--out", out, *more)
    status, said = run(*words, **variables)
    assert status == 0, said
    return said


def unpacked(out: Path, task: str) -> Path:
    with tarfile.open(out / f"{task}.tar.xz") as archive:
        archive.extractall(out / task, filter="data")
    return out / task / task


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run."""
    folder = tmp_path_factory.mktemp("gpu")
    models = ("llama-3.1-8b", "qwen3-30b-a3b", "deepseek-v3")
    on_host("run", folder, "--", *(word for name in models for word in ("--model", name)))
    unpacked(folder, "run")
    return folder


@pytest.fixture(scope="module")
def results(out: Path) -> Results:
    return read_results(out / "run" / "run")


def test_every_kernel_passes_its_check_launched_and_replayed(tmp_path: Path) -> None:
    said = on_host("check", tmp_path, PRETEND_QUICK="")
    ran = [line.split() for line in said.splitlines() if line.endswith(" ok")]
    replayed = {words[0] for words in ran if words[-2] == "graph"}
    launched = {words[0] for words in ran}
    assert launched - replayed == {"mla/torch"}  # it asks the host
    families = Counter(name.split("/")[0] for name in launched)
    assert families == {"attention": 4, "mla": 4, "gemm": 5, "moe": 1, "ops": 2}


def test_a_kernel_with_wrong_numbers_fails_its_check_and_no_other(tmp_path: Path) -> None:
    words = ("check", "--device", "cuda", "attention/fa3", "attention/flashinfer")
    status, said = run("calibrate", *words, PRETEND_FAULT="fa3:wrong")
    failed = {line.split()[0] for line in said.splitlines() if line.endswith("FAILED")}
    assert (status, failed) == (1, {"attention/fa3"})


def test_a_kernel_that_crashes_is_left_alone_and_the_others_measured(tmp_path: Path) -> None:
    words = ("--", "--only", "decode", "--only", "backends", "--model", "llama-3.1-8b")
    on_host("run", tmp_path, *words, PRETEND_FAULT="fa3:crash")
    points = read_results(unpacked(tmp_path, "run")).points.values()
    statuses = Counter((one["keys"]["backend"], one["status"]) for one in points)
    assert set(statuses) == {("fa3", "failed"), ("flashinfer", "ok")}
    told = Counter(one.get("error", "").split(":")[0] for one in points)
    assert told["crashed"] <= 2 * 3  # bf16, fp8; three times each
    assert told["given up"] > told["crashed"]


def test_a_library_that_ends_whoever_loads_it_is_not_loaded_if_it_is_left_out(
    tmp_path: Path,
) -> None:
    status, said = run("calibrate", "check", PRETEND_FAULT="fa3:dies-at-load")
    assert (status, "crashed: signal 6 at its start" in " ".join(said.split())) == (1, True)
    assert "libraries.py" in said  # where it was
    words = ("run", "--out", tmp_path, "--only", "decode", "--model", "llama-3.1-8b")
    left_out = ("--without", "attention/fa3", "--without", "mla/fa3")
    status, said = run("calibrate", *words, *left_out, PRETEND_FAULT="fa3:dies-at-load")
    assert status == 0, said
    backends = {
        one["keys"].get("backend") for one in read_results(tmp_path).measured("attn_decode")
    }
    assert backends == {"flashinfer"}


def test_every_point_of_the_plan_is_measured_in_a_graph_but_for_steps_with_a_chunk(
    results: Results,
) -> None:
    assert {name: one for name, one in results.points.items() if one["status"] != "ok"} == {}
    eager = {(one["table"], one["keys"].get("regime")) for one in results.points.values()
             if not one["graph"]}  # fmt: skip
    assert eager == {("step", "prefill"), ("step", "mixed"), ("launch", None)}
    ends = [one["reason"] for one in read_journal(Path(results.where)) if one["kind"] == END]
    assert ends == [FINISHED]
    assert len(results.repeats) >= 10
    assert results.device["name"] == "NVIDIA H200"


def test_a_run_that_was_finished_goes_on_from_its_archive(out: Path, tmp_path: Path) -> None:
    words = ("--", "--model", "llama-3.1-8b")
    said = on_host("run", tmp_path, "--resume", out / "run.tar.xz", *words)
    assert " 0 points" in said


def test_the_simulator_reads_the_profile(out: Path) -> None:
    profile = read_profile(out / "run" / "run" / "profile")
    assert (profile.gpu, profile.sms) == ("h200-sxm", 132)
    folder = out / "run" / "run"
    assert run("calibrate", "report", folder)[0] == 0
    status, said = run("simserve", "run", "--gpu", "h200-sxm", "--latency", folder / "profile")
    assert "measured profile" in said, said
    assert status in (0, 1)


def test_the_engine_replays_as_the_simulator_schedules(out: Path, tmp_path: Path) -> None:
    """Its errors are of no interest: a CPU's time. That graphs were replayed right, is."""
    command = ("calibrate.kit", "host", "validate", "--no-kit", "--out", tmp_path)
    status, said = run(*command, "--resume", out / "run.tar.xz")
    report = unpacked(tmp_path, "validate") / "validation.json"
    assert report.is_file(), said
    found = json.loads(report.read_text())
    assert status == bool(found["missed"])
    assert found["left_out"] == []
    assert [one["differences"] for one in found["replays"]] == [[]] * 7


def test_memory_is_told_and_the_predicted_blocks_are_there(tmp_path: Path) -> None:
    words = ("--max-model-len", 256, "--max-num-batched-tokens", 128, "--max-num-seqs", 16)
    said = on_host("memory", tmp_path, "--", *words)
    facts = json.loads((unpacked(tmp_path, "memory") / "memory.json").read_text())
    assert facts["context_bytes"] == 600 << 20
    assert facts["allocated_blocks"] == facts["predicted_kv_blocks"], said
    assert facts["most_blocks"] == pytest.approx(facts["predicted_kv_blocks"], rel=0.02)
