"""A run survives what kernels, machines and people do to it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from calibrate import run_command
from calibrate.measure import run as measure_run
from calibrate.measure.client import Worker
from calibrate.measure.journal import END, FILE, POINT, REPEAT, SENTINEL, Journal, read_journal
from calibrate.measure.run import Wanted
from calibrate.measure.session import FINISHED, OUT_OF_TIME, LostMachineError
from simserve.errors import InputError
from tests.calibrate.measure.fakes import CRASH, FINE, HANG, LOSE, NOISY, RAISE, REFUSE
from tests.calibrate.measure.small_plan import plan_of, point, run, session_of

ROOT = Path(__file__).resolve().parents[3]


def notes(out: Path) -> list[int]:
    path = out / "notes"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_points_that_crash_raise_or_are_refused_are_recorded_and_the_others_measured(
    tmp_path: Path,
) -> None:
    behaviours = [FINE, CRASH, FINE, RAISE, FINE, LOSE, FINE, REFUSE, FINE]
    plan = plan_of([point(size, one) for size, one in enumerate(behaviours, start=1)])
    reason, journal = run(plan, tmp_path)
    entries = [entry for entry in journal.entries if entry["kind"] == POINT]
    assert reason == FINISHED
    assert [entry["keys"]["m"] for entry in entries] == list(range(1, 10))
    assert [entry["status"] for entry in entries] == [
        "ok", "failed", "ok", "failed", "ok", "failed", "ok", "refused", "ok",
    ]  # fmt: skip
    assert entries[1]["error"] == "crashed: signal 6"
    assert entries[3]["error"] == "RuntimeError: an illegal memory access"


def test_a_kernel_that_hangs_is_killed_and_skipped(tmp_path: Path) -> None:
    plan = plan_of([point(1), point(2, HANG), point(3)], point_limit_s=1.0)
    reason, journal = run(plan, tmp_path)
    done = [entry for entry in journal.entries if entry["kind"] == POINT]
    assert reason == FINISHED
    assert [entry["status"] for entry in done] == ["ok", "failed", "ok"]
    assert done[1]["error"] == "hung: no answer within 1 s"


def test_a_machine_that_loses_point_after_point_ends_the_run(tmp_path: Path) -> None:
    session = session_of(plan_of([point(size, CRASH) for size in range(1, 9)]), tmp_path)
    with pytest.raises(LostMachineError, match="5 points in a row"):
        session.run()
    session.journal.close()
    assert len(session.journal.finished(POINT)) == 4


def test_kernels_that_crash_one_after_the_other_do_not_end_a_run_on_a_sound_machine(
    tmp_path: Path,
) -> None:
    points = [*(point(size, CRASH) for size in range(1, 8)), point(8)]
    plan = plan_of(points, sentinels=[point(99, block="sentinel")])
    reason, journal = run(plan, tmp_path)
    done = [entry["status"] for entry in journal.entries if entry["kind"] == POINT]
    assert (reason, done) == (FINISHED, ["failed"] * 7 + ["ok"])


@pytest.mark.parametrize("behaviour", [CRASH, LOSE])
def test_a_kernel_that_ends_its_process_three_times_is_given_up_and_no_other(
    tmp_path: Path, behaviour: int
) -> None:
    bad = [point(size, behaviour, kernel="bad") for size in range(1, 9)]
    plan = plan_of([*bad[:4], point(10), *bad[4:], point(11)])
    reason, journal = run(plan, tmp_path)
    done = journal.finished(POINT)
    assert reason == FINISHED
    assert [done[one.name]["error"] for one in bad[3:]] == [
        "given up: gemm bad ended its process 3 times"
    ] * 5
    assert notes(tmp_path) == [1, 2, 3, 10, 11]


def test_a_kernel_that_failed_its_check_is_left_out(tmp_path: Path) -> None:
    plan = plan_of([point(1, kernel="wrong"), point(2), point(3, kernel="wrong")])
    _, journal = run(plan, tmp_path, without=("gemm/wrong",))
    done = [(one["status"], one.get("error")) for one in journal.finished(POINT).values()]
    left_out = ("refused", "left out: gemm/wrong")
    assert done == [left_out, ("ok", None), left_out]
    assert notes(tmp_path) == [2]


def test_a_preferred_kernel_that_is_left_out_makes_room_for_the_next() -> None:
    there = {"ATTENTION": {"fa3": "left out", "triton": "", "torch": ""}, "MLA": {"flashmla": ""}}
    wanted = Wanted(plan="h200-10min", out=Path("x"), without=("attention/fa3",))
    measure_run._check_known(wanted.without, there)
    assert measure_run._kernels(wanted, there)["attention"] == "triton"
    with pytest.raises(InputError, match="attention/fa4"):
        measure_run._check_known(("attention/fa4",), there)


def test_a_process_that_cannot_be_started_again_is_a_lost_machine(tmp_path: Path) -> None:
    session = session_of(plan_of([point(1), point(2, CRASH), point(3)]), tmp_path)
    session.worker.start()
    session.worker._bench = "tests.calibrate.measure.fakes:cannot_open"
    with pytest.raises(LostMachineError, match="no driver"):
        session.run()
    session.journal.close()
    assert [one["status"] for one in session.journal.finished(POINT).values()] == ["ok", "failed"]


def test_a_worker_that_hangs_tells_where_before_it_is_killed(tmp_path: Path) -> None:
    run(plan_of([point(1, HANG)], point_limit_s=1.0), tmp_path)
    told = (tmp_path / "worker.log").read_text()
    assert "fakes.py" in told
    assert "in measure" in told


def test_what_was_measured_before_a_machine_was_lost_is_made_a_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> str:
        raise LostMachineError("gone")

    written: list[Path] = []
    monkeypatch.setattr(run_command, "run_plan", lost)
    monkeypatch.setattr(run_command, "_write", lambda wanted, _: written.append(wanted.out))
    with pytest.raises(LostMachineError):
        run_command.run_and_report(Wanted(plan="cpu-smoke", out=tmp_path), None)
    assert written == [tmp_path]


def test_killing_a_run_at_random_moments_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    count, stream = 60, random.Random(5)
    moments = sorted(stream.sample(range(2, count - 5), 5))  # points begun when it is killed
    command = [
        sys.executable,
        "-m",
        "tests.calibrate.measure.small_plan",
        str(tmp_path),
        str(count),
    ]
    for moment in moments:
        process = subprocess.Popen(command, cwd=ROOT)
        while len(notes(tmp_path)) < moment:
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(0.03 * stream.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    entries = [one for one in read_journal(tmp_path / FILE) if one["kind"] == POINT]
    assert sorted(entry["keys"]["m"] for entry in entries) == list(range(1, count + 1))
    assert all(entry["status"] == "ok" for entry in entries)
    # The point in flight is all that is measured again.
    assert len(notes(tmp_path)) <= count + len(moments)


def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path;"
        "from tests.calibrate.measure.small_plan import plan_of, point, session_of;"
        "session = session_of(plan_of([]), Path(sys.argv[1])); session.worker.start();"
        "print(session.worker._process.pid, flush=True); time.sleep(100)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(500):
        if not _runs(child):
            break
        time.sleep(0.01)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"


def test_a_second_run_measures_only_what_is_missing(tmp_path: Path) -> None:
    run(plan_of([point(1), point(2)]), tmp_path)
    run(plan_of([point(2), point(3)]), tmp_path)
    assert notes(tmp_path) == [1, 2, 3]


def test_retry_measures_failures_again_and_keeps_the_last_word(tmp_path: Path) -> None:
    plan = plan_of([point(1), point(2, RAISE)])
    run(plan, tmp_path)
    run(plan, tmp_path)
    _, journal = run(plan, tmp_path, retry=True)
    assert notes(tmp_path) == [1, 2, 2]
    assert journal.finished(POINT)[point(2, RAISE).name]["status"] == "failed"


def test_at_the_time_limit_the_first_points_are_there(tmp_path: Path) -> None:
    plan = plan_of([point(1), point(2, seconds=1000), point(3)])
    reason, journal = run(plan, tmp_path, limit_s=100)
    assert reason == OUT_OF_TIME
    assert [one["keys"]["m"] for one in journal.finished(POINT).values()] == [1, 3]
    assert journal.entries[-1]["kind"] == END
    reason, journal = run(plan, tmp_path, limit_s=2000)
    assert reason == FINISHED
    assert len(journal.finished(POINT)) == 3


def test_a_twentieth_is_measured_again_at_the_end_and_only_once(tmp_path: Path) -> None:
    plan = plan_of([point(size) for size in range(1, 41)], repeat_frac=0.05)
    run(plan, tmp_path)
    _, journal = run(plan, tmp_path)
    again = [entry for entry in journal.entries if entry["kind"] == REPEAT]
    assert len(again) == 2
    assert len(notes(tmp_path)) == 42


def test_sentinels_are_measured_at_both_ends(tmp_path: Path) -> None:
    plan = plan_of([point(1)], sentinels=[point(7, block="sentinel")])
    _, journal = run(plan, tmp_path)
    kinds = [entry["kind"] for entry in journal.entries]
    assert kinds == [SENTINEL, POINT, SENTINEL, END]


def test_a_noisy_point_is_measured_twice_and_then_flagged(tmp_path: Path) -> None:
    _, journal = run(plan_of([point(5, NOISY), point(6)]), tmp_path)
    noisy, calm = journal.finished(POINT).values()
    assert notes(tmp_path) == [5, 5, 6]
    assert (noisy["flag"], calm["flag"]) == ("noisy", "")


def test_a_journal_of_another_plan_is_refused(tmp_path: Path) -> None:
    plan = plan_of([point(1)])
    journal = Journal(tmp_path, plan.session)
    journal.add("session", {"session": plan.session, "plan": plan.name})
    journal.close()
    with pytest.raises(InputError, match="session"):
        Journal(tmp_path, "another")


def test_a_journal_of_another_gpu_is_continued_on_demand_and_of_another_kind_never(
    tmp_path: Path,
) -> None:
    plan = plan_of([])
    device = {"name": "NVIDIA H200", "uuid_hash": "first"}
    journal = Journal(tmp_path, plan.session)
    facts = {"device": device, "software": {"torch": "2.11"}}
    journal.add("session", {"session": plan.session, "plan": plan.name, "facts": facts})
    refuse = measure_run._refuse_other_machine
    second = {**facts, "device": {**device, "uuid_hash": "second"}}
    with pytest.raises(InputError, match=r"got second, allowed: first.*--any-gpu"):
        refuse(journal, second, any_gpu=False)
    refuse(journal, second, any_gpu=True)
    with pytest.raises(InputError, match="got NVIDIA H100, allowed: NVIDIA H200"):
        refuse(journal, {**facts, "device": {"name": "NVIDIA H100"}}, any_gpu=True)
    journal.close()


def test_two_runs_do_not_share_a_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "one")
    with pytest.raises(InputError, match="one run at a time"):
        Journal(tmp_path, "one")
    journal.close()


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    worker = Worker(
        "tests.calibrate.measure.fakes:cannot_open", {}, tmp_path / "log", start_limit_s=60
    )
    with pytest.raises(InputError, match="no driver"):
        worker.start()


def test_every_line_of_a_journal_is_json(tmp_path: Path) -> None:
    run(plan_of([point(1), point(2, RAISE)]), tmp_path)
    lines = (tmp_path / FILE).read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == [POINT, POINT, END]
