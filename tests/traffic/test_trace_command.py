"""``simserve trace``: what its commands print and write, and how they refuse."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simserve.cli import app
from simserve.traffic.trace_formats import load_trace

ROWS = [(0.5 * k, 100 + k, 4 + k) for k in range(6)]


def trace_command(*words: str) -> Any:
    return CliRunner().invoke(app, ["trace", *words])


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with a trace of six requests, and a table of them."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "log.jsonl"
    rows = [{"timestamp": t, "input_length": i, "output_length": o} for t, i, o in ROWS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = ["t,in,out", *(f"{t},{i},{o}" for t, i, o in ROWS)]
    (tmp_path / "table.csv").write_text("\n".join(table) + "\n")
    (tmp_path / "lengths.csv").write_text("prompt_tokens,output_tokens\n5,6\n")
    (tmp_path / "metrics.prom").write_text("vllm:x 1\n")
    return path


def test_stats_are_printed_or_given_as_json() -> None:
    done = trace_command("stats", "log.jsonl")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "Requests  6" in done.stdout and "Span      2.5 s" in done.stdout
    found = json.loads(trace_command("stats", "log.jsonl", "--json").stdout)
    assert found["rate_per_s"] == pytest.approx(6 / 2.5)
    assert found["prompt_tokens"]["max"] == 105


def test_columns_of_a_table_are_named_on_the_command_line() -> None:
    roles = "arrival_s=t,prompt_tokens=in,output_tokens=out"
    done = trace_command("stats", "table.csv", "--trace-columns", roles, "--json")
    plain = json.loads(trace_command("stats", "log.jsonl", "--json").stdout)
    assert json.loads(done.stdout) == plain | {"format": "table"}


@pytest.mark.parametrize("target", ["timed_trace", "mooncake", "azure", "csv", "parquet"])
def test_convert_writes_a_trace_that_is_read_back(log: Path, target: str) -> None:
    done = trace_command("convert", "log.jsonl", "out.gz", "--to", target)
    if target == "parquet":
        Path("out.gz").rename("out.parquet")
    assert done.exit_code == 0, done.stderr
    back = load_trace("out.parquet" if target == "parquet" else "out.gz")
    assert back.arrival_ps.tolist() == load_trace(log).arrival_ps.tolist()
    assert back.prompt_tokens.tolist() == [i for _, i, _ in ROWS]


def test_convert_takes_a_part_at_another_rate() -> None:
    words = "convert log.jsonl part.csv --to csv --from 1s --head 3 --rate 1800/min"
    assert trace_command(*words.split()).exit_code == 0
    back = load_trace("part.csv")
    assert back.prompt_tokens.tolist() == [102, 103, 104]
    assert back.arrival_ps[-1] == 10**11


def test_synth_draws_the_same_requests_for_the_same_seed() -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        words = f"synth log.jsonl --num 300 --seed {seed} --out {name}.jsonl"
        assert trace_command(*words.split()).exit_code == 0
    assert Path("a.jsonl").read_bytes() == Path("b.jsonl").read_bytes()
    assert Path("a.jsonl").read_bytes() != Path("c.jsonl").read_bytes()
    assert len(load_trace("a.jsonl")) == 300


def test_what_a_form_cannot_say_is_noted_on_stderr(tmp_path: Path) -> None:
    text = "arrival_s,prompt_tokens,output_tokens,priority\n0,5,5,1\n1,5,5,0\n"
    (tmp_path / "urgent.csv").write_text(text)
    done = trace_command("convert", "urgent.csv", "o.jsonl", "--to", "timed_trace")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "note: timed-trace cannot say: priorities\n"


@pytest.mark.parametrize("words", [(), ("stats",), ("convert",), ("synth",), ("import",)])
def test_help_fits_80_columns_and_has_an_example(words: tuple[str, ...]) -> None:
    done = trace_command(*words, "--help")
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert f"  simserve {' '.join(('trace', *words))}" in done.stdout
    assert "..." not in done.stdout.partition("Commands:")[2]


BAD = [
    ("stats nowhere.csv", r"nowhere.csv: got No such file"),
    ("stats log.jsonl --trace-format azur", r"--trace-format: .*got azur, allowed: azure"),
    ("stats log.jsonl --head 0", r"--head: .*got 0"),
    ("stats log.jsonl --from 9", r"no request from 9 s"),
    ("stats log.jsonl --from-s 2 --to-s 1", r"--to-s: .*above from_s"),
    ("stats log.jsonl --from 2 --to 1s", r"--to-s: .*above from_s"),
    ("stats log.jsonl --from soon", r"--from: .*got soon, allowed: a duration of at least 0"),
    ("stats log.jsonl --rate 0", r"--rate: .*got 0"),
    ("stats lengths.csv --rate 5", r"got 5.0, allowed: nothing: the file has no times"),
    ("convert log.jsonl out.csv --to 2h", r"--to: got 2h, allowed: timed-trace, .*--to-s"),
    ("stats table.csv", r"table.csv: got columns t, in, out"),
    ("stats table.csv --trace-columns t", r"--trace-columns: got t, allowed: ROLE=NAME"),
    ("stats table.csv --trace-columns time=t", r"--trace-columns: .*got time"),
    ("stats log.jsonl --seed -1 --trace-format servegen", r"'--seed'"),
    ("convert log.jsonl out.csv --to xlsx", r"--to: to: got xlsx, allowed: azure, csv"),
    ("convert log.jsonl log.jsonl --to csv", r"OUT: .*not one of the inputs"),
    ("convert log.jsonl no/out.csv --to csv", r"OUT: .*directory that exists"),
    ("convert lengths.csv out.csv --to csv", r"lengths.csv: got lengths without times"),
    ("convert log.jsonl out.csv", r"Missing option '--to'"),
    ("convert log.jsonl out --to mooncake --out-block-tokens 0", r"--out-block-tokens: got 0"),
    ("synth log.jsonl --num 0 --out o.csv", r"--num"),
    ("synth lengths.csv --num 5 --out o.csv", r"requests without gaps in time"),
    ("import --prometheus metrics.prom --over 9", r"request_prompt_tokens: got nothing"),
    ("import --prometheus metrics.prom --over 0", r"--over: got 0"),
    ("import --prometheus metrics.prom", r"--over: got nothing"),
    ("import --prometheus metrics.prom --over 9 --out metrics.prom", r"--out: .*inputs"),
]


@pytest.mark.parametrize(("command", "pattern"), BAD, ids=[row[0] for row in BAD])
def test_wrong_input_is_one_line_and_status_2_and_leaves_nothing(
    command: str, pattern: str, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = trace_command(*command.split())
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert re.fullmatch(rf"simserve: [^\n]*{pattern}[^\n]*\n", done.stderr), done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
