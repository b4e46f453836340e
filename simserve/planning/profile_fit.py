"""The few factors that make a profile agree with a server of one's own.

A profile's kernels were measured elsewhere, and its host times are published ones. From
benchmarks of a real server, or what it counts of its own load, three numbers can be told: a
factor on the GPU's time (``gpu``), the gap between two steps (``gap``), and what is spent beside
the engine, per request (``client``). GPU and gap are fitted to TPOT by Gauss and Newton (to ITL
where a server counts no TPOT), the client's part is then what TTFT lacks. A factor that the
loads cannot tell from another is refused, not guessed; so is a load whose steps, with the
fitted factors, are not as large as the server's were.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simserve.engine.simulate import simulate
from simserve.errors import InputError
from simserve.inputs.deployment import Deployment
from simserve.latency.tables.profile import MOST_GPU_TIME, Profile
from simserve.latency.tables.table_model import TableModel
from simserve.planning.measured_means import (
    E2E,
    ITL,
    STEP_TOKENS,
    TPOT,
    TTFT,
    MeasuredBench,
    simulated_means,
)
from simserve.results.token_times import finished_requests

GPU, GAP, CLIENT = FACTORS = ("gpu", "gap", "client")
PERCENT = 100.0
# Steps of the factors for derivatives: a share of the GPU's time, seconds of gap.
_STEPS = {GPU: 0.03, GAP: 1e-4}
_ROUNDS = 5
# Beyond this ratio of the singular values of the scaled slopes two factors act alike.
_MOST_CONDITION = 20.0
# The same of loads that are samples: their means are off by 1 %, the factors by that many times.
_MOST_CONDITION_OF_SAMPLES = 5.0
# Steps that are off by more say that the load was another one than is simulated.
_MOST_STEP_PCT = 25.0

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Residual:
    """One mean of one load: measured, and predicted with the fitted factors.

    In seconds, or tokens for ``STEP_TOKENS``.
    """

    where: str
    how: str
    metric: str
    measured: float
    predicted: float

    @property
    def error_pct(self) -> float:
        """The error in percent of the measurement; NaN of nothing."""
        return (self.predicted / self.measured - 1) * PERCENT if self.measured else float("nan")


@dataclass(frozen=True, slots=True)
class ProfileFit:
    """The fitted factors; those that were not asked for are 1, 0 and 0."""

    fitted: tuple[str, ...]
    gpu_factor: float
    gap_s: float
    client_s: float
    residuals: tuple[Residual, ...]


def fit_profile(
    profile: Profile,
    deployment: Deployment,
    benches: Sequence[MeasuredBench],
    wanted: Sequence[str],
    *,
    allow_extrapolation: bool = False,
) -> ProfileFit:
    """Return the factors ``wanted`` that bring the profile nearest to the benchmarks.

    Raises:
        InputError: if the benchmarks cannot tell the factors apart, or ask for a GPU that is
            another one.
    """
    if GAP in wanted and profile.host is None:
        raise InputError(profile.where, "host.yaml", "nothing", "a profile with host times")
    runs = _Runs(profile, deployment, benches, allow_extrapolation)
    names = [name for name in (GPU, GAP) if name in wanted]
    factors = _fit_tpot(runs, benches, names)
    predicted = runs.means(factors)
    client_s = 0.0
    if CLIENT in wanted:
        pairs = zip(benches, predicted, strict=True)
        lacking = [bench.means[TTFT] - one[TTFT] for bench, one in pairs]
        client_s = max(0.0, float(np.median(lacking)))
    beside = {TTFT: client_s, E2E: client_s}
    residuals = [
        Residual(bench.where, bench.how, metric, mean, one[metric] + beside.get(metric, 0.0))
        for bench, one in zip(benches, predicted, strict=True)
        for metric, mean in bench.means.items()
    ]
    _refuse_another_load(residuals)
    gpu_factor, gap_s = factors.get(GPU, 1.0), factors.get(GAP, 0.0)
    fitted = tuple(name for name in FACTORS if name in wanted)
    return ProfileFit(fitted, gpu_factor, gap_s, client_s, tuple(residuals))


class _Runs:
    """The benchmarks, simulated with a profile that has some factors."""

    def __init__(
        self,
        profile: Profile,
        deployment: Deployment,
        benches: Sequence[MeasuredBench],
        allow_extrapolation: bool,
    ) -> None:
        self._profile, self._deployment, self._benches = profile, deployment, benches
        self._allow = allow_extrapolation

    def means(self, factors: dict[str, float]) -> list[dict[str, float]]:
        """Return the means of every load."""
        deployment = self._deployment
        model = TableModel(
            with_factors(self._profile, factors.get(GPU, 1.0), factors.get(GAP, 0.0)),
            deployment.model,
            deployment.gpu,
            deployment.tp,
            async_scheduling=deployment.engine.async_scheduling,
            allow_extrapolation=self._allow,
        )
        found = []
        for bench in self._benches:
            record = simulate(bench.requests, deployment, model)
            finished = finished_requests(record)
            if not finished.all():
                done = f"{int(finished.sum())} of {len(bench.requests)} requests finish"
                raise InputError(bench.where, None, done, "a load that the deployment can serve")
            found.append(simulated_means(record, is_sample=bench.is_sample))
        return found

    def per_token(self, factors: dict[str, float]) -> FloatArray:
        """Return the mean of every load that the factors are fitted to, in seconds."""
        pairs = zip(self._benches, self.means(factors), strict=True)
        return np.array([one[_fitted_to(bench)] for bench, one in pairs])


def _fitted_to(bench: MeasuredBench) -> str:
    return TPOT if TPOT in bench.means else ITL


def with_factors(profile: Profile, gpu_factor: float, gap_s: float) -> Profile:
    """Return the profile with the GPU's time times a factor and a longer gap between steps."""
    if gap_s and profile.host is not None:
        bubble = profile.host.bubble
        longer = dataclasses.replace(bubble, value=max(0.0, bubble.value + gap_s), kind="fitted")
        copy = profile.host.copy_out
        later = dataclasses.replace(copy, value=max(0.0, copy.value + gap_s), kind="fitted")
        host = dataclasses.replace(profile.host, bubble=longer, copy_out=later)
        profile = dataclasses.replace(profile, host=host)
    return dataclasses.replace(profile, gpu_time_factor=profile.gpu_time_factor * gpu_factor)


def _fit_tpot(
    runs: _Runs, benches: Sequence[MeasuredBench], names: Sequence[str]
) -> dict[str, float]:
    if not names:
        return {}
    truth = np.log([one.means[_fitted_to(one)] for one in benches])
    factors = {name: 1.0 if name == GPU else 0.0 for name in names}
    for _ in range(_ROUNDS):
        here = np.log(runs.per_token(factors))
        slopes = np.stack(
            [
                np.log(runs.per_token({**factors, name: factors[name] + _STEPS[name]})) - here
                for name in names
            ],
            axis=1,
        )
        _refuse_if_alike(slopes, names, benches)
        moves, *_ = np.linalg.lstsq(slopes, truth - here, rcond=None)
        for name, move in zip(names, moves.tolist(), strict=True):
            factors[name] += move * _STEPS[name]
        if not 1 / MOST_GPU_TIME < factors.get(GPU, 1.0) < MOST_GPU_TIME:
            got = f"{factors[GPU]:.2f} times the GPU's time"
            raise InputError(benches[0].where, GPU, got, "benchmarks of the profile's own GPU")
    return factors


def _refuse_if_alike(
    slopes: FloatArray, names: Sequence[str], benches: Sequence[MeasuredBench]
) -> None:
    """Refuse factors that act on the benchmarks alike, or not at all."""
    norms = np.linalg.norm(slopes, axis=0)
    if (norms < 1e-6).any():
        name = names[int(norms.argmin())]
        raise InputError(benches[0].where, name, "without effect on TPOT", "other factors: --fit")
    singular = np.linalg.svd(slopes / norms, compute_uv=False)
    sampled = any(one.is_sample for one in benches)
    most = _MOST_CONDITION_OF_SAMPLES if sampled else _MOST_CONDITION
    if len(names) > len(benches) or singular[0] > most * singular[-1]:
        several = " and ".join(names)
        allowed = "one of them (--fit), or loads that differ more"
        got = f"{len(benches)} loads that cannot tell {several} apart"
        raise InputError(benches[0].where, "--fit", got, allowed)


def _refuse_another_load(residuals: Sequence[Residual]) -> None:
    """Refuse factors of a load whose simulated steps are not as large as the measured ones."""
    for one in residuals:
        if one.metric == STEP_TOKENS and abs(one.error_pct) > _MOST_STEP_PCT:
            got = f"{one.measured:.0f} tokens a step, {one.predicted:.0f} simulated at {one.how}"
            allowed = "a time of one steady load (--since, --over), on one replica"
            raise InputError(one.where, None, got, allowed)
