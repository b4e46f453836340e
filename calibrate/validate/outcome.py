"""What the loop found: every replay with its errors, and which tolerances do not hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from calibrate.validate.errors_of import LatencyErrors, StepErrors
from calibrate.validate.host_terms import HostFit
from calibrate.validate.identity import IdentityReport
from calibrate.validate.plans import ReplaySpec, ValidationPlan
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
class Validation:
    """The outcome of one attempt."""

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
    attempt: int = 1

    @property
    def missed(self) -> tuple[str, ...]:
        """Every strict tolerance that does not hold, and every structure that differs."""
        plan, found = self.plan, []
        for one in self.compared:
            name = one.spec.name
            found += [f"{name}: {difference}" for difference in one.identity.differences]
            if not self._is_judged(one):
                continue
            drift = min(abs(one.drift), plan.most_drift)
            for tolerance in plan.strict:
                error = error_of(one, tolerance.layer, tolerance.statistic)
                if abs(error) > tolerance.most + drift:
                    found.append(
                        f"{name}: {tolerance.layer} {tolerance.statistic} is off by "
                        f"{error:+.1%}, more than {tolerance.most + drift:.0%}"
                    )
        return tuple(found)

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
