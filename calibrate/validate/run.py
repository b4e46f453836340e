"""``calibrate validate``: the whole loop with one call, and its report as files.

A CPU is calibrated anew for every attempt, because a shared machine is never the same twice;
a GPU's profile is that of an earlier ``calibrate run``.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from calibrate.engine.runner import Runner
from calibrate.engine.warm_up import warm_up
from calibrate.validate import report
from calibrate.validate.loop import Loop, Say
from calibrate.validate.outcome import Attempt, Validation
from calibrate.validate.plans import ValidationPlan, validation_plan
from simserve.errors import InputError
from simserve.latency.tables.profile import read_profile
from simserve.results.whole_files import make_directory, write_json, write_whole

_DECODES = "attn_decode"
MARKDOWN, TEXT, NUMBERS = "validation.md", "validation.txt", "validation.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateRequest:
    """What was asked for on the command line; None and empty mean the plan's own.

    ``profile`` is the folder of a profile: needed on a GPU, not taken on a CPU. ``page`` is
    where the Markdown page goes besides ``out``. ``runs`` whole runs are made in a row.
    """

    plan: str
    out: Path
    profile: Path | None = None
    attention: str = ""
    limit_s: float | None = None
    replay_s: float | None = None
    async_scheduling: bool | None = None
    page: Path | None = None
    runs: int = 1


def validate(asked: ValidateRequest, say: Say = lambda _: None) -> Validation:
    """Run the loop, write its report into ``asked.out`` and return the outcome.

    Of several runs that is the first's, however the others end; its history has them all.
    ``Validation.runs_missed`` is the caller's to end with status 1 for.

    Raises:
        InputError: if the plan, the profile or the machine cannot be used.
    """
    started_s = time.monotonic()
    plan = _wanted(validation_plan(asked.plan), asked)
    _check_machine(plan, asked)
    make_directory(asked.out)
    history: list[Attempt] = []
    shown: Validation | None = None
    for run in range(1, asked.runs + 1):
        folder = asked.out / f"run-{run}" if asked.runs > 1 else asked.out
        for found in _attempts(plan, asked, folder, started_s, say):
            history.append(found.as_attempt(run))
            if shown is None or run == 1:
                shown = found
            shown = replace(shown, history=tuple(history))
            _write(shown, asked)
    if shown is None:
        raise InputError("--runs", None, asked.runs, "at least 1")
    return shown


def _attempts(
    plan: ValidationPlan, asked: ValidateRequest, out: Path, started_s: float, say: Say
) -> Iterator[Validation]:
    """Yield attempts until one meets all tolerances, or there are no more to make."""
    limit_s = plan.limit_s if asked.limit_s is None else asked.limit_s
    for attempt in range(1, plan.attempts + 1):
        began_s = time.monotonic()
        folder = out / f"attempt-{attempt}" if plan.attempts > 1 else out
        profile = measure_cpu(folder, say) if asked.profile is None else asked.profile
        ready = _with_attention(plan, profile, asked)
        runner = _runner(ready, say)
        found = Loop(
            plan=ready,
            profile=profile,
            out=folder,
            runner=runner,
            date=dt.datetime.now(dt.UTC).date().isoformat(),
            limit_s=limit_s,
            say=say,
            started_s=started_s,
        ).run()
        now_s = time.monotonic()
        yield replace(found, attempt=attempt, seconds=now_s - began_s)
        if not found.missed or asked.profile is not None:
            return
        say(f"attempt {attempt}: {len(found.missed)} tolerances do not hold")
        if attempt < plan.attempts and now_s - started_s + (now_s - began_s) > limit_s:
            say("no time for another attempt")
            return


def measure_cpu(folder: Path, say: Say) -> Path:
    """Measure the CPU's profile below ``folder`` and return where it lies."""
    from calibrate.measure.run import Wanted, run_plan
    from calibrate.profile_writer import write_profile

    journal, profile = folder / "journal", folder / "cpu"
    say("measuring the kernels of this CPU")
    run_plan(Wanted(plan="cpu-smoke", out=journal))
    write_profile(journal, profile)
    return profile


def _wanted(plan: ValidationPlan, asked: ValidateRequest) -> ValidationPlan:
    limits = plan.limits
    if asked.async_scheduling is not None:
        limits = replace(limits, async_scheduling=asked.async_scheduling)
    return replace(plan, limits=limits, replay_s=asked.replay_s or plan.replay_s)


def _check_machine(plan: ValidationPlan, asked: ValidateRequest) -> None:
    on_gpu = plan.setup.device.type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise InputError("validate", "plan", plan.name, "cpu-smoke: there is no CUDA device here")
    if on_gpu and asked.profile is None:
        raise InputError("--profile", None, "nothing", "the profile that 'calibrate run' wrote")
    if not on_gpu and asked.profile is not None:
        allowed = "nothing: a CPU is measured anew every time"
        raise InputError("--profile", None, str(asked.profile), allowed)


def _with_attention(plan: ValidationPlan, profile: Path, asked: ValidateRequest) -> ValidationPlan:
    """Return the plan on the attention kernel that the profile prices from.

    Raises:
        InputError: if another one is asked for.
    """
    used = _attention_of(profile)
    if asked.attention and asked.attention != used:
        allowed = f"{used}: the kernel that {profile} prices from"
        raise InputError("--attention", None, asked.attention, allowed)
    return replace(plan, setup=replace(plan.setup, attention=used))


def _attention_of(folder: Path) -> str:
    """Return the kernel whose decodes a profile prices.

    Raises:
        InputError: if it has none.
    """
    profile = read_profile(folder)
    table = profile.tables.get(_DECODES)
    if table is None or not table.rows:
        raise InputError(str(folder), _DECODES, "no row", "a profile with decode attention")
    return profile.use.get(_DECODES) or table.rows[0].text("backend")


def _runner(plan: ValidationPlan, say: Say) -> Runner:
    if plan.setup.device.type == "cpu":
        torch.set_num_threads(1)  # two do not repeat: 22-118 % spread on two cores
    began_s = time.monotonic()
    runner = Runner(plan.setup, plan.limits)
    runner.capture()
    warm_up(runner)
    say(f"engine ready after {time.monotonic() - began_s:.1f} s")
    return runner


def _write(found: Validation, asked: ValidateRequest) -> None:
    command = f"python -m calibrate validate --plan {asked.plan}"
    if asked.runs > 1:
        command += f" --runs {asked.runs}"
    title = f"Simulator against a real engine: {asked.plan}"
    page = report.markdown(found, title, command)
    pages = [asked.out / MARKDOWN, *([asked.page] if asked.page else [])]
    for path in pages:
        write_whole(path, lambda part: _write_text(part, page))
    write_whole(asked.out / TEXT, lambda part: _write_text(part, report.text(found)))
    write_json(asked.out / NUMBERS, dict(report.as_mapping(found)))


def _write_text(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
