"""From the times of replays to the columns of a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_US = 1e6
_LOW, _MIDDLE, _HIGH = 10, 50, 90


def summary(call_seconds: Sequence[float]) -> dict[str, float]:
    """Return median, spread, mean and number of the seconds per call, in microseconds."""
    us = np.asarray(call_seconds, dtype=np.float64) * _US
    low, middle, high = np.percentile(us, (_LOW, _MIDDLE, _HIGH))
    return {
        "us_p50": float(middle),
        "us_min": float(us.min()),
        "us_p10": float(low),
        "us_p90": float(high),
        "us_mean": float(us.mean()),
        "n": len(us),
    }
