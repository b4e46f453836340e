"""A gate fails what a change breaks beyond noise, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import simserve
from simserve.errors import InputError
from simserve.inputs.scenario import Scenario
from simserve.planning.gate import GateVerdict, gate
from simserve.report.gate import gate_dict, gate_text, reason

SLO = "ttft_p95:100"
SLOW = "max_num_seqs=2"


def scenario(small: Path, *settings: str, slo: str | None = SLO) -> Scenario:
    more = ["workload.num_requests=150", *settings]
    return simserve.load_scenario(small, settings=more, slo=slo)


@pytest.fixture
def baseline(small: Path, tmp_path: Path) -> Path:
    simserve.run(scenario(small)).save(tmp_path / "before")
    return tmp_path / "before"


def outcome(found: GateVerdict) -> str:
    (row,) = found.rows
    return row.outcome


def test_nothing_changed_passes(small: Path, baseline: Path) -> None:
    found = gate(scenario(small), baseline)
    assert (found.passes, outcome(found), found.notes) == (True, "kept", ())
    (row,) = found.rows
    assert row.before is not None and row.before.share == row.now.share


def test_a_change_that_breaks_the_slo_fails(small: Path, baseline: Path) -> None:
    found = gate(scenario(small, SLOW), baseline)
    assert (found.passes, outcome(found)) == (False, "broken")
    assert reason(found).startswith("broken: ttft_p95:100 kept by ")


def test_what_was_broken_before_is_not_held_against_a_change(small: Path, tmp_path: Path) -> None:
    simserve.run(scenario(small, SLOW)).save(tmp_path / "slow")
    found = gate(scenario(small, SLOW, "max_num_batched_tokens=4096"), tmp_path / "slow")
    assert (found.passes, outcome(found)) == (True, "broken before")
    assert "broken before too" in reason(found)


def test_what_may_be_chance_passes(small: Path, baseline: Path) -> None:
    plain = simserve.run(scenario(small))
    edge_ms = (plain.metrics.ttft.percentile(94) or 0) * 1000
    found = gate(scenario(small, slo=f"ttft_p95:{edge_ms:.3f}"), baseline, replications=1)
    assert found.passes and outcome(found) in ("may be chance", "kept")


def test_a_measured_baseline_is_judged_by_its_requests(small: Path, tmp_path: Path) -> None:
    plain = simserve.run(scenario(small))
    entry = plain.bench_dict(save_detailed=True, metric_percentiles=(95,))
    del entry["simserve"]
    entry["backend"] = "vllm"
    (tmp_path / "measured.json").write_text(json.dumps(entry))
    found = gate(scenario(small, SLOW), tmp_path / "measured.json", replications=3)
    (row,) = found.rows
    assert row.before is not None and row.before.met
    within = plain.metrics.ttft.values_s <= 0.1
    assert row.before.share == pytest.approx(within.mean())
    assert not found.passes
    for key in ("ttfts", "itls", "output_lens", "latencies"):
        del entry[key]
    (tmp_path / "measured.json").write_text(json.dumps(entry))
    (row,) = gate(scenario(small), tmp_path / "measured.json", replications=3).rows
    assert row.before is not None and row.before.met and row.before.share is None


def test_another_workload_in_the_baseline_is_said(small: Path, baseline: Path) -> None:
    found = gate(scenario(small, "workload.arrivals.rate_per_s=5"), baseline, replications=3)
    assert found.notes == ("the baseline has another workload",)


def test_a_gate_without_objectives_is_refused(small: Path, baseline: Path) -> None:
    with pytest.raises(InputError, match="--slo"):
        gate(scenario(small, slo=None), baseline)


def test_report_is_a_line_and_a_small_table(small: Path, baseline: Path) -> None:
    found = gate(scenario(small, slo=f"{SLO} ttft:300 tpot:50 e2el:9000"), baseline, replications=3)
    lines = gate_text(found).splitlines()
    assert lines[0] == reason(found) and max(map(len, lines)) <= 80
    data = gate_dict(found)
    assert data["passes"] is found.passes and len(data["objectives"]) == 2
    assert json.loads(json.dumps(data)) == data


def test_a_change_that_takes_the_steady_state_away_fails(small: Path, baseline: Path) -> None:
    easy = "ttft_p50:900000"
    found = gate(scenario(small, "max_num_seqs=1", slo=easy), baseline, replications=3)
    assert not found.steady and found.newly_unsteady and not found.passes
    assert reason(found).startswith("broken: most replications have no steady state")
    simserve.run(scenario(small, "max_num_seqs=1")).save(baseline)
    again = gate(scenario(small, "max_num_seqs=1", slo=easy), baseline, replications=3)
    assert not again.steady and again.passes


def test_an_objective_that_no_request_has_does_not_pass(small: Path, baseline: Path) -> None:
    single = scenario(small, "workload.output_tokens=1", slo="tpot_p95:50")
    with pytest.raises(InputError, match="a latency that some request has"):
        gate(single, baseline, replications=1)
