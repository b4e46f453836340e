"""Requests that clients gave up: counted, never scored as answered, and kept in the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import simserve
from simserve.records.run_record import ABORTED, FINISHED
from simserve.report.text import run_report
from simserve.results.folder_laws import check_folder
from simserve.results.metrics import cancelled, request_latencies, timed_out
from simserve.results.result import Result


def served(slo: str | None = None, **workload: Any) -> Result:
    """Serve short chats on one GPU, with a batch so small that a queue forms."""
    return simserve.run(
        {
            "workload": {
                "arrivals": {"rate_per_s": 20},
                "prompt_tokens": {"median": 300, "p95": 900},
                "output_tokens": {"median": 60, "p95": 200},
                "num_requests": 400,
                **workload,
            },
            "deployment": {"model": "llama-3.1-8b", "gpu": "h100-sxm", "max_num_seqs": 8},
            "slo": slo,
        }
    )


@pytest.fixture(scope="module")
def impatient() -> Result:
    return served(
        "ttft_p50:10000 ttft_p99.9:60000 e2el:60000",
        timeout_s=2,
        cancellations={"frac": 0.2, "mean_after_s": 1.5},
    )


def test_every_request_is_answered_or_given_up(impatient: Result) -> None:
    metrics = impatient.metrics
    assert metrics.timed_out > 20
    assert metrics.cancelled > 20
    assert metrics.completed + metrics.timed_out + metrics.cancelled == metrics.num_prompts
    assert metrics.failed == metrics.timed_out + metrics.cancelled


def test_who_gave_up_has_no_latency(impatient: Result) -> None:
    record = impatient.record
    aborted = record.outcomes.status == ABORTED
    assert (timed_out(record) | cancelled(record) == aborted).all()
    assert not request_latencies(record).finished[aborted].any()


def test_patience_sheds_load(impatient: Result) -> None:
    patient = served()
    assert patient.metrics.completed == 400
    late_s, soon_s = (one.metrics.ttft.percentile(90) for one in (patient, impatient))
    assert late_s is not None
    assert soon_s is not None
    assert soon_s < late_s


def test_an_answer_with_patience_for_ever_is_the_same_as_without() -> None:
    one, other = served(), served(timeout_s="1000h")
    for name in ("finish_ps", "first_token_ps", "generated_tokens"):
        a, b = getattr(one.record.outcomes, name), getattr(other.record.outcomes, name)
        assert (a == b).all()
    assert other.metrics.timed_out == 0


def test_a_timeout_is_later_than_any_percentile_allows(impatient: Result) -> None:
    report = impatient.slo_report
    assert report is not None
    median, tail, single = report.objectives
    assert median.met
    assert median.value_ms is not None
    assert tail.value_ms is None  # more than 0.1 % timed out: nobody is that percentile
    assert not tail.met
    # Cancelled requests are nobody's fault: the share is of the others.
    metrics = impatient.metrics
    kept = metrics.num_prompts - metrics.cancelled
    assert single.attained_frac == pytest.approx(metrics.completed / kept)


def test_files_keep_who_gave_up_and_when(impatient: Result, tmp_path: Path) -> None:
    impatient.save(tmp_path / "run")
    assert check_folder(tmp_path / "run") == []
    loaded = Result.load(tmp_path / "run")
    mine, theirs = impatient.record, loaded.record
    assert (mine.outcomes.status == theirs.outcomes.status).all()
    assert mine.requests.give_up_ps is not None
    assert theirs.requests.give_up_ps is not None
    assert (mine.requests.give_up_ps == theirs.requests.give_up_ps).all()
    assert (timed_out(mine) == timed_out(theirs)).all()
    assert int(theirs.steps[0].expand()["aborted"].sum()) == impatient.metrics.failed


def test_the_report_says_what_its_latencies_leave_out(impatient: Result) -> None:
    text = run_report(impatient)
    assert f"{impatient.metrics.timed_out} timed out" in text
    assert "given up by their clients" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_closed_loop_goes_on_after_somebody_gave_up() -> None:
    run = served(
        arrivals={"process": "closed-loop", "users": 30, "think_time_s": 0.5},
        num_requests=200,
        timeout_s=2,
    )
    status = run.record.outcomes.status
    assert len(status) == 200
    assert np.isin(status, [FINISHED, ABORTED]).all()
    assert run.metrics.timed_out > 0
