"""Sweeps: rows do not depend on how they were computed, and none that is finished is lost."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from simserve.cli.sweep_command import table
from simserve.errors import InputError
from simserve.inputs.scenario import load_scenario
from simserve.planning import sweep as sweep_module
from simserve.planning.replications import replicate
from simserve.planning.sweep import DOES_NOT_FIT, sweep
from simserve.planning.sweep_files import SweepFiles, read_table, table_bytes
from simserve.results.steady_state import steady_state

BATCHES = {"max_num_seqs": [1, 4, 64]}


def count_runs(monkeypatch: pytest.MonkeyPatch, fail_after: int | None = None) -> list[Any]:
    """Record every point that is run; raise KeyboardInterrupt after ``fail_after`` of them."""
    real = sweep_module.run_point
    ran: list[Any] = []

    def counted(point: sweep_module.SweepPoint) -> Any:
        if fail_after is not None and len(ran) >= fail_after:
            raise KeyboardInterrupt
        ran.append(point.values)
        return real(point)

    monkeypatch.setattr(sweep_module, "run_point", counted)
    return ran


def test_rows_do_not_depend_on_the_number_of_workers(small: Path, tmp_path: Path) -> None:
    tables = []
    for workers in (1, 2):
        out = tmp_path / f"{workers}.csv"
        sweep(small, BATCHES | {"seed": [0, 1]}, workers=workers, out=out)
        tables.append(out.read_bytes())
    assert tables[0] == tables[1]
    assert tables[0].count(b"\n") == 7


def test_larger_batches_trade_first_token_for_token_rate(small: Path) -> None:
    rows = sweep(small, BATCHES).rows
    assert [row["max_num_seqs"] for row in rows] == BATCHES["max_num_seqs"]
    waits = [row["median_ttft_ms"] for row in rows]
    paces = [row["median_tpot_ms"] for row in rows]
    assert waits == sorted(waits, reverse=True) and waits[0] > waits[-1]
    assert paces == sorted(paces) and paces[0] < paces[-1]


def test_row_equals_the_run_of_the_same_settings(small: Path) -> None:
    import simserve

    (row,) = sweep(small, {"max_num_seqs": [4]}).rows
    alone = simserve.run(simserve.load_scenario(small, settings=["max_num_seqs=4"]))
    assert row["verdict"] == alone.verdict.name
    assert row["p99_ttft_ms"] == alone.bench_dict()["p99_ttft_ms"]
    assert row["scenario_digest"] == alone.facts.digest


def test_point_that_does_not_fit_is_a_row_with_its_reason(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "models.csv"
    rows = sweep(small, {"model": ["llama-3.1-8b", "llama-3.1-70b"]}, out=out).rows
    assert rows[0]["verdict"] != DOES_NOT_FIT and "reason" not in rows[0]
    assert rows[1]["verdict"] == DOES_NOT_FIT and "GB" in rows[1]["reason"]
    saved = read_table(out)
    assert saved[1]["reason"] == rows[1]["reason"]


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_table_is_read_back_as_it_was_written(name: str, small: Path, tmp_path: Path) -> None:
    out = tmp_path / name
    rows = sweep(small, {"model": ["llama-3.1-8b", "llama-3.1-70b"]}, slo="ttft:1", out=out).rows
    assert read_table(out) == list(rows)
    assert table_bytes(read_table(out), out.suffix) == out.read_bytes()


def test_killed_sweep_loses_no_finished_point(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.csv", tmp_path / "killed.csv"
    sweep(small, BATCHES, out=whole)
    with monkeypatch.context() as patch:
        count_runs(patch, fail_after=2)
        with pytest.raises(KeyboardInterrupt):
            sweep(small, BATCHES, out=out)
    journal = tmp_path / "killed.csv.partial"
    assert not out.exists() and journal.read_text().count("\n") == 2
    with pytest.raises(InputError, match="2 finished points of an interrupted sweep"):
        sweep(small, BATCHES, out=out)
    journal.write_text(journal.read_text() + '{"max_num_seqs": 6')  # cut off while written
    ran = count_runs(monkeypatch)
    sweep(small, BATCHES, out=out, resume=True)
    assert ran == [{"max_num_seqs": 64}]
    assert out.read_bytes() == whole.read_bytes()
    assert not journal.exists()


def test_resumed_sweep_runs_only_what_is_new(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, fresh = tmp_path / "table.csv", tmp_path / "fresh.csv"
    sweep(small, {"max_num_seqs": [1, 4]}, out=out)
    ran = count_runs(monkeypatch)
    sweep(small, BATCHES, out=out, resume=True)
    assert ran == [{"max_num_seqs": 64}]
    sweep(small, BATCHES, out=fresh)
    assert out.read_bytes() == fresh.read_bytes()


def test_resumed_sweep_keeps_rows_of_other_points(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.csv"
    sweep(small, {"max_num_seqs": [1]}, out=out)
    sweep(small, {"max_num_seqs": [4]}, out=out, resume=True)
    assert [row["max_num_seqs"] for row in read_table(out)] == [4, 1]


def test_row_of_another_version_is_run_again(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "table.csv"
    sweep(small, {"max_num_seqs": [4]}, out=out)
    out.write_text(out.read_text().replace(",0.", ",0.").rpartition(",")[0] + ",0.0.0\n")
    ran = count_runs(monkeypatch)
    sweep(small, {"max_num_seqs": [4]}, out=out, resume=True)
    assert len(ran) == 1 and len(read_table(out)) == 1


def test_directory_gets_a_summary_and_one_result_per_point(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "sweep"
    rows = sweep(small, BATCHES, out=out).rows
    assert sorted(path.name for path in out.iterdir()) == ["runs", "summary.csv"]
    for row in rows:
        saved = json.loads((out / "runs" / f"{row['scenario_digest'][:16]}.json").read_text())
        assert math.isclose(saved["p99_ttft_ms"], row["p99_ttft_ms"])


def test_frame_has_one_line_per_point(small: Path) -> None:
    frame = sweep(small, BATCHES).frame()
    assert list(frame["max_num_seqs"]) == BATCHES["max_num_seqs"]


def test_nothing_is_run_when_a_later_value_is_wrong(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = count_runs(monkeypatch)
    with pytest.raises(InputError):
        sweep(small, {"max_num_seqs": [4, -1]}, out=tmp_path / "table.csv")
    assert ran == [] and list(tmp_path.iterdir()) == [small]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("small.yaml", "--out: got small.yaml, allowed: a .csv or .parquet file"),
        ("table.xlsx", "--out: got table.xlsx, allowed: a .csv or .parquet file"),
        ("nowhere/table.csv", "a file in a directory that exists"),
    ],
)
def test_destination_that_cannot_be_used_is_refused(
    out: str, message: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # messages shorten long paths
    with pytest.raises(InputError, match=message):
        sweep(small, BATCHES, out=Path(out))
    assert list(tmp_path.iterdir()) == [small]


def test_table_that_no_sweep_wrote_is_refused(small: Path, tmp_path: Path) -> None:
    for name, content in {"a.csv": b"\xff\xfe\x00", "b.parquet": b"PAR1"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="a table of a sweep"):
            sweep(small, BATCHES, out=tmp_path / name, resume=True)
        assert (tmp_path / name).read_bytes() == content


def test_append_before_the_journal_is_open_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        SweepFiles(tmp_path / "a.csv").append({})


def test_replications_add_the_intervals_that_run_gives(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.csv"
    few = {"max_num_seqs": [4, 64]}
    asked: dict[str, Any] = {"slo": "ttft_p95:1e5", "settings": ["workload.num_requests=400"]}
    (tight, wide) = sweep(small, few, replications=4, out=out, **asked).rows
    longer = [*asked["settings"], "max_num_seqs=64"]
    scenario = load_scenario(small, settings=longer, slo="ttft_p95:1e5")
    runs = replicate(scenario, range(4))
    found = steady_state(runs).interval("ttft", "mean")
    assert found is not None and found.low is not None
    assert wide["steady_mean_ttft_ms"] == found.value * 1000
    assert wide["steady_mean_ttft_ms_low"] == found.low * 1000
    assert wide["replications"] == 4 and wide["slo_met"] is True
    assert tight["replications"] == 4
    assert read_table(out) == [tight, wide]
    # All but the columns of replications is the first of them: what a plain sweep has.
    (_, plain) = sweep(small, few, **asked).rows
    more = {name for name in wide if name.startswith("steady_")} | {"replications"}
    assert {name: wide[name] for name in wide if name not in more} == plain


def test_a_number_of_a_replicated_sweep_has_an_interval_or_is_a_dash(small: Path) -> None:
    longer = ["workload.num_requests=500"]
    rows = sweep(small, {"max_num_seqs": [4, 64]}, replications=2, settings=longer).rows
    assert any("steady_mean_ttft_ms" in row for row in rows)
    for row in rows:
        steady = [name for name in row if name.startswith("steady_") and name.endswith("_ms")]
        assert all(row[f"{name}_low"] <= row[name] <= row[f"{name}_high"] for name in steady)
        assert "steady_p99_ttft_ms" not in row  # a thousand requests do not carry it
    text = table(rows, ["max_num_seqs"])
    assert "TTFT mean" in text and "-" in text.splitlines()[1].split()


def test_weights_that_are_not_changed_are_said_to_be_as_given() -> None:
    row = {"quantization": "none", "verdict": "kept"}
    assert table([row], ["quantization"]).splitlines()[1].split() == ["as", "given", "kept"]


@pytest.mark.parametrize("keys", [["gpu"], ["gpu", "max_num_batched_tokens", "kv_cache_dtype"]])
def test_a_table_fits_80_columns_and_keeps_every_row(small: Path, keys: list[str]) -> None:
    values = {"gpu": ["rtx-pro-6000-server"], "kv_cache_dtype": ["fp8"]}
    vary = {key: values.get(key, [2048]) for key in keys} | {"model": ["qwen3-8b", "llama-3.1-70b"]}
    lines = table(sweep(small, vary, slo="ttft_p95:500").rows, list(vary)).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(any(str(value) in line for line in lines) for one in vary.values() for value in one)
    assert "--vary model=llama-3.1-70b: " in "\n".join(lines)


def test_a_row_of_other_replications_is_run_again(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "table.csv"
    sweep(small, {"max_num_seqs": [4]}, out=out)
    ran = count_runs(monkeypatch)
    sweep(small, {"max_num_seqs": [4]}, out=out, resume=True, replications=2)
    assert len(ran) == 1 and read_table(out)[0]["replications"] == 2
    sweep(small, {"max_num_seqs": [4]}, out=out, resume=True, replications=2)
    assert len(ran) == 1


def test_replications_of_one_and_the_same_workload_are_refused(small: Path) -> None:
    with pytest.raises(InputError, match="--replications: got 0, allowed: an integer from 1"):
        sweep(small, BATCHES, replications=0)
    small.write_text(
        small.read_text()
        .replace("process: poisson", "process: constant")
        .replace("{median: 200, p95: 600, max: 2000}", "100")
        .replace("{median: 20, p95: 60, max: 200}", "10")
    )
    with pytest.raises(InputError, match=r"--replications: .*the same whatever the seed"):
        sweep(small, BATCHES, replications=3)


def test_a_full_disk_is_said_with_the_name_of_the_journal(tmp_path: Path) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    files = SweepFiles(tmp_path / "t.csv")
    files.open_journal([])
    files._stream = Full()
    with pytest.raises(InputError, match=r"t\.csv\.partial: got No space left on device"):
        files.append({"a": 1})
    files.close()
    assert not list(tmp_path.iterdir())  # not one point was finished
