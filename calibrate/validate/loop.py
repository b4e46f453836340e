"""The loop: fit host terms, replay for real, simulate with the profile, compare.

Everything on the device comes first and is written down as it comes; what remains is
arithmetic. When time runs out, the replays of least value are left out, and said to be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from calibrate.engine.replay import SCHEDULER, Replay, ReplayResult
from calibrate.engine.runner import Runner
from calibrate.measure.facts import device_facts
from calibrate.measure.nvml import Sampler
from calibrate.validate.completed_profile import complete_profile
from calibrate.validate.drift import sentinel_s
from calibrate.validate.errors_of import latency_errors, step_errors
from calibrate.validate.host_terms import HostFit, fit_host, host_file
from calibrate.validate.identity import compare_structure
from calibrate.validate.outcome import Compared, Validation
from calibrate.validate.plans import (
    CALIBRATION_LOADS,
    CALIBRATION_SEED,
    ReplaySpec,
    ValidationPlan,
)
from calibrate.validate.traces import TraceShape, burst, capacity_per_s, ramp, steady
from simserve.engine.cluster import Cluster
from simserve.errors import InputError, SimserveError, reason_of
from simserve.latency.tables.profile import read_profile
from simserve.latency.tables.table_model import TableModel
from simserve.policy.limits import SchedulerLimits
from simserve.policy.registry import load_scheduler
from simserve.policy.router import RoundRobin
from simserve.records.clock import PS_PER_S
from simserve.records.requests import RequestTable
from simserve.records.run_record import RunRecord
from simserve.results.engine_use import engine_use
from simserve.results.frames import write_requests, write_steps
from simserve.results.whole_files import make_directory

PROFILE_DIR = "profile"
_CALIBRATION = "calibration"
# A replay ends after its last arrival; how much later was seen to be some seconds. And the
# comparison of all replays must find time, too.
_DRAIN_SHARE, _DRAIN_S, _ANALYSIS_S = 0.10, 3.0, 40.0
# Of the blocks that were in use at most, the pool that makes requests preempt each other.
_SMALL_POOL_SHARE = 0.6

Say = Callable[[str], None]


@dataclass(slots=True)
class Loop:
    """One attempt at a plan; ``out`` gets the profile with its host terms, and the records."""

    plan: ValidationPlan
    profile: Path
    out: Path
    runner: Runner
    date: str
    limit_s: float = float("inf")
    say: Say = lambda _: None
    started_s: float = field(default_factory=time.monotonic)
    _replays: dict[str, ReplayResult] = field(default_factory=dict)
    _limits: dict[str, SchedulerLimits] = field(default_factory=dict)
    _levels_s: dict[str, float] = field(default_factory=dict)  # of the sentinel, around a replay
    _sentinel_s: float = 0.0  # the last
    _rates: dict[str, float] = field(default_factory=dict)  # capacities, by shape

    def run(self) -> Validation:
        """Replay, simulate, compare.

        Raises:
            InputError: if the profile or the plan cannot be used, or the time limit leaves
                room for no replay at all.
        """
        make_directory(self.out)
        machine = str(device_facts(self.plan.setup.device)["name"])
        self._sentinel_s = sentinel_s(self.runner)
        capacity, host = self._calibrate_host()
        model = self._model()
        self._rates = {
            shape.name: capacity * self._relative_capacity(shape, model)
            for shape in (self.plan.shape, self.plan.other)
        }
        broken = self._replay_all()
        if not self._replays:
            raise InputError("validate", "limit", f"{self.limit_s:g} s", "time for one replay")
        compared = tuple(self._compared(model))
        names = [one.spec.name for one in compared]
        anchors = {
            name: (one.factor, one.residual_p50, one.residual_p90)
            for name, one in model.anchors.items()
        }
        return Validation(
            plan=self.plan,
            machine=machine,
            date=self.date,
            capacity_per_s=capacity,
            host=host,
            profile_name=self.profile.resolve().name,
            profile_warnings=model.warnings,
            anchors=anchors,
            compared=compared,
            left_out=tuple(spec.name for spec in self.plan.replays if spec.name not in names),
            broken=broken,
            seconds=time.monotonic() - self.started_s,
        )

    def _replay_all(self) -> str:
        """Replay while there is time; return what broke the engine, after which all else stays.

        What was recorded before is compared all the same. Nothing recorded is an error.
        """
        for spec in self.plan.replays:
            if spec.repeats and spec.repeats not in self._replays:
                continue
            if not self._time_for_one():
                continue
            try:
                self._replay(spec)
            except (RuntimeError, SimserveError) as error:  # of CUDA, torch and the engine
                if not self._replays:
                    raise
                broken = f"{spec.name}: the engine broke: {reason_of(error).splitlines()[0]}"
                self.say(broken)
                return broken
        return ""

    @property
    def _completed(self) -> Path:
        """The profile with the host terms of this engine."""
        return self.out / PROFILE_DIR / self.profile.resolve().name

    # -- on the device

    def _calibrate_host(self) -> tuple[float, HostFit]:
        """Return the capacity and the host terms, and write the latter beside the profile."""
        plan = self.plan
        requests = burst(plan.shape, plan.burst, CALIBRATION_SEED)
        crowded = self._run("burst", requests, plan.limits)
        capacity = capacity_per_s(crowded.record, plan.limits)
        self.say(f"capacity: {capacity:.3g} requests/s, from a burst of {plan.burst}")
        rates = tuple(share * capacity for share in CALIBRATION_LOADS)
        rising = ramp(plan.shape, rates, plan.calibration_s, CALIBRATION_SEED)
        calibration = self._run(_CALIBRATION, rising, plan.limits)
        fitted_to = (crowded, calibration)
        host = fit_host(fitted_to, plan.setup.model)
        self._complete(host)
        if plan.beyond_tables:
            host = fit_host(fitted_to, plan.setup.model, self._model())
            self._complete(host)
        return capacity, host

    def _relative_capacity(self, shape: TraceShape, model: TableModel) -> float:
        """Return the simulated capacity for a shape over that for the plan's first.

        So the other shape is replayed at a like load without any replay that could be fitted.
        """
        plan = self.plan
        if shape == plan.shape:
            return 1.0
        both = [
            capacity_per_s(simulate_requests(requests, plan.limits, model), plan.limits)
            for requests in (
                burst(one, plan.burst, CALIBRATION_SEED) for one in (shape, plan.shape)
            )
        ]
        return both[0] / both[1]

    def _rate(self, spec: ReplaySpec) -> float:
        shape = self.plan.other if spec.other else self.plan.shape
        return spec.load * self._rates[shape.name]

    def _complete(self, host: HostFit) -> None:
        plan = self.plan
        source = f"calibrate validate {plan.name}: a burst and a replay at rising load"
        content = host_file(host, self.runner.graph_sizes, source, self.date)
        complete_profile(self.profile, self._completed, content)

    def _replay(self, spec: ReplaySpec) -> None:
        plan = self.plan
        shape = plan.other if spec.other else plan.shape
        requests = steady(shape, self._rate(spec), plan.replay_s, spec.seed)
        limits = plan.limits
        if spec.small_pool:
            limits = replace(limits, num_blocks=1 + self._small_pool(requests))
        self._replays[spec.name] = self._run(spec.name, requests, limits)

    def _run(self, name: str, requests: RequestTable, limits: SchedulerLimits) -> ReplayResult:
        device = self.plan.setup.device
        sampler = Sampler(device_facts(device)["uuid"]) if device.type == "cuda" else None
        try:
            result = Replay(self.runner, requests, limits).run()
        finally:
            if sampler is not None:
                sampler.stop()
        if sampler is not None:
            _note_clocks(result, sampler)
        self._limits[name] = limits
        before_s, self._sentinel_s = self._sentinel_s, sentinel_s(self.runner)
        self._levels_s[name] = (before_s + self._sentinel_s) / 2
        folder = self.out / name.replace(" %", "").replace(" ", "-")
        make_directory(folder)
        labels = {"calibrate_plan": self.plan.name}
        write_requests(result.record, folder / "requests.parquet", labels)
        write_steps(result.record, folder / "steps.parquet", labels)
        result.steps.save(result.record, folder / "measured.parquet")
        steps = result.record.steps[0].total_steps
        span_s = result.record.end_ps / PS_PER_S
        self.say(f"{name}: {len(requests):,} requests, {steps:,} steps, {span_s:.1f} s")
        return result

    def _small_pool(self, requests: RequestTable) -> int:
        """Return fewer blocks than the first replay used, but room for the longest request."""
        log = next(iter(self._replays.values())).record.steps[0]
        most = int((log.num_blocks - log.free_per_step()).max())
        tokens = int((requests.prompt_tokens + requests.output_tokens).max())
        size = self.plan.limits.block_size
        wanted = max(-(-tokens // size), int(_SMALL_POOL_SHARE * most))
        return min(wanted, self.plan.limits.usable_blocks)

    def _time_for_one(self) -> bool:
        needed_s = (1 + _DRAIN_SHARE) * self.plan.replay_s + _DRAIN_S + _ANALYSIS_S
        return time.monotonic() - self.started_s + needed_s <= self.limit_s

    # -- afterwards

    def _model(self) -> TableModel:
        plan = self.plan
        return TableModel(
            read_profile(self._completed),
            plan.setup.model,
            plan.gpu,
            1,
            async_scheduling=plan.limits.async_scheduling,
        )

    def _compared(self, model: TableModel) -> Iterator[Compared]:
        """Yield comparisons while there is time, the most valuable first; one in any case."""
        done = [spec for spec in self.plan.replays if spec.name in self._replays]
        for spec in done:
            if spec is done[0] or time.monotonic() - self.started_s < self.limit_s:
                yield self._compare(spec, model)

    def _compare(self, spec: ReplaySpec, model: TableModel) -> Compared:
        real, limits = self._replays[spec.name], self._limits[spec.name]
        simulated = simulate_requests(real.record.requests, limits, model)
        layers = self.plan.setup.model.layers
        repeat = next(
            (
                self._replays[one.name]
                for one in self.plan.replays
                if one.repeats == spec.name and one.name in self._replays
            ),
            None,
        )
        return Compared(
            spec=spec,
            rate_per_s=self._rate(spec),
            requests=len(real.record.requests),
            usable_blocks=limits.usable_blocks,
            use=engine_use(real.record),
            seconds=real.record.end_ps / PS_PER_S,
            drift=self._levels_s[spec.name] / self._levels_s[_CALIBRATION] - 1,
            identity=compare_structure(real.record, limits, SCHEDULER),
            steps=step_errors(real, model, layers, ahead=limits.async_scheduling),
            latencies=latency_errors(real.record, simulated),
            repeat=latency_errors(real.record, repeat.record) if repeat else None,
        )


def simulate_requests(
    requests: RequestTable, limits: SchedulerLimits, model: TableModel
) -> RunRecord:
    """Return the simulated run of the same requests within the same limits."""
    return Cluster(requests, limits, load_scheduler(SCHEDULER), model, RoundRobin()).run()


def _note_clocks(result: ReplayResult, sampler: Sampler) -> None:
    """Give every step the clock that was sampled nearest to it."""
    ends_s = result.began_unix_s + result.record.steps[0].end_per_step_ps() / PS_PER_S
    clocks = [sampler.between(end_s, end_s).get("sm_mhz", np.nan) for end_s in ends_s]
    result.steps.set_clocks(clocks)
