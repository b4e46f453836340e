from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from simserve.errors import InputError
from simserve.records.run_record import RunMeta
from simserve.results import frames
from simserve.results.result import Result
from simserve.results.whole_files import (
    directory_for,
    text_writer,
    write_json,
    write_together,
    write_whole,
)
from tests.results.reference_run import Options, request_table, run_reference
from tests.results.scenarios import result, scenario


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("slo", [None, "ttft:500 tpot_p95:50"])
def test_a_loaded_result_gives_the_same_result_file(
    tmp_path: Path, replicas: int, slo: str | None
) -> None:
    run = result(slo, replicas=replicas)
    run.save(tmp_path)
    loaded = Result.load(tmp_path)
    assert loaded.bench_dict(save_detailed=True) == run.bench_dict(save_detailed=True)
    assert loaded.slo_report == run.slo_report
    assert loaded.verdict == run.verdict


def test_loaded_frames_equal_those_of_the_run(tmp_path: Path) -> None:
    run = result()
    run.save(tmp_path)
    loaded = Result.load(tmp_path)
    assert loaded.requests_frame().equals(run.requests_frame())
    assert loaded.steps_frame().equals(run.steps_frame())


def test_a_run_of_months_loses_no_picosecond(tmp_path: Path) -> None:
    months_ms = 60 * 24 * 3600 * 1000
    requests = request_table([0, months_ms + 1e-9], [8, 300], [3, 50])
    run = Result(scenario(), run_reference(requests).record)
    run.save(tmp_path)
    loaded = Result.load(tmp_path)
    assert np.array_equal(loaded.record.outcomes.finish_ps, run.record.outcomes.finish_ps)
    assert loaded.bench_dict() == run.bench_dict()


def test_files_written_in_parts_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = result()
    monkeypatch.setattr(frames, "_STEPS_AT_ONCE", 7)
    run.save(tmp_path)
    assert Result.load(tmp_path).steps_frame().equals(run.steps_frame())


def test_the_files_are_readable_without_simserve(tmp_path: Path) -> None:
    import pandas as pd

    run = result()
    run.save(tmp_path)
    requests = pd.read_parquet(tmp_path / "requests.parquet")
    steps = pd.read_parquet(tmp_path / "steps.parquet")
    done = requests[requests.status == "finished"]
    assert done.ttft_s.mean() * 1000 == pytest.approx(run.bench_dict()["mean_ttft_ms"])
    assert requests.ttft_s[requests.status == "rejected"].isna().all()
    assert steps.groupby("replica").step.max().add(1).sum() == run.engine_use.steps
    assert (steps.end_s > steps.start_s).all()


def test_the_requests_frame_has_the_documented_columns() -> None:
    assert list(result().requests_frame())[:13] == [
        "id", "arrival_s", "prompt_tokens", "output_tokens", "status", "replica",
        "first_scheduled_s", "ttft_s", "tpot_s", "e2e_s", "finish_s", "generated_tokens",
        "preemptions",
    ]  # fmt: skip


def test_a_record_without_steps_can_be_saved(tmp_path: Path) -> None:
    record = run_reference(request_table([0], [9], [1]), Options(longest=1)).record
    run = Result(scenario(), record)
    run.save(tmp_path)
    assert Result.load(tmp_path).bench_dict() == run.bench_dict()


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        result().save(tmp_path / name)
    for file in ("run.json", "requests.parquet", "steps.parquet"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    target.write_text("old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left on device"):
        write_whole(target, fail)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_link_stays_one_unless_it_leads_to_itself(tmp_path: Path) -> None:
    link, ring = tmp_path / "link", tmp_path / "ring"
    link.symlink_to("target")
    ring.symlink_to("ring")
    for path in (link, ring):
        write_json(path, {})
    assert link.is_symlink() and not ring.is_symlink()
    assert (tmp_path / "target").read_text() == ring.read_text() == "{}\n"
    assert len(list(tmp_path.iterdir())) == 3


def test_the_result_file_is_one_json_object(tmp_path: Path) -> None:
    run = result()
    run.save_bench(tmp_path / "bench.json", save_detailed=True)
    assert json.loads((tmp_path / "bench.json").read_text()) == run.bench_dict(save_detailed=True)


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder that 'run --out' wrote"):
        Result.load(tmp_path)


def test_a_table_that_claims_more_than_any_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    result().save(tmp_path)

    def claim(*_: object, **__: object) -> None:
        raise pa.ArrowMemoryError("malloc of size 6444040128 failed")

    monkeypatch.setattr(pq, "read_table", claim)
    with pytest.raises(InputError, match="malloc of size 6444040128 failed"):
        Result.load(tmp_path)


def test_files_of_two_runs_are_not_mixed(tmp_path: Path) -> None:
    result(requests=40).save(tmp_path / "one")
    result(requests=41).save(tmp_path / "two")
    (tmp_path / "two" / "requests.parquet").replace(tmp_path / "one" / "requests.parquet")
    with pytest.raises(InputError, match=r"requests\.parquet: rows: got 41, allowed: 40"):
        Result.load(tmp_path / "one")


def test_files_of_two_scenarios_of_one_size_are_not_mixed(tmp_path: Path) -> None:
    result().save(tmp_path / "one")
    result(seed=7).save(tmp_path / "two")
    (tmp_path / "two" / "steps.parquet").replace(tmp_path / "one" / "steps.parquet")
    with pytest.raises(InputError, match=r"steps\.parquet: scenario"):
        Result.load(tmp_path / "one")


def test_a_later_format_is_refused_by_name(tmp_path: Path) -> None:
    result().save(tmp_path)
    run = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(run | {"format": 99}))
    with pytest.raises(InputError, match="format: got 99"):
        Result.load(tmp_path)


META = RunMeta(users=3, last_session_ps=7, notes=("odd",), measured_on="cuda:0")


def test_what_the_arrays_do_not_show_is_kept(tmp_path: Path) -> None:
    run = result()
    Result(None, dataclasses.replace(run.record, meta=META), facts=run.facts).save(tmp_path)
    assert Result.load(tmp_path).record.meta == META


@pytest.mark.parametrize(
    "damage", [{"users": "3"}, {"users": True}, {"notes": [1]}, {"priced_from": []}, {"more": 1}]
)
def test_damaged_words_about_a_run_are_refused(tmp_path: Path, damage: dict[str, object]) -> None:
    result().save(tmp_path)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"meta": damage}))
    with pytest.raises(InputError, match=next(iter(damage))):
        Result.load(tmp_path)


def test_a_place_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a place that can be written"):
        result().save(tmp_path / "file" / "below")


def test_a_run_that_finds_no_room_leaves_what_was_there(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "Arrow says it in other words")

    kept, other = tmp_path / "a", tmp_path / "b"
    kept.write_text("old")
    with pytest.raises(InputError, match="b: got No space left on device, allowed: a place"):
        write_together({kept: text_writer("new"), other: fail})
    assert kept.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    with pytest.raises(InputError), directory_for(tmp_path / "made"):
        write_together({tmp_path / "made" / "b": fail})
    assert not (tmp_path / "made").exists()
    with directory_for(tmp_path / "made"):
        write_together({tmp_path / "made" / "c": text_writer("new")})
    assert (tmp_path / "made" / "c").read_text() == "new"
