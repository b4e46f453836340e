"""What the loop found: every replay with its errors, and which tolerances do not hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from calibrate.validate.errors_of import LatencyErrors, StepErrors
from calibrate.validate.host_terms import HostFit
from calibrate.validate.identity import IdentityReport
from calibrate.validate.plans import ReplaySpec, Tolerance, ValidationPlan
from simserve.results.engine_use import EngineUse

# A machine is too restless to judge by if its noise takes up more than one half of a tolerance.
_NOISE_SHARE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One replay and how far the simulator, and a repeat, are from it."""

    spec: ReplaySpec
    rate_per_s: float
    requests: int
    usable_blocks: int
    use: EngineUse
    seconds: float
    drift: float  # of the sentinel around this replay, since the calibration
    identity: IdentityReport
    steps: Mapping[str, Mapping[str, StepErrors]]
    latencies: Mapping[str, LatencyErrors]
    repeat: Mapping[str, LatencyErrors] | None  # of the repeat, if there is one


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of one attempt of one run, in short; both are counted from 1.

    ``largest`` holds, for each tolerance, the largest absolute error of the replays judged by it;
    ``by_drift`` counts errors above a tolerance that the replay's own drift makes up for.
    """

    run: int
    attempt: int
    seconds: float
    largest: Mapping[str, float]
    by_drift: int
    missed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """The outcome of one attempt, and in ``history`` that of all that were made."""

    plan: ValidationPlan
    machine: str
    date: str
    capacity_per_s: float
    host: HostFit
    profile_name: str
    profile_warnings: tuple[str, ...]
    anchors: Mapping[str, tuple[float, float, float]]  # factor, residual p50 and p90, by regime
    compared: tuple[Compared, ...]
    left_out: tuple[str, ...]
    seconds: float
    broken: str = ""  # which replay broke the engine, and how
    attempt: int = 1
    history: tuple[Attempt, ...] = ()

    def as_attempt(self, run: int) -> Attempt:
        """Return what came of this attempt, for a history."""
        largest: dict[str, float] = {}
        by_drift = 0
        for _, tolerance, error, allowed in self._judged():
            name = f"{tolerance.layer} {tolerance.statistic}"
            largest[name] = max(largest.get(name, 0.0), abs(error))
            by_drift += tolerance.most < abs(error) <= allowed
        return Attempt(
            run=run,
            attempt=self.attempt,
            seconds=self.seconds,
            largest=largest,
            by_drift=by_drift,
            missed=self.missed,
        )

    @property
    def runs_missed(self) -> tuple[int, ...]:
        """The runs whose last attempt missed a tolerance too."""
        last = {one.run: one for one in self.history or (self.as_attempt(1),)}
        return tuple(run for run, one in last.items() if one.missed)

    @property
    def missed(self) -> tuple[str, ...]:
        """Every strict tolerance that does not hold, and every structure that differs."""
        found = [self.broken] if self.broken else []
        for one in self.compared:
            found += [f"{one.spec.name}: {difference}" for difference in one.identity.differences]
        for one, tolerance, error, allowed in self._judged():
            if abs(error) > allowed:
                found.append(
                    f"{one.spec.name}: {tolerance.layer} {tolerance.statistic} is off by "
                    f"{error:+.1%}, more than {allowed:.0%}"
                )
        return tuple(found)

    def _judged(self) -> Iterator[tuple[Compared, Tolerance, float, float]]:
        """Yield every replay that is judged, by every tolerance: the error, and what is allowed."""
        for one in filter(self._is_judged, self.compared):
            drift = min(abs(one.drift), self.plan.most_drift)
            for tolerance in self.plan.strict:
                error = error_of(one, tolerance.layer, tolerance.statistic)
                yield one, tolerance, error, tolerance.most + drift

    @property
    def restless(self) -> str | None:
        """Say that the real run itself does not repeat; None if it does.

        What it repeats worse than a tolerance, no simulation can be judged by.
        """
        for one in filter(self._is_judged, self.compared):
            for tolerance in self.plan.strict if one.repeat else ():
                if one.repeat and tolerance.layer in one.repeat:
                    apart = one.repeat[tolerance.layer].signed[tolerance.statistic]
                    if abs(apart) > tolerance.most / _NOISE_SHARE:
                        return (
                            f"{one.spec.name}: a real repeat is itself {apart:+.1%} off in "
                            f"{tolerance.layer} {tolerance.statistic}"
                        )
        return None

    def _is_judged(self, one: Compared) -> bool:
        plan, spec = self.plan, one.spec
        if spec.repeats or spec.small_pool or spec.load > plan.strict_load:
            return False
        return not plan.strict_on or spec.name in plan.strict_on


def error_of(one: Compared, layer: str, statistic: str) -> float:
    """Return an error by its name: of steps absolute and of all regimes, of latencies signed."""
    if layer in one.latencies:
        return one.latencies[layer].signed[statistic]
    found: float = getattr(one.steps[layer]["all"], statistic)
    return found
