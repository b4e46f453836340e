"""The whole loop on a CPU, through the code that runs on a GPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from calibrate.engine.warm_up import warm_up
from calibrate.validate import plans, report
from calibrate.validate.errors_of import LatencyErrors
from calibrate.validate.loop import Loop
from calibrate.validate.outcome import Validation, error_of
from calibrate.validate.run import ValidateRequest, validate
from calibrate.validate.traces import TraceShape
from simserve.errors import InputError
from simserve.latency.tables.profile import read_profile
from simserve.results.frames import read_requests, read_steps
from tests.calibrate.engine.small import setup_of, small_runner, with_limits

REPLAY_S = 4.0


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Validation, Path]:
    out = tmp_path_factory.mktemp("validate")
    asked = ValidateRequest(plan="cpu-smoke", out=out, replay_s=REPLAY_S, page=out / "page.md")
    return validate(asked), out


@pytest.mark.slow
def test_structure_is_the_same_in_every_replay(validated: tuple[Validation, Path]) -> None:
    found, _ = validated
    assert [one.spec.name for one in found.compared] == [spec.name for spec in plans.REPLAYS]
    assert [one.identity.differences for one in found.compared] == [()] * len(plans.REPLAYS)
    crowded = next(one for one in found.compared if one.spec.small_pool)
    assert crowded.identity.preemptions > 0


@pytest.mark.slow
def test_errors_stay_within_the_tolerances_of_a_shared_machine(
    validated: tuple[Validation, Path],
) -> None:
    found, _ = validated
    if found.missed and found.restless:
        pytest.skip(f"this machine cannot tell: {found.restless}")
    assert found.missed == ()


@pytest.mark.slow
def test_more_load_is_slower_in_both_worlds(validated: tuple[Validation, Path]) -> None:
    found, _ = validated
    by_load = {one.spec.name: one for one in found.compared}
    for name in ("TTFT", "TPOT", "E2E"):
        light, heavy = (by_load[one].latencies[name] for one in ("30 %", "85 %"))
        assert light.real_s["mean"] < heavy.real_s["mean"]
        simulated = [one.real_s["mean"] * (1 + one.signed["mean"]) for one in (light, heavy)]
        assert simulated[0] < simulated[1]


@pytest.mark.slow
def test_everything_is_written_down(validated: tuple[Validation, Path]) -> None:
    found, out = validated
    attempt = out / f"attempt-{found.attempt}"
    profile = read_profile(attempt / "profile" / "cpu")
    assert profile.host is not None
    assert profile.host.host_step.kind == "fitted"
    for spec in plans.REPLAYS:
        folder = attempt / spec.name.replace(" %", "").replace(" ", "-")
        requests, outcomes = read_requests(folder / "requests.parquet")
        [log] = read_steps(folder / "steps.parquet", [plans.cpu_plan().limits.usable_blocks])
        assert len(requests) == len(outcomes.status)
        assert log.total_steps > 10
        assert (folder / "measured.parquet").is_file()
    numbers = json.loads((out / "validation.json").read_text())
    assert len(numbers["replays"]) == len(plans.REPLAYS)
    assert (out / "page.md").read_text() == (out / "validation.md").read_text()


@pytest.mark.slow
def test_the_text_fits_eighty_columns_and_says_the_load(
    validated: tuple[Validation, Path],
) -> None:
    found, _ = validated
    text = report.text(found)
    assert max(map(len, text.splitlines())) <= 80
    for spec in plans.REPLAYS:
        assert spec.name in text
    assert "85%" in text
    page = report.markdown(found, "A title", "a command")
    assert "/tmp" not in page
    for line in page.splitlines():
        assert not line.startswith("|") or line.endswith(" |")


@pytest.mark.slow
def test_a_machine_that_does_not_repeat_itself_is_told(
    validated: tuple[Validation, Path],
) -> None:
    found, _ = validated
    one = found.compared[0]
    assert one.repeat is not None
    wild = replace(one.repeat["TPOT"], signed={**one.repeat["TPOT"].signed, "mean": -0.3})
    restless = replace(one, repeat={**one.repeat, "TPOT": wild})
    told = replace(found, compared=(restless,)).restless
    assert told is not None
    calm = {
        name: replace(errors, signed=dict.fromkeys(errors.signed, 0.01))
        for name, errors in one.repeat.items()
    }
    assert replace(found, compared=(replace(one, repeat=calm),)).restless is None


@pytest.mark.slow
def test_a_tolerance_that_does_not_hold_is_told(validated: tuple[Validation, Path]) -> None:
    found, _ = validated
    one = found.compared[0]
    error = error_of(one, "TPOT", "mean")
    strict = (plans.Tolerance(layer="TPOT", statistic="mean", most=abs(error) / 2),)
    missed = replace(found, plan=replace(found.plan, strict=strict, most_drift=0.0)).missed
    assert any(line.startswith("60 %: TPOT mean is off by ") for line in missed)


def quick_loop(out: Path, limit_s: float = float("inf")) -> Loop:
    """Return the loop of a GPU's kind, scheduled ahead, on a model that takes a millisecond."""
    profile = out / "roofline-only"
    origin = {"kind": "assumed", "source": "a test", "date": "2026-11-20"}
    head = {"schema": 1, **origin, "device": {"gpu": "cpu"}}
    host = {name: {"value": 0.001, **origin} for name in ("host_step", "host_per_seq")}
    profile.mkdir()
    (profile / "profile.yaml").write_text(json.dumps(head))
    (profile / "host.yaml").write_text(json.dumps(host))
    limits = with_limits(async_scheduling=True)
    shape = TraceShape(
        name="short",
        prompt_median=20,
        prompt_spread=0.5,
        most_prompt=90,
        output_median=8,
        output_spread=0.5,
        most_output=30,
    )
    plan = replace(
        plans.cpu_plan(),
        setup=setup_of(),
        limits=limits,
        shape=shape,
        other=replace(shape, name="long", prompt_median=60),
        burst=24,
        calibration_s=0.2,
        replay_s=0.2,
        beyond_tables=False,
    )
    runner = small_runner(limits)
    warm_up(runner)
    return Loop(
        plan=plan, profile=profile, out=out / "loop", runner=runner, date="2026-11-20",
        limit_s=limit_s,
    )  # fmt: skip


def test_structure_is_the_same_when_steps_are_planned_ahead(tmp_path: Path) -> None:
    found = quick_loop(tmp_path).run()
    assert [one.identity.differences for one in found.compared] == [()] * len(plans.REPLAYS)
    assert found.host.ahead
    assert found.left_out == ()
    by_name = {one.spec.name: one for one in found.compared}
    assert by_name["small pool"].identity.preemptions > 0
    assert by_name["60 %"].repeat is not None
    assert by_name["60 %"].requests == by_name["60 % again"].requests
    assert max(map(len, report.text(found).splitlines())) <= 80


def test_replays_of_least_value_are_left_out_when_time_runs_out(tmp_path: Path) -> None:
    loop = quick_loop(tmp_path, limit_s=1000.0)
    start = loop.started_s

    def later(line: str) -> None:  # every replay seems to take five minutes
        loop.started_s -= 300.0

    loop.say = later
    found = loop.run()
    assert 0 < len(found.compared) < len(plans.REPLAYS)
    done = [one.spec.name for one in found.compared]
    assert [*done, *found.left_out] == [spec.name for spec in plans.REPLAYS]
    assert "Left out for lack of time" in report.text(found)
    assert loop.started_s < start


def test_what_only_the_drift_lets_pass_is_counted_and_told(tmp_path: Path) -> None:
    done = quick_loop(tmp_path).run()
    worst = done.as_attempt(1).largest["E2E mean"]
    tolerance = next(one for one in done.plan.strict if one.layer == "E2E")
    drifting = tuple(replace(one, drift=-0.10) for one in done.compared)
    strict = (replace(tolerance, most=worst * (1 - 1e-9)),)
    plan = replace(done.plan, strict=strict, most_drift=0.15)
    found = replace(done, plan=plan, compared=drifting)
    assert (found.missed, found.as_attempt(1).by_drift) == ((), 1)
    assert "All met, 1 of them only with the allowance for drift" in report.text(found)
    still = replace(found, plan=replace(plan, most_drift=0.0))
    assert (len(still.missed), still.as_attempt(1).by_drift) == (1, 0)


def test_what_was_replayed_before_the_engine_broke_is_compared(tmp_path: Path) -> None:
    loop = quick_loop(tmp_path)

    def break_after(line: str) -> None:
        if line.startswith("other:"):
            setattr(loop.runner, "prepare", broken)  # noqa: B010

    def broken(*_: object) -> object:
        raise RuntimeError("CUDA error: an illegal memory access\nand what to do about it")

    loop.say = break_after
    found = loop.run()
    assert [one.spec.name for one in found.compared] == ["60 %", "other"]
    assert found.left_out == tuple(spec.name for spec in plans.REPLAYS[2:])
    assert found.missed[0] == "60 % again: the engine broke: CUDA error: an illegal memory access"
    assert "Left out after that: 60 % again" in report.text(found)


def test_an_engine_that_breaks_before_any_replay_is_an_error(tmp_path: Path) -> None:
    loop = quick_loop(tmp_path)

    def broken(*_: object) -> object:
        raise RuntimeError("CUDA error")

    loop.say = lambda line: setattr(loop.runner, "prepare", broken) if "capacity" in line else None
    with pytest.raises(RuntimeError, match="CUDA error"):
        loop.run()


def test_of_several_runs_the_first_is_shown_and_all_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = quick_loop(tmp_path).run()
    loose = tuple(replace(one, most=1e9) for one in done.plan.strict)
    sound = replace(done, plan=replace(done.plan, strict=loose, attempts=2))
    bad = replace(sound, broken="30 %: the engine broke")
    runs = iter([[bad, replace(sound, attempt=2)], [bad, replace(bad, attempt=2)]])
    monkeypatch.setattr("calibrate.validate.run._attempts", lambda *_: next(runs))
    page = tmp_path / "page.md"
    found = validate(ValidateRequest(plan="cpu-smoke", out=tmp_path / "o", page=page, runs=2))
    assert (found.missed, found.attempt, found.runs_missed) == ((), 2, (2,))
    told = [(one.run, one.attempt, len(one.missed)) for one in found.history]
    assert told == [(1, 1, 1), (1, 2, 0), (2, 1, 1), (2, 2, 1)]
    text = page.read_text()
    assert "2 runs were made in a row; shown is the first." in text
    assert text.count("the engine broke") == 3
    assert "| run | try | s | step p50 | step p90 | TPOT mean | TTFT p50 | E2E mean |" in text
    judged = [one for one in found.compared if one.spec.name in ("60 %", "other", "30 %")]
    assert found.history[0].by_drift == 0
    assert found.history[0].largest["TPOT mean"] == max(
        abs(one.latencies["TPOT"].signed["mean"]) for one in judged
    )
    assert max(map(len, report.text(far_off(found)).splitlines())) <= 80


def far_off(found: Validation) -> Validation:
    """Return an outcome in which every error of a replay is 1,230 %."""

    def latencies(of: Mapping[str, LatencyErrors]) -> dict[str, LatencyErrors]:
        return {
            name: replace(one, signed=dict.fromkeys(one.signed, -12.3), request_p50=12.3)
            for name, one in of.items()
        }

    compared = [
        replace(
            one,
            drift=12.3,
            latencies=latencies(one.latencies),
            repeat=None if one.repeat is None else latencies(one.repeat),
            steps={
                layer: {
                    regime: replace(errors, total=-12.3, p50=12.3, p90=12.3)
                    for regime, errors in regimes.items()
                }
                for layer, regimes in one.steps.items()
            },
        )
        for one in found.compared
    ]
    return replace(found, compared=tuple(compared))


def test_no_time_for_a_single_replay_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="time for one replay"):
        quick_loop(tmp_path, limit_s=1.0).run()


def test_a_gpu_plan_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no CUDA device here"):
        validate(ValidateRequest(plan="h200", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_cpu_takes_no_profile(tmp_path: Path) -> None:
    asked = ValidateRequest(plan="cpu-smoke", out=tmp_path / "out", profile=tmp_path)
    with pytest.raises(InputError, match="a CPU is measured anew every time"):
        validate(asked)
    assert not (tmp_path / "out").exists()
