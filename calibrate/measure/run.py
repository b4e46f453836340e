"""Carries out a plan: starts the worker, takes the kernels that are there, opens the journal."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calibrate.measure.client import Worker
from calibrate.measure.journal import SESSION, Entry, Journal
from calibrate.measure.nvml import Sampler
from calibrate.measure.provenance import checkout_facts
from calibrate.measure.session import Session
from calibrate.plans.choose import backends_of, make_plan
from calibrate.plans.plan import Plan
from calibrate.plans.point import Point
from simserve.errors import InputError, unknown_name

BENCH = "calibrate.measure.bench:open_bench"
LOG = "worker.log"
# Facts of the device that are for this process alone.
_PRIVATE = ("uuid",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was asked for on the command line."""

    plan: str
    out: Path
    blocks: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    attention: str = ""
    without: tuple[str, ...] = ()  # kernels as family/name, as the check tells them
    limit_s: float | None = None
    retry: bool = False
    fresh: bool | None = None  # True: there must be no journal; False: there must be one
    any_gpu: bool = False  # a journal of another GPU of the same name is continued
    bench: str = BENCH


class Silence:
    """Telemetry of a device that has none."""

    def between(self, start: float, end: float) -> Mapping[str, float]:
        """Return nothing."""
        return {}


def run_plan(
    wanted: Wanted,
    started: Callable[[Plan, Journal, Mapping[str, Any]], None] = lambda *_: None,
    say: Callable[[str, Point, Entry], None] = lambda *_: None,
) -> str:
    """Measure what a plan asks for and the journal in ``wanted.out`` has not; return why it ended.

    Raises:
        InputError: for a plan, block or model that is unknown; for a device that is not there;
            for a journal of another session or device.
        LostMachineError: if no kernel answers any more.
    """
    began = time.monotonic()  # the limit holds for what starting takes, too
    plan = make_plan(wanted.plan, blocks=wanted.blocks, models=wanted.models)
    _check_folder(wanted)
    wanted.out.mkdir(parents=True, exist_ok=True)
    config = {
        "device": plan.device,
        "protocol": asdict(plan.protocol),
        "seed": plan.seed,
        "without": wanted.without,
    }
    worker = Worker(wanted.bench, config, wanted.out / LOG, plan.protocol.start_limit_s)
    sampler: Sampler | None = None
    journal: Journal | None = None
    try:
        facts = worker.start()
        _check_known(wanted.without, facts["kernels"])
        chosen = _kernels(wanted, facts["kernels"])
        plan = make_plan(wanted.plan, blocks=wanted.blocks, models=wanted.models, **chosen)
        journal = Journal(wanted.out, plan.session)
        device = facts["device"]
        _refuse_other_machine(journal, facts, wanted.any_gpu)
        if device["type"] == "cuda":
            sampler = Sampler(device["uuid"])
        asked = {"blocks": wanted.blocks, "models": wanted.models, **chosen}
        journal.add(SESSION, {"asked": asked, **_header(plan, facts, sampler)})
        started(plan, journal, facts)
        session = Session(
            plan=plan,
            worker=worker,
            journal=journal,
            telemetry=sampler or Silence(),
            limit_s=wanted.limit_s,
            retry=wanted.retry,
            without=wanted.without,
            say=say,
            _start=began,
        )
        return session.run()
    finally:
        worker.stop()
        if sampler is not None:
            sampler.stop()
        if journal is not None:
            journal.close()


def _check_folder(wanted: Wanted) -> None:
    from calibrate.measure.journal import FILE

    there = (wanted.out / FILE).is_file()
    if wanted.fresh is True and there:
        raise InputError("--out", None, str(wanted.out), "a folder without a journal (--fresh)")
    if wanted.fresh is False and not there:
        raise InputError("--resume", None, str(wanted.out), "the --out folder of an earlier run")


def _check_known(without: Collection[str], kernels: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse to leave out a kernel that is nobody's.

    Raises:
        InputError: naming the nearest.
    """
    known = [f"{kind.lower()}/{name}" for kind, names in kernels.items() for name in names]
    for label in without:
        if label not in known:
            raise unknown_name("--without", "", label, known)


def _kernels(wanted: Wanted, kernels: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the preferred kernels that this machine has.

    Raises:
        InputError: if the one that was asked for is not there.
    """
    backends = backends_of(wanted.plan)

    def first(kind: str, names: tuple[str, ...]) -> str:
        there = [name for name in names if kernels.get(kind, {}).get(name, "not here") == ""]
        return there[0] if there else (names[0] if names else "")

    if wanted.attention:
        reason = kernels.get("ATTENTION", {}).get(wanted.attention, "unknown")
        if reason:
            have = ", ".join(name for name, lack in kernels["ATTENTION"].items() if not lack)
            raise InputError("--attention", None, f"{wanted.attention} ({reason})", have)
    return {
        "attention": wanted.attention or first("ATTENTION", backends.attention),
        "mla": first("MLA", backends.mla),
    }


def _refuse_other_machine(journal: Journal, facts: Mapping[str, Any], any_gpu: bool) -> None:
    """Refuse to go on with a journal of another device, or of another torch.

    With ``any_gpu`` of a device of another name: which one it is hardly matters then.
    """
    which = "name" if any_gpu else "uuid_hash"
    mine = {"device": facts["device"][which], "torch": facts["software"]["torch"]}
    for entry in journal.entries:
        if entry["kind"] != SESSION:
            continue
        there = entry["facts"]
        theirs = {"device": there["device"][which], "torch": there["software"]["torch"]}
        for what, got in mine.items():
            if got != theirs[what]:
                allowed = f"{theirs[what]}, as in this journal, or another --out"
                if what == "device" and not any_gpu:
                    allowed += "; --any-gpu goes on with another of the same name"
                raise InputError(str(journal.path), what, got, allowed)


def _header(plan: Plan, facts: Mapping[str, Any], sampler: Sampler | None) -> Entry:
    device = {key: value for key, value in facts["device"].items() if key not in _PRIVATE}
    if sampler is not None:
        device |= sampler.facts()
        if sampler.missing:
            device["telemetry_missing"] = sampler.missing
    return {
        "session": plan.session,
        "plan": plan.name,
        "gpu": plan.gpu,
        "seed": plan.seed,
        "points": len(plan.points),
        "started": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "protocol": asdict(plan.protocol),
        "facts": {**facts, "device": device},
        **checkout_facts(),
    }
