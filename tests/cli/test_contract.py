"""What scripts rely on: exit status, one line on stderr, data on stdout, whole files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import simserve
from simserve.cli import app
from simserve.planning import run_scenario

ROOT = Path(__file__).resolve().parents[2]


def simserve_command(*words: str) -> Any:
    """Run a command line, given as its words or as one text of words without quotes."""
    return CliRunner().invoke(app, words[0].split() if len(words) == 1 else list(words))


@pytest.fixture(autouse=True)
def in_folder_of_small(small: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with a small scenario and files that are wrong in their own ways."""
    folder = small.parent
    monkeypatch.chdir(folder)
    (folder / "empty.yaml").write_text("")
    (folder / "list.yaml").write_text("- 1\n")
    (folder / "typo.yaml").write_text(small.read_text().replace("seed: 3", "sede: 3"))
    (folder / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    (folder / "empty.csv").write_text("")
    (folder / "short.csv").write_text("TIMESTAMP,ContextTokens\n2023-11-16 18:17:03.97,374\n")
    (folder / "folder").mkdir()
    return folder


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


BAD_INPUTS = [
    # the command line itself
    ("rnu", r"No such command 'rnu'. Did you mean 'run'\?"),
    ("run --tpp 2", r"No such option '--tpp'. Did you mean '--tp'\?"),
    ("run --tp two", r"'--tp'.*integer"),
    ("run --seed", r"'--seed' requires an argument"),
    ("run small.yaml small.yaml", r"unexpected extra argument"),
    ("list planets", r"'planets' is not one of 'models', 'gpus', 'engines', 'workloads'"),
    ("list", r"Missing argument 'KIND'"),
    ("verify", r"Missing argument 'CASE'"),
    ("trace", r"Missing command \(see 'simserve trace --help'\)"),
    ("profile", r"Missing command \(see 'simserve profile --help'\)"),
    # files that are read
    ("run nowhere.yaml", r"nowhere.yaml: got no such file, allowed: an existing file"),
    ("run empty.yaml", r"empty.yaml: .*allowed: "),
    ("run list.yaml", r"list.yaml: .*allowed: "),
    ("run typo.yaml", r"typo.yaml: .*sede.*did you mean seed\?"),
    ("run latin.yaml", r"latin.yaml: .*UTF-8"),
    ("run folder", r"folder: .*allowed: "),
    ("run --workload nowhere.yaml", r"--workload: .*allowed: an existing file"),
    ("run --deployment nowhere.yaml", r"--deployment: .*allowed: an existing file"),
    ("run --trace nowhere.csv", r"--trace: .*nowhere.csv"),
    ("run --trace empty.csv", r"empty.csv: .*allowed: "),
    ("run --trace short.csv", r"short.csv: .*GeneratedTokens"),
    ("run --trace short.csv --trace-format parquet", r"--trace-format: .*azure, mooncake"),
    ("run --trace-format azure", r"--trace-format: got azure, allowed: a trace"),
    ("verify nowhere.case.json", r"nowhere.case.json: "),
    # values
    ("run --model gpt-5", r"--model: .*got gpt-5, allowed: .*gpt-oss-20b"),
    ("run --gpu h1000", r"--gpu: .*did you mean h100-sxm\?"),
    ("run --tp 0", r"--tp: .*got 0, allowed: "),
    ("run --tp 3", r"--tp: .*got 3, allowed: 1, 2, 4"),
    ("run --engine sglang", r"--engine: .*got sglang, allowed: vllm"),
    ("run --latency roof", r"roof.*did you mean roofline\?"),
    ("run --seed -1", r"--seed: seed: got -1, allowed: an integer from 0"),
    ("run --rate 1e300", r"--rate: .*got 1e300, allowed: a number above 0, .*at most 1e\+12"),
    ("run --slo ttfb:500", r"--slo: .*ttfb.*did you mean ttft"),
    ("run --slo ttft:-5", r"--slo: .*-5"),
    ("run --set max_num_seq=4", r"--set max_num_seq=4: .*did you mean .*max_num_seqs\?"),
    ("run --set max_num_seqs", r"--set max_num_seqs: .*allowed: key=value"),
    ("run --set max_num_seqs=many", r"max_num_seqs: got many, allowed: "),
    ("run --tp 1 --set tp=2", r"--set tp=2: .*a second value"),
    ("run --model llama-3.1-70b", r"--model: .*GB less per GPU"),
    # destinations
    ("run small.yaml --save-result folder", r"--save-result: got folder, .*a directory"),
    ("run small.yaml --save-result no/r.json", r"--save-result: got no/r.json, .*exists"),
    ("run small.yaml --save-result small.yaml", r"--save-result: .*not one of the inputs"),
    ("run small.yaml --save-result /dev/null", r"--save-result: .*ordinary file"),
    ("run small.yaml --out small.yaml", r"--out: got small.yaml, allowed: a directory"),
    ("run small.yaml --save-detailed", r"--save-detailed: .*--save-result or --json"),
    # sweeps
    ("sweep small.yaml", r"--vary: allowed: key=value,value"),
    ("sweep small.yaml --vary max_num_seqs", r"--vary: got max_num_seqs"),
    ("sweep small.yaml --vary max_num_seq=1,2", r"--vary max_num_seq=1: .*max_num_seqs\?"),
    ("sweep small.yaml --vary seed=1,x", r"--vary seed=x: seed: got x, allowed: an integer"),
    ("sweep small.yaml --rate 3 --vary rate_per_s=3,4", r"one of --rate and --vary rate_per_s=3$"),
    ("sweep small.yaml --vary seed=1,2 --link tp=replicas", r"--link: got tp=replicas"),
    ("sweep --trace short.csv --vary tp=1,2 --out a.csv", r"short.csv: .*GeneratedTokens"),
    ("sweep small.yaml --vary seed=1 --resume", r"--resume: allowed: only together with --out"),
    ("sweep small.yaml --vary seed=1 --workers 0", r"--workers: got 0, allowed: .*at least 1"),
    ("sweep small.yaml --vary seed=1 --workers 9999999999", r"--workers: .*at most 1024"),
    ("validate --groundtruth nowhere", r"--groundtruth: got nowhere, .*a folder"),
    ("trace synth short.csv --num 1 --seed -1 --out a.csv", r"'--seed'"),
    ("sweep small.yaml --vary seed=1 --out a.xlsx", r"--out: got a.xlsx, .*.csv or .parquet"),
    ("sweep small.yaml --vary seed=1 --out no/a.csv", r"--out: got no/a.csv"),
    ("sweep small.yaml --vary seed=1 --out small.yaml", r"--out: got small.yaml"),
]


@pytest.mark.parametrize(("command", "pattern"), BAD_INPUTS, ids=[row[0] for row in BAD_INPUTS])
def test_wrong_input_is_one_line_and_status_2_and_leaves_nothing(
    command: str, pattern: str, in_folder_of_small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_scenario, "simulate", _no_simulation)
    before = files_below(in_folder_of_small)
    done = simserve_command(command)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert re.fullmatch(rf"simserve: [^\n]*{pattern}[^\n]*\n", done.stderr), done.stderr
    assert files_below(in_folder_of_small) == before


def _no_simulation(*_: object, **__: object) -> None:
    raise AssertionError("the simulation started before the input was checked")


def test_failure_while_writing_leaves_no_half_file(
    in_folder_of_small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_below(in_folder_of_small)
    monkeypatch.setattr(Path, "write_text", _disk_is_full)
    done = simserve_command("run", "small.yaml", "--save-result", "result.json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert re.fullmatch(r"simserve: result.json: got No space left on device.*\n", done.stderr)
    assert files_below(in_folder_of_small) == before


def _disk_is_full(*_: object, **__: object) -> None:
    raise OSError(28, os.strerror(28))


def test_run_on_hardware_that_vllm_does_not_serve_says_so() -> None:
    words = ("run", "small.yaml", "--gpu", "apple-m4-max", "--model", "llama-3.1-8b")
    said = " ".join(simserve_command(*words).stdout.split())
    assert "does not run on apple-m4-max: the plugin for Apple Silicon does" in said
    assert "does not run on" not in simserve_command("run", "small.yaml").stdout


def test_run_reports_on_stdout_and_says_nothing_on_stderr() -> None:
    done = simserve_command("run", "small.yaml")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "TTFT" in done.stdout and "Verdict" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_json_on_stdout_is_the_saved_result() -> None:
    done = simserve_command("run", "small.yaml", "--json", "--save-result", "result.json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == json.loads(Path("result.json").read_text())
    assert json.loads(done.stdout)["completed"] == 40
    assert "ttfts" not in json.loads(done.stdout)


def test_detailed_result_holds_every_request() -> None:
    done = simserve_command("run", "small.yaml", "--json", "--save-detailed")
    assert len(json.loads(done.stdout)["ttfts"]) == 40


def test_out_directory_holds_a_result_that_loads() -> None:
    done = simserve_command("run", "small.yaml", "--out", "new/run")
    assert done.exit_code == 0
    assert simserve.Result.load("new/run").metrics.completed == 40


def test_same_command_prints_and_writes_the_same_bytes() -> None:
    outputs = []
    for name in ("a.json", "b.json"):
        done = simserve_command("run", "small.yaml", "--seed", "9", "--save-result", name)
        outputs.append((done.stdout, Path(name).read_bytes()))
    assert outputs[0] == outputs[1]


def test_check_changes_no_byte_of_the_result() -> None:
    plain = simserve_command("run", "small.yaml", "--json")
    assert simserve_command("run", "small.yaml", "--json", "--check").stdout == plain.stdout


@pytest.mark.parametrize(("slo", "status"), [("ttft:100000 tpot:1000", 0), ("ttft_p50:0.001", 1)])
def test_status_says_whether_the_slo_is_met(slo: str, status: int) -> None:
    done = simserve_command("run", "small.yaml", "--slo", slo, "--save-result", "result.json")
    assert done.exit_code == status, done.stderr
    assert "SLO" in done.stdout
    assert Path("result.json").exists()


def test_options_reach_the_scenario(in_folder_of_small: Path) -> None:
    (in_folder_of_small / "load.yaml").write_text("{arrivals: {process: all-at-once}, "
        "prompt_tokens: 100, output_tokens: 5, num_requests: 7}")  # fmt: skip
    words = "--workload load.yaml --model qwen3-8b --gpu h200-sxm --tp 2 --latency roofline"
    more = "--engine vllm --seed 5 --set max_num_seqs=3 --json"
    done = simserve_command("run", "small.yaml", *words.split(), *more.split())
    assert done.exit_code == 0, done.stderr
    bench = json.loads(done.stdout)
    resolved = bench["simserve"]["resolved"]
    assert (bench["num_prompts"], bench["model_id"], resolved["seed"]) == (7, "Qwen/Qwen3-8B", 5)
    assert (resolved["deployment"]["gpu"]["name"], resolved["deployment"]["tp"]) == ("h200-sxm", 2)
    assert resolved["deployment"]["engine"]["settings"]["max_num_seqs"]["value"] == 3


def test_trace_is_replayed(in_folder_of_small: Path) -> None:
    rows = [{"timestamp": 0.5 * k, "input_length": 30, "output_length": 4} for k in range(5)]
    trace = in_folder_of_small / "trace.jsonl"
    trace.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = "run --trace trace.jsonl --trace-format timed_trace --json"
    done = simserve_command(words)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["total_input_tokens"] == 150


def test_sweep_prints_one_line_per_point() -> None:
    words = "sweep small.yaml --vary max_num_seqs=1,8 --vary seed=0,1"
    done = simserve_command(words)
    assert (done.exit_code, done.stderr) == (0, "")
    header, *lines = done.stdout.splitlines()
    assert header.split()[:3] == ["max_num_seqs", "seed", "verdict"]
    assert [line.split()[:2] for line in lines] == [
        ["1", "0"], ["1", "1"], ["8", "0"], ["8", "1"]
    ]  # fmt: skip


def test_sweep_writes_the_rows_that_it_prints_as_json() -> None:
    done = simserve_command(
        "sweep small.yaml --vary model=llama-3.1-8b,llama-3.1-70b --out t.csv --json"
    )
    assert done.exit_code == 0
    rows = json.loads(done.stdout)
    assert [row["verdict"] == "does-not-fit" for row in rows] == [False, True]
    assert Path("t.csv").read_text().count("\n") == 3


def test_sweep_says_once_how_far_the_roofline_of_experts_is_known() -> None:
    words = "sweep small.yaml --set model=gpt-oss-20b --vary max_num_seqs=4,8"
    done = simserve_command(words)
    assert (done.exit_code, done.stderr) == (0, "")
    assert " ".join(done.stdout.split()).count("hardly validated") == 1
    assert max(map(len, done.stdout.splitlines())) <= 80
    as_data = simserve_command(f"{words} --json")
    assert len(json.loads(as_data.stdout)) == 2
    assert "hardly validated" in " ".join(as_data.stderr.split())
    dense = simserve_command("sweep small.yaml --vary max_num_seqs=4,8")
    assert "Note" not in dense.stdout


def test_sweep_in_which_no_point_is_good_answers_no() -> None:
    late = simserve_command("sweep small.yaml --vary seed=0,1 --slo ttft_p50:0.001")
    assert late.exit_code == 1
    too_large = simserve_command("sweep small.yaml --vary model=llama-3.1-70b")
    assert too_large.exit_code == 1 and "does-not-fit" in too_large.stdout


def test_dry_run_shows_the_points_and_runs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_scenario, "simulate", _no_simulation)
    words = "sweep small.yaml --vary max_num_seqs=1,8 --link max_num_seqs=tp --dry-run --out a.csv"
    done = simserve_command(words)
    assert done.exit_code == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["max_num_seqs", "tp", "verdict"], ["1", "1", "to-run"], ["8", "8", "to-run"]
    ]  # fmt: skip
    assert not Path("a.csv").exists()


def test_crash_of_ours_is_not_taken_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from simserve.cli.app import main

    monkeypatch.setattr(run_scenario, "simulate", _no_simulation)
    monkeypatch.setattr(sys, "argv", ["simserve", "run", "small.yaml"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 70


def process(*words: str, **options: Any) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "simserve", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": env}
    return subprocess.Popen(command, **pipes | options)  # type: ignore[call-overload,no-any-return]


def test_reader_that_goes_away_is_met_with_silence() -> None:
    running = process("run", "small.yaml", "--json")
    assert running.stdout is not None and running.stderr is not None
    running.stdout.close()
    assert running.stderr.read() == ""
    assert running.wait() == 141


@pytest.mark.parametrize(
    ("command", "closed", "expected"),
    [
        ("run small.yaml", "2>&-", (0, "Scenario", "")),
        ("run small.yaml", ">&-", (0, "", "")),
        ("run nowhere.yaml", "2>&-", (2, "", "")),
        ("list models", ">&-", (0, "", "parameters")),
        ("run --gpu l4 --serve-cmd -", "<&-", (2, "", "no server")),
    ],
)
def test_a_closed_stream_is_an_empty_one(
    command: str, closed: str, expected: tuple[int, str, str]
) -> None:
    line = f"{sys.executable} -m simserve {command} {closed}"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, env=env, check=False)
    status, out, err = expected
    assert done.returncode == status
    assert out in done.stdout and bool(out) == bool(done.stdout)
    assert err in done.stderr and bool(err) == bool(done.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_no_fault_of_the_file_that_is_checked() -> None:
    with Path("/dev/full").open("w") as full:
        running = process("check", "small.yaml", stdout=full)
        _, err = running.communicate()
    assert (running.returncode, err) == (2, "simserve: No space left on device\n")


def test_interrupt_before_the_command_has_begun_is_one_line_too() -> None:
    """Interrupt the import itself, as a Ctrl-C of the first moment does."""
    program = (
        "import signal, sys, simserve\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer':\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from simserve.cli import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "simserve: interrupted\n")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_interrupt_is_one_line_and_keeps_what_is_finished(workers: str) -> None:
    seeds = ",".join(map(str, range(500)))
    words = f"sweep small.yaml --vary seed={seeds} --workers {workers} --out t.csv".split()
    running = process(*words, start_new_session=True)
    journal = Path("t.csv.partial")
    deadline_s = time.monotonic() + 60
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    out, err = running.communicate()
    assert (running.returncode, out, err) == (130, "", "simserve: interrupted\n")
    assert journal.read_text().count("\n") >= 1 and not Path("t.csv").exists()
