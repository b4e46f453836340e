"""The comparison with Vidur gives both simulators the same, and fails aloud."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from benchmarks import beside_vidur
from benchmarks.cases import OUTPUT_TOKENS
from simserve.records.clock import PS_PER_S

SMALL = 200


def test_both_poisson_workloads_are_served_in_the_time_that_their_steps_take() -> None:
    light, heavy = (beside_vidur.poisson(SMALL, rate) for rate in (12, 40))
    found = [beside_vidur.run_simserve(requests) for requests in (light, heavy)]
    assert found[0]["steps"] > found[1]["steps"]  # fuller batches
    least_s = OUTPUT_TOKENS * beside_vidur.STEP_TIME.base_ps / PS_PER_S
    assert least_s < found[0]["e2e_s"] < found[1]["e2e_s"]


def test_vidur_is_asked_for_the_same_requests_steps_and_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}

    def answer(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        asked.update(json.loads(options["input"]))
        answer = json.dumps({"cpu_s": 1.0, "steps": 2, "e2e_s": 3.0})
        return subprocess.CompletedProcess(command, 0, stdout=f"a line of its own\n{answer}\n")

    monkeypatch.setattr(subprocess, "run", answer)
    requests = beside_vidur.poisson(SMALL, 12)
    assert beside_vidur.run_vidur(requests, "python")["e2e_s"] == 3.0
    assert [row[1:] for row in asked["requests"]] == [[512, 128]] * SMALL
    assert asked["requests"][-1][0] == pytest.approx(requests.arrival_ps[-1] / 1e12)
    assert asked["step_ms"] == [6.4, 0.02, 0.000049]
    assert asked["max_num_batched_tokens"] == beside_vidur.LIMITS.max_num_batched_tokens


def test_python_without_vidur_ends_in_its_words() -> None:
    with pytest.raises(SystemExit, match="could not run Vidur"):
        beside_vidur.run_vidur(beside_vidur.poisson(2, 12), sys.executable)
