"""More of the same: a trace's burstiness and lengths, fitted, and any number of requests drawn.

Arrivals are gamma gaps with the mean and the coefficient of variation of the trace's gaps; the
order of quiet and busy times is not kept. Lengths are rows of the trace, prompt and output
together, drawn with replacement. What prompts share is not kept: a row drawn twice would make
the whole prompt shared, which no traffic does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simserve.errors import InputError
from simserve.records.clock import PS_PER_S
from simserve.records.requests import RequestTable
from simserve.traffic.limits import LONGEST_SPAN_DAYS, LONGEST_SPAN_PS, MOST_REQUESTS, check_count
from simserve.traffic.streams import random_stream
from simserve.traffic.trace_stats import gap_cv


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalFit:
    """Gamma gaps; ``burstiness`` is their shape, None for gaps that are all the same."""

    mean_gap_s: float
    burstiness: float | None


def fit_arrivals(requests: RequestTable, where: str) -> ArrivalFit:
    """Return the gamma gaps with the mean and the variance of those of the requests.

    Raises:
        InputError: if they have no gaps; ``where`` names them.
    """
    cv = gap_cv(requests)
    if cv is None:
        raise InputError(where, None, "requests without gaps in time", "a trace with times")
    mean_gap_s = float(np.diff(requests.arrival_ps).mean()) / PS_PER_S
    return ArrivalFit(mean_gap_s=mean_gap_s, burstiness=cv**-2 if cv > 0 else None)


def draw_like(requests: RequestTable, num_requests: int, seed: int, where: str) -> RequestTable:
    """Return ``num_requests`` requests like these, the first at 0.

    Arrivals and rows have streams of their own, and a longer draw begins with the shorter.

    Raises:
        InputError: if there are no gaps to fit, or too many requests are wanted.
    """
    check_count("num", num_requests, MOST_REQUESTS)
    fit = fit_arrivals(requests, where)
    if not num_requests * fit.mean_gap_s * PS_PER_S * 2 <= LONGEST_SPAN_PS:
        got = f"{num_requests} requests {fit.mean_gap_s:g} s apart"
        raise InputError(where, "num", got, f"at most {LONGEST_SPAN_DAYS // 2} days of them")
    gaps_s = np.full(num_requests, fit.mean_gap_s)
    if fit.burstiness is not None:
        rng = random_stream(seed, "arrivals")
        gaps_s *= rng.standard_gamma(fit.burstiness, num_requests) / fit.burstiness
    times_s = np.cumsum(gaps_s) - gaps_s[0]
    row = random_stream(seed, "trace rows").integers(0, len(requests), num_requests)
    return RequestTable(
        arrival_ps=np.rint(times_s * PS_PER_S).astype(np.int64),
        prompt_tokens=requests.prompt_tokens[row],
        output_tokens=requests.output_tokens[row],
    )
