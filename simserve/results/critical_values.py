"""How many standard errors an interval reaches: Student's t and the normal, without scipy."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

CONFIDENCE = 0.95
"""The share of intervals that contain the truth, wherever nothing else is said."""

_HALVINGS = 60  # of a bracket: more than a float can tell apart
_WIDEST = 1e4


@lru_cache(maxsize=256)
def student_t(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Return the two-sided critical value of Student's t for ``degrees`` of freedom, from 1."""
    wanted, low, high = (1 + confidence) / 2, 0.0, _WIDEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _student_cdf(middle, degrees) < wanted:
            low = middle
        else:
            high = middle
    return high


def normal(confidence: float = CONFIDENCE) -> float:
    """Return the two-sided critical value of the normal distribution."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _student_cdf(t: float, degrees: int) -> float:
    """Return the distribution function: a finite sum for whole degrees of freedom.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return 0.5 + ((angle + sine * total) / math.pi if odd else sine * total / 2)
