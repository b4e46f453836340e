"""A profile says what was measured, is read by the simulator, and lists what is missing."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calibrate.plans.choose import make_plan
from calibrate.profile_writer import MEMORY, write_profile
from calibrate.results import read_results
from simserve.errors import InputError
from simserve.inputs.hardware_profile import load_gpu
from simserve.inputs.model_catalogue import load_model
from simserve.inputs.quantization import find_format
from simserve.latency.tables.profile import Profile, read_profile
from simserve.latency.tables.table_model import TableModel
from simserve.records.step import PrefillChunk, StepShape
from tests.calibrate.measure.made_up import h200_plan, time_us, write_journal

plan_of_8b = functools.cache(h200_plan)


def test_every_measured_row_stands_in_its_table_with_its_median(tmp_path: Path) -> None:
    plan = plan_of_8b()
    profile = read_profile(write_profile(write_journal(tmp_path, plan)))
    for name, table in profile.tables.items():
        own = [point for point in plan.points if point.table == name]
        assert len(table.rows) == len(own)
        times = sorted(round(time_us(plan, point), 3) for point in own)
        assert sorted(row.seconds * 1e6 for row in table.rows) == pytest.approx(times, abs=1e-3)
    assert (profile.gpu, profile.sms, profile.provenance.kind) == ("h200-sxm", 132, "measured")


def test_the_simulator_prices_steps_from_it(tmp_path: Path) -> None:
    profile = read_profile(write_profile(write_journal(tmp_path, plan_of_8b())))
    model = TableModel(profile, load_model("llama-3.1-8b"), load_gpu("h200-sxm"), 1)
    assert model.step_s(StepShape(64, 64 * 2048, ())) > 0.005
    shape = StepShape(64, 64 * 2048, (PrefillChunk(512, 0),))
    sources = {part.operator: part.source for part in model.parts(shape)}
    assert "roofline" not in sources.values(), sources
    assert model.missing == ()


def test_what_failed_or_was_not_reached_is_listed(tmp_path: Path) -> None:
    plan = plan_of_8b()

    def refused(point: Any, entry: dict[str, Any]) -> dict[str, Any]:
        if point.table != "attn_decode":
            return entry
        kept = {key: value for key, value in entry.items() if not key.startswith("us_")}
        return {**kept, "status": "refused", "error": "fa3: not installed"}

    profile = read_profile(write_profile(write_journal(tmp_path, plan, refused, skip=7)))
    told = "\n".join(profile.facts["missing"])
    assert "attn_decode" not in profile.tables
    assert "fa3: not installed" in told
    assert sum(int(n) for n in re.findall(r"(\d+) points were not reached", told)) == 7
    assert "only a part of the plan was asked for" in told
    assert "attn_decode.csv: no row" in told


def test_a_profile_of_two_gpus_says_so(tmp_path: Path) -> None:
    out = write_journal(tmp_path, plan_of_8b())
    journal = out / "journal.jsonl"
    first = journal.read_text().splitlines()[0]
    for uuid, told in (("ab", 0), ("another", 1)):
        journal.write_text(journal.read_text() + first.replace('"ab"', f'"{uuid}"') + "\n")
        missing = read_profile(write_profile(out)).facts["missing"]
        assert sum("a single GPU: they are of 2" in one for one in missing) == told


def test_quality_and_ceilings_are_those_of_the_journal(tmp_path: Path) -> None:
    plan = plan_of_8b()
    facts = read_profile(write_profile(write_journal(tmp_path, plan))).facts
    assert facts["quality"]["repeat_p50_pct"] == pytest.approx(2.0)
    assert facts["quality"]["drift_pct"] == pytest.approx(3.0)
    # Half of the roofline at 0.80 of 4.8 TB/s, and at 0.68 of the peaks; the largest come closest.
    ceilings = facts["ceilings"]
    assert ceilings["copy_TBps"] == pytest.approx(4.8 * 0.8 / 2, rel=0.01)
    assert ceilings["bf16_TFLOPs_burst"] == pytest.approx(989 * 0.68 / 2, rel=0.01)
    assert ceilings["graph_node_us"] == pytest.approx(2.0)
    assert facts["run"]["git_commit"] == "0" * 40


def test_launches_are_measured_and_the_engines_own_time_is_not(tmp_path: Path) -> None:
    host = read_profile(write_profile(write_journal(tmp_path, plan_of_8b()))).host
    assert host is not None
    assert host.launch_kernel.kind == host.launch_graph.kind == "measured"
    assert host.host_step.kind == "assumed"
    assert "not measured here" in host.host_step.source


def test_of_two_backends_the_plans_own_is_priced_from(tmp_path: Path) -> None:
    plan = plan_of_8b()

    def other(point: Any, entry: dict[str, Any]) -> dict[str, Any]:
        if point.table == "attn_decode" and point.keys["batch"] == 1 and point.keys["hq"] == 32:
            return {**entry, "block": "backends", "keys": {**entry["keys"], "backend": "triton"}}
        return entry

    profile = read_profile(write_profile(write_journal(tmp_path, plan, other)))
    assert profile.use == {"attn_decode": "fa3"}


def test_a_point_measured_again_counts_with_its_last_time(tmp_path: Path) -> None:
    plan = plan_of_8b()
    path = write_journal(tmp_path, plan) / "journal.jsonl"
    entry = next(
        json.loads(line) for line in path.read_text().splitlines() if '"kind": "point"' in line
    )
    with path.open("a") as file:
        file.write(json.dumps({**entry, "us_p50": 7.0}) + "\n")
    assert read_results(tmp_path).points[entry["name"]]["us_p50"] == 7.0


def test_measured_memory_goes_with_the_profile(tmp_path: Path) -> None:
    out = write_journal(tmp_path, plan_of_8b())
    (out / MEMORY).write_text(json.dumps({"model": "llama-3.1-8b", "context_bytes": 5}))
    assert read_profile(write_profile(out)).facts["memory"]["context_bytes"] == 5


def test_a_profile_is_written_twice_alike(tmp_path: Path) -> None:
    out = write_journal(tmp_path, plan_of_8b())
    first = {path.name: path.read_bytes() for path in write_profile(out).iterdir()}
    assert {path.name: path.read_bytes() for path in write_profile(out).iterdir()} == first


def test_a_journal_without_rows_makes_no_profile(tmp_path: Path) -> None:
    plan = plan_of_8b()
    out = write_journal(tmp_path, plan, skip=len(plan.points))
    with pytest.raises(InputError, match="no finished row"):
        write_profile(out)
    assert not (out / "profile").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    """The profile of the whole plan, as if everything had been measured."""
    out = write_journal(tmp_path_factory.mktemp("whole"), make_plan("h200-10min"))
    return read_profile(write_profile(out))


@pytest.mark.slow
@pytest.mark.parametrize("kv_bytes", [2.0, 1.0])
@pytest.mark.parametrize("weights", [None, "fp8"])
@pytest.mark.parametrize(
    ("name", "tp"),
    [
        ("llama-3.1-8b", 1),
        ("llama-3.1-8b", 8),
        ("llama-3.1-70b", 4),
        ("qwen3-32b", 2),
        ("qwen3-30b-a3b", 4),
        ("deepseek-v3", 8),
    ],
)
def test_the_plan_leaves_to_the_roofline_only_what_one_gpu_or_no_table_can_answer(
    whole: Profile, name: str, tp: int, weights: str | None, kv_bytes: float
) -> None:
    spec = replace(
        load_model(name),
        weights=find_format(weights, "test", "weights") if weights else None,
        kv_bytes_per_value=kv_bytes,
    )
    if spec.experts is not None and weights is not None:
        pytest.skip("there is no grouped kernel of 8 bits to measure")
    model = TableModel(whole, spec, load_gpu("h200-sxm"), tp)
    parts = model.parts(StepShape(64, 64 * 2048, (PrefillChunk(512, 0),)))
    derived = {part.operator for part in parts if part.source == "roofline"}
    allowed = {"all_reduce", "all_gather", "experts_up", "experts_down"}
    if spec.mla is not None:
        allowed |= {"attn_decode", "attn_prefill"}  # mla.csv is not priced from yet
    assert derived <= allowed
    lent = {part.operator for part in parts if part.source == "transfer"}
    assert lent <= {"attn_mixed", "attn_prefill", "rope_store"}
