"""The four numbers of ``waves``, fitted from calls of uneven decodes and of even ones alike.

A grid of a few values each: the numbers are coarse and the fit cannot run away. Every other
call is fitted, the rest says how good the fit is. No call of a whole run takes part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from simserve.latency.tables.waves import Floats, Waves
from simserve.records.step import PrefillChunk

# Thread blocks of a multiprocessor that run at once; tokens that starting one is worth (the
# kernel reads keys by 32 to 128); the share of all multiprocessors that use the bandwidth up;
# tokens that a call is worth beside its blocks.
_BLOCKS_PER_SM = (1, 2)
_OVERHEADS = (0.0, 64.0, 128.0)
_FULL_SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
_FLOORS = (0.0, 500.0, 1000.0, 2000.0)
# Fewer calls fix no four numbers.
_FEWEST = 40
# More are not needed: every so many-th is taken.
_MOST = 240
PERCENT = 100.0


@dataclass(frozen=True, slots=True)
class UnevenCall:
    """One measured call: its decodes, the chunks beside them, and its time over an even call's."""

    contexts: npt.NDArray[np.int64]
    chunks: tuple[PrefillChunk, ...]
    ratio: float


@dataclass(frozen=True, slots=True)
class FittedWaves:
    """Waves, and the sizes of their errors on calls that were not fitted, in percent.

    ``even_p50_pct`` and ``even_p90_pct`` are those of taking uneven decodes as even.
    """

    waves: Waves
    fitted: int
    held_out: int
    p50_pct: float
    p90_pct: float
    even_p50_pct: float
    even_p90_pct: float

    @property
    def told(self) -> str:
        """Where the numbers come from, and how good they are, in a phrase."""
        return (
            f"fitted to {self.fitted} uneven calls; {self.held_out} others err by "
            f"{self.p50_pct:.1f} % (p90 {self.p90_pct:.1f} %), taken as even by "
            f"{self.even_p50_pct:.1f} % (p90 {self.even_p90_pct:.1f} %)"
        )


def fit_waves(calls: Sequence[UnevenCall], heads: int, sms: int) -> FittedWaves | None:
    """Return the waves of calls whose blocks serve one of ``heads`` heads each.

    None if there are too few calls, or if the waves do no better than even decodes on those
    that were held out: then the kernel balances its load.
    """
    calls = calls[:: max(1, len(calls) // _MOST)]
    if len(calls) < _FEWEST:
        return None
    fitted, held_out = calls[::2], calls[1::2]
    grid = [
        Waves(per_sm * sms, overhead, share * sms, floor)
        for per_sm, overhead, share, floor in product(
            _BLOCKS_PER_SM, _OVERHEADS, _FULL_SHARES, _FLOORS
        )
    ]
    best = min(grid, key=lambda one: float(_errors(one, fitted, heads).mean()))
    errors = _errors(best, held_out, heads)
    even = np.abs(1 / np.array([one.ratio for one in held_out]) - 1) * PERCENT
    if float(errors.mean()) >= float(even.mean()):
        return None
    (p50, p90), (even_p50, even_p90) = (np.percentile(one, (50, 90)) for one in (errors, even))
    return FittedWaves(
        best, len(fitted), len(held_out), float(p50), float(p90), float(even_p50), float(even_p90)
    )


def _errors(waves: Waves, calls: Sequence[UnevenCall], heads: int) -> Floats:
    """Return the sizes of the errors in percent."""
    predicted = np.array(
        [
            waves.mixed(one.contexts, one.chunks, heads)
            if one.chunks
            else waves.decodes(one.contexts, heads)
            for one in calls
        ]
    )
    errors: Floats = np.abs(predicted / np.array([one.ratio for one in calls]) - 1) * PERCENT
    return errors
