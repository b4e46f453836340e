"""Steps of a model that reads every decode's context: even decodes' time, times the waves' ratio.

The ratio is taken to the batches that were measured, so that it also tells how the time goes
from one to the next: blocks come in rounds, and lines between batches do not show them.

Waves hold for decodes whose KV is not split, and beside a chunk. Where KV is split the longest
contexts are divided too: taken as even, those err by 1-2 % in the median.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simserve.latency.model import DecodeLine
from simserve.latency.tables.lines import Lines
from simserve.latency.tables.waves import Waves
from simserve.records.clock import to_ps

# A line joins the time now and that after so many steps, in which every context grows by one.
SPAN_STEPS = 64

Contexts = npt.NDArray[np.int64]


class UnevenStep(NamedTuple):
    """A decode-only step of one batch: the GPU's time and that of its attention, and the host's.

    Both times are over the summed context, anchors' factors included. ``waves`` is None where
    uneven decodes cost what even ones do. ``knots`` are the measured batches around this one.
    """

    gpu: Lines
    attention: Lines
    floor_s: float
    added_s: float
    waves: Waves | None
    heads: int
    knots: tuple[tuple[float, float], ...]

    def seconds(self, contexts: Contexts) -> float:
        """Return the step's duration."""
        total = float(contexts.sum())
        gpu_s = self.gpu.seconds(total)
        if self.waves is not None:
            more = self.waves.decodes(contexts, self.heads, self.knots) - 1
            gpu_s += more * self.attention.seconds(total)
        return max(gpu_s, self.floor_s) + self.added_s

    def line(self, contexts: Contexts) -> DecodeLine:
        """Return the line through the step now and in ``SPAN_STEPS`` steps."""
        now, span = int(contexts.sum()), SPAN_STEPS * len(contexts)
        first_ps = to_ps(self.seconds(contexts))
        last_ps = to_ps(self.seconds(contexts + SPAN_STEPS))
        slope_ps = max(0, round((last_ps - first_ps) / span))
        return DecodeLine(first_ps - slope_ps * now, slope_ps, now + span, now)
