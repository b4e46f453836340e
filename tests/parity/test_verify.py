"""Step-for-step parity with recorded schedules of a real scheduler."""

from __future__ import annotations

import gzip
import json
from array import array
from pathlib import Path

import pytest

from simserve.errors import InputError
from simserve.parity.case_file import load_case
from simserve.parity.case_writer import CaseWriter
from simserve.parity.verify import CaseReport, serve_case, verify_case
from simserve.policy.cohort import CohortScheduler
from simserve.policy.plain import PlainScheduler
from simserve.policy.pressure import Chunk
from simserve.policy.scheduler import StepPlan

OPEN_CASES = Path(__file__).parents[2].parent / "shared" / "oracle" / "open"
OPEN = (
    "o01-hand-chunked",
    "o02-hand-prefix",
    "o03-hand-preempt",
    "o04-azure-low-load",
    "o05-azure-saturation",
    "o06-kv-pressure",
    "o07-tiny-budget-threshold",
    "o08-no-chunked-prefill",
    "o09-shared-system-prompts",
    "o10-multi-turn",
    "o11-priority",
    "o12-async",
)


def open_case(name: str) -> Path:
    """Return a recorded case's file, or skip."""
    for suffix in (".case.json", ".case.json.gz"):
        path = OPEN_CASES / (name + suffix)
        if path.exists():
            return path
    pytest.skip(f"recorded schedules are not here: {OPEN_CASES}")


@pytest.mark.parametrize("name", OPEN)
def test_the_fast_scheduler_repeats_every_recorded_step(name: str) -> None:
    report = verify_case(open_case(name))
    assert report == CaseReport(name, report.steps, 0)
    assert report.steps > 0


@pytest.mark.parametrize(
    "name", ["o02-hand-prefix", "o06-kv-pressure", "o11-priority", "o12-async"]
)
def test_the_plain_scheduler_repeats_every_recorded_step(name: str) -> None:
    assert verify_case(open_case(name), PlainScheduler).same


class VictimIsOldest(CohortScheduler):
    """Preempts the request that has run longest: wrong."""

    def _choose_victim(self):  # type: ignore[no-untyped-def]
        return next(iter(self._running.values()))


class ForgetsTheBudget(CohortScheduler):
    """Admits as if decoding requests cost no budget: wrong."""

    def _plan_running(self, plan: StepPlan, chunks: list[Chunk], cap: int | None) -> int:
        return super()._plan_running(plan, chunks, cap) + self._cohort.size


class SharesNothing(CohortScheduler):
    """Never looks into the prefix cache: wrong where prompts repeat."""

    def _plan_waiting(
        self, plan: StepPlan, chunks: list[Chunk], cap: int | None, budget: int
    ) -> None:
        self._caching = False
        super()._plan_waiting(plan, chunks, cap, budget)
        self._caching = True


class CountsABlockLess(CohortScheduler):
    """Believes that a stretch takes no blocks: wrong only in stretches."""

    def repeat_step(self, most: int) -> array[int]:
        self._cohort.clock += most
        return array("i", [0]) * most


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        (VictimIsOldest, "o03-hand-preempt"),
        (ForgetsTheBudget, "o05-azure-saturation"),
        (SharesNothing, "o02-hand-prefix"),
        (CountsABlockLess, "o04-azure-low-load"),
    ],
)
def test_a_broken_scheduler_diverges(broken: type[CohortScheduler], name: str) -> None:
    report = verify_case(open_case(name), broken)
    assert not report.same
    assert report.detail is not None
    assert "expected" in report.detail


# A case of our own, worked out by hand: 3 usable blocks of 4, budget 8, 1 ms a step.
# r0 (6 tokens) and r1 (4 tokens) arrive together. Step 0: all of r0 (2 blocks) and the 2
# tokens that the budget leaves of r1 (1 block). Step 1: r0 decodes (token 7, block 2), r1
# computes its other 2 and samples. Step 2: r0 decodes token 8; r1's 5th token needs a block,
# none is free, r1 is the newest and goes. Step 3: r0 needs block 3, takes the one that r1
# gave back (its cached contents are lost), and finishes. Step 4: r1 resumes with 5 known tokens,
# none of them cached any more, computes all 5, samples its 2nd token and finishes.
HAND_CASE = {
    "name": "by-hand",
    "format": 1,
    "scheduler": {"max_num_seqs": 4, "max_num_batched_tokens": 8, "max_model_len": 12},
    "kv": {"num_blocks": 4, "block_size": 4, "enable_prefix_caching": True},
    "step_time": {"base_s": 0.001, "per_token_s": 0, "per_ctx_token_s": 0},
    "requests": [
        {"id": "a", "arrival_s": 0, "prompt": [[0, 6]], "output_len": 4},
        {"id": "b", "arrival_s": 0, "prompt": [[1, 4]], "output_len": 2},
    ],
}
HAND_STEPS = [
    ([[0, 6, 0], [1, 2, 0]], [], 0),
    ([0, [1, 2, 2]], [], 0),
    ([0], [1], 1),
    ([0], [], 0),
    ([[1, 5, 0]], [], 1),
]


@pytest.mark.parametrize("scheduler", [PlainScheduler, CohortScheduler])
def test_a_case_worked_out_by_hand(
    tmp_path: Path, scheduler: type[PlainScheduler | CohortScheduler]
) -> None:
    path = tmp_path / "by-hand.case.json"
    path.write_text(json.dumps(HAND_CASE))
    writer = CaseWriter()
    serve_case(load_case(path), scheduler, writer)
    steps = [(r["sched"], r["preempted"], r["free"]) for r in writer.records]
    assert steps == HAND_STEPS


def test_the_first_diverging_step_is_shown_with_both_states(tmp_path: Path) -> None:
    path = tmp_path / "by-hand.case.json.gz"
    path.write_bytes(gzip.compress(json.dumps(HAND_CASE).encode()))
    writer = CaseWriter()
    serve_case(load_case(path), CohortScheduler, writer)
    writer.records[3]["free"] += 1
    lines = [json.dumps(record) for record in writer.records]
    path.with_name("by-hand.expected.jsonl").write_text("\n".join(lines))
    report = verify_case(path)
    assert report.diverging_steps == 1
    assert report.detail == 'first at step 3: expected {"free": 1}, got {"free": 0}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "allowed: a scheduler case"),
        (b"{}", "allowed: a scheduler case"),
        (b"\xff\xfe", "allowed: a readable file"),
    ],
)
def test_a_broken_case_file_is_refused_by_name(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "x.case.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_case(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("setting", [{"speculation": 3}, {"policies": 1}])
def test_a_setting_that_is_not_modelled_is_refused(tmp_path: Path, setting: dict[str, int]) -> None:
    path = tmp_path / "x.case.json"
    case = {**HAND_CASE, "scheduler": {**HAND_CASE["scheduler"], **setting}}  # type: ignore[dict-item]
    path.write_text(json.dumps(case))
    with pytest.raises(InputError, match=f"scheduler.{next(iter(setting))}"):
        load_case(path)


def test_a_case_without_its_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "by-hand.case.json"
    path.write_text(json.dumps(HAND_CASE))
    with pytest.raises(InputError, match="no expected records"):
        verify_case(path)
