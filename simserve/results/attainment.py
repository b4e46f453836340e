"""Whether a promise is kept, and whether that may be chance, over one or more runs.

Two tests, each of which may rule out chance. Wilson's interval (JASA 1927) of the share of
requests for which the promise is kept: it is that of independent trials, so it is given the
number of independent requests that the sample is worth; a run in which nobody was late is then
not taken for proof that nobody ever is. And, over several runs, Student's t of the strain that
the required share of each run's requests does not exceed: it sees how far away the limit is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simserve.results.batch_means import Series
from simserve.results.critical_values import normal, student_t
from simserve.results.intervals import Estimates
from simserve.results.promises import GOOD_SHARE, Promise
from simserve.results.run_sample import RunSample

# Where batches never become independent: as many as each run is surely worth, start to end.
_INDEPENDENT_PER_RUN = 10
# With fewer runs, Student's t reaches so far that it never rules out chance.
_FEWEST_RUNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Attainment:
    """The share that was ``required`` and the ``share`` that came out, from ``low`` to ``high``.

    ``strain_low`` to ``strain_high`` is the interval of the strain that the required share does
    not exceed, which must be at most 1; None where there are too few runs to tell.
    """

    name: str
    required: float
    share: float
    low: float
    high: float
    effective_size: float
    strain_low: float | None = None
    strain_high: float | None = None

    @property
    def met(self) -> bool:
        """Whether the sample itself keeps the promise."""
        return self.share >= self.required

    @property
    def surely_met(self) -> bool:
        """Whether it is met, and chance is ruled out as the reason."""
        far_below = self.strain_high is not None and self.strain_high <= 1
        return self.met and (far_below or self.low >= self.required)

    @property
    def surely_missed(self) -> bool:
        """Whether it is missed, and chance is ruled out as the reason."""
        far_above = self.strain_low is not None and self.strain_low > 1
        return not self.met and (far_above or self.high < self.required)

    @property
    def misses_per_allowed(self) -> float:
        """How many times more requests miss than may: above 1 where the promise is broken."""
        missed, allowed = 1 - self.share, 1 - self.required
        return missed / allowed if allowed else math.inf if missed else 0.0


def attainments(
    runs: Sequence[RunSample], good_share: float = GOOD_SHARE
) -> tuple[Attainment, ...]:
    """Return how well each promise is kept over all ``runs``, which make the same promises."""
    worth = _worth_of_entries(runs)
    found = []
    for place, promise in enumerate(runs[0].promises):
        made = [run.promises[place] for run in runs if len(run.promises[place].strain.weights)]
        required = good_share if promise.required_share is None else promise.required_share
        if made:
            own = [worth[one] for one in promise.metrics if one in worth]
            if not own:  # gaps, which samples may leave out
                own = [_worth([one.strain for one in made])]
            found.append(_attainment(made, required, min(own)))
    return tuple(found)


def wilson(share: float, size: float) -> tuple[float, float]:
    """Return Wilson's interval of a share seen in ``size`` independent trials."""
    z = normal()
    weight = 1 + z * z / size
    middle = (share + z * z / (2 * size)) / weight
    reach = z / weight * math.sqrt(share * (1 - share) / size + z * z / (4 * size * size))
    # Rounding must not leave the share itself outside.
    return max(min(middle - reach, share), 0.0), min(max(middle + reach, share), 1.0)


def _attainment(made: Sequence[Promise], required: float, worth: float) -> Attainment:
    kept = [one.kept for one in made]
    estimates = Estimates(kept)
    share = float(sum(run.amounts.sum() for run in kept)) / estimates.weight
    size = estimates.weight * worth
    if 0 < share < 1:
        size = min(size, share * (1 - share) / estimates.share_error(kept) ** 2)
    low, high = wilson(share, max(size, 1.0))
    strain_low, strain_high = _strain_interval([one.strain for one in made], required)
    return Attainment(
        name=made[0].name,
        required=required,
        share=share,
        low=low,
        high=high,
        effective_size=size,
        strain_low=strain_low,
        strain_high=strain_high,
    )


def _strain_interval(
    strains: Sequence[Series], required: float
) -> tuple[float | None, float | None]:
    """Return Student's t interval of the strain at ``required``, one value per run."""
    if len(strains) < _FEWEST_RUNS:
        return None, None
    values = np.array([Estimates([one]).at_share(required) for one in strains])
    if not np.isfinite(values).all():
        return None, None
    reach = student_t(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - reach, float(values.mean()) + reach


def _worth_of_entries(runs: Sequence[RunSample]) -> Mapping[str, float]:
    """Return, by metric, how many independent entries an entry is worth: at most 1."""
    return {metric: _worth([run.latencies[metric] for run in runs]) for metric in runs[0].latencies}


def _worth(runs: Sequence[Series]) -> float:
    """Return how many independent entries an entry of ``runs`` is worth: at most 1."""
    estimates = Estimates(runs)
    if not estimates.runs:
        return 1.0
    size = estimates.mean_size
    if size is None and estimates.batches is None:
        size = _INDEPENDENT_PER_RUN * len(estimates.runs)
    return 1.0 if size is None else min(size / estimates.weight, 1.0)
