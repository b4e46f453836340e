"""The means that a profile is fitted to: which there are, and what a simulated run has of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from simserve.records.clock import PS_PER_S
from simserve.records.requests import RequestTable
from simserve.records.run_record import RunRecord
from simserve.results.metrics import request_latencies

TTFT, TPOT, ITL, E2E, QUEUE, STEP_TOKENS = "TTFT", "TPOT", "ITL", "E2E", "queue", "tokens a step"
"""Mean seconds per request: until the first token, per further token, in all, and until it is
first scheduled; ITL is TPOT with every token counting alike. ``STEP_TOKENS`` are tokens, of the
steps that give any out: those given out, and a prompt's all where its first comes."""


@dataclass(frozen=True, slots=True)
class MeasuredBench:
    """One load on a server: its requests as clients sent them, and the means that it measured.

    ``means`` are by the names above. With ``is_sample`` the requests are drawn from what is
    known of the load: then those that a server still fills with, or empties, do not count.
    """

    where: str
    how: str
    requests: RequestTable
    means: Mapping[str, float]
    is_sample: bool = False


# The share of a sample's requests, at either end, that do not count.
_END_FRAC = 0.1


def simulated_means(record: RunRecord, *, is_sample: bool) -> dict[str, float]:
    """Return all means of a run whose requests all finished; arrivals rise."""
    got, out, log = request_latencies(record), record.outcomes, record.steps[0]
    count = len(record.requests)
    ends = int(_END_FRAC * count) if is_sample else 0
    counted = slice(ends, count - ends)
    decoding_s = (out.finish_ps - out.first_token_ps)[counted].sum() / PS_PER_S
    further = (out.generated_tokens[counted] - 1).sum()
    decoded = int(log.steps[log.decode_seqs > 0].sum())
    first = np.unique(out.first_token_step)
    alone = int((log.decode_seqs[log.row_of_step()[first]] == 0).sum())
    tokens = record.requests.prompt_tokens.sum() + out.generated_tokens.sum()
    return {
        TTFT: float(got.ttft_s[counted].mean()),
        TPOT: float(np.nanmean(got.tpot_s[counted])) if further else float("nan"),
        ITL: float(decoding_s / further) if further else float("nan"),
        E2E: float(got.e2el_s[counted].mean()),
        QUEUE: float(got.wait_s[counted].mean()),
        STEP_TOKENS: float(tokens / (decoded + alone)),
    }
