"""Two declared scalars per GPU: on steps of decodes alone, and on steps with prefill.

These are the factors that anchors of whole steps would give, one for CUDA graphs and one for
the rest. Fitted on the requests of a recorded run that were through by half of its time,
reported on the others: least squares on the logarithms of mean TTFT, TPOT and E2E, by Gauss
and Newton.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from simserve.planning.validation.findings import FloatArray

# Logarithms of the scalars start at 0; a step for the derivatives, and rounds of them.
_STEP, _ROUNDS = 0.03, 4
# Three means fix two numbers loosely: a pull towards 1, in units of their squared slopes.
_PULL = 0.02
# A scalar farther from 1 is no correction of a table, but another table.
_MOST = 0.25


class Scalars(NamedTuple):
    """Factors on the durations of steps."""

    decode: float = 1.0
    prefill: float = 1.0

    @property
    def told(self) -> str:
        """The two in words."""
        return f"steps of decodes × {self.decode:.3f}, with prefill × {self.prefill:.3f}"


Means = Callable[[Scalars], FloatArray]
"""float64[metrics]: the means that a simulated run with these scalars has."""


def fit_scalars(simulated: Means, measured: FloatArray) -> Scalars:
    """Return the scalars whose means come nearest to the ``measured``, as logarithms."""
    truth = np.log(measured)

    def errors(logs: FloatArray) -> FloatArray:
        decode, prefill = np.exp(logs).tolist()
        return np.asarray(np.log(simulated(Scalars(decode, prefill))) - truth)

    def cost(found: FloatArray, logs: FloatArray) -> float:
        return float(found @ found + _PULL * logs @ logs)

    logs = np.zeros(2)
    here = errors(logs)
    best = cost(here, logs), logs
    for _ in range(_ROUNDS):
        slopes = np.stack(
            [(errors(logs + _STEP * unit) - here) / _STEP for unit in np.eye(2)], axis=1
        )
        pull = np.eye(2) * _PULL
        step = np.linalg.solve(slopes.T @ slopes + pull, slopes.T @ here + pull @ logs)
        logs = np.clip(logs - step, -_MOST, _MOST)
        here = errors(logs)
        best = min(best, (cost(here, logs), logs), key=lambda one: one[0])
    decode, prefill = np.exp(best[1]).tolist()
    return Scalars(decode, prefill)
