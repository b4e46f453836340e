"""Every rule of the scheduler has a small recorded case that tells when it is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from simserve.engine import cluster
from simserve.engine.ledger import RequestLedger
from simserve.parity.case_file import load_expected
from simserve.parity.verify import verify_case
from simserve.policy.cohort import CohortScheduler
from simserve.policy.plain import PlainScheduler
from simserve.records.requests import RequestTable
from tests.parity.faults import FAULTS

CASES = Path(__file__).parent / "cases"
CONTEXT_LIMIT = "context-limit-ignored"


def case_of(name: str) -> Path:
    return CASES / f"{name}.case.json"


@pytest.mark.parametrize("name", [*FAULTS, CONTEXT_LIMIT])
def test_both_schedulers_repeat_what_vllm_did(name: str) -> None:
    assert load_expected(case_of(name))[0]["oracle"] == "vllm 0.33.0"
    for scheduler in (PlainScheduler, CohortScheduler):
        report = verify_case(case_of(name), scheduler)
        assert report.same, report.detail


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_rule_is_told_by_its_case(name: str) -> None:
    rule, wrong_scheduler = FAULTS[name]
    report = verify_case(case_of(name), wrong_scheduler)
    assert not report.same, f"nobody noticed that {rule} is broken"
    assert report.detail is not None
    assert "first at step" in report.detail


def test_generating_past_the_context_limit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(requests: RequestTable, max_model_len: int) -> RequestLedger:
        return RequestLedger(requests, 2 * max_model_len + int(requests.output_tokens.max()))

    monkeypatch.setattr(cluster, "RequestLedger", endless)
    assert not verify_case(case_of(CONTEXT_LIMIT)).same


def test_every_case_is_somebodys() -> None:
    names = {path.name.removesuffix(".case.json") for path in CASES.glob("*.case.json")}
    assert names == {*FAULTS, CONTEXT_LIMIT}
    assert len(names) > 20
