"""Decode step times of a run by the size of the batch, from what the engine logged each second.

In a second without prefill every running request gets one token a step: a step took running ÷
tokens per second, with the mean of the running at both ends of the second. It is compared with
a step of the same batch at the mean context that the simulated run has at that moment. A second
holds a whole number of steps, so single seconds scatter by some percent. Prompts that are
computed anew after a preemption are not logged: a second at whose end more run than before is
left out, others of that kind can remain, so a bucket has the median of its seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from simserve.latency.model import StepLatencyModel
from simserve.planning.validation.findings import (
    Finding,
    high_percentile,
    signed_pct,
    within_pct,
)
from simserve.planning.validation.measured_files import Row
from simserve.records.clock import PS_PER_S
from simserve.records.run_record import RunRecord
from simserve.records.step import StepShape

# The last batch of each bucket; FlashAttention-2 changes its regime at 25 or 75 of these runs.
_LAST_OF_BUCKETS = (8, 16, 32, 64, 128, 256)


def bucket_findings(
    what: str, seconds: Sequence[Row], record: RunRecord, model: StepLatencyModel
) -> Iterator[Finding]:
    """Yield one finding for each bucket that seconds of decodes alone fall into."""
    measured = list(_measured(seconds))
    contexts = _mean_contexts(record, [at_s for at_s, _, _ in measured])
    by_bucket: dict[int, list[tuple[float, float]]] = {}
    for (_, running, step_s), context in zip(measured, contexts, strict=True):
        bucket = next((i for i, last in enumerate(_LAST_OF_BUCKETS) if running <= last), None)
        if bucket is not None and context:
            shape = StepShape(round(running), round(round(running) * context))
            by_bucket.setdefault(bucket, []).append((model.step_s(shape), step_s))
    for bucket, pairs in sorted(by_bucket.items()):
        first = _LAST_OF_BUCKETS[bucket - 1] + 1 if bucket else 1
        errors = signed_pct([one for one, _ in pairs], [one for _, one in pairs])
        yield Finding(
            what=f"{what}, decode steps of {first}-{_LAST_OF_BUCKETS[bucket]} sequences",
            measure="median, signed",
            error_pct=float(np.median(errors)),
            p90_pct=high_percentile(errors),
            within_5_pct=within_pct(errors),
            points=len(pairs),
        )


def _measured(seconds: Sequence[Row]) -> Iterator[tuple[float, float, float]]:
    """Yield (middle of the second, mean running, seconds of a step) where only decodes ran."""
    before = None
    for row in seconds:
        running, tokens = float(row["running"]), float(row["gen_throughput"])
        mean = running if before is None else (before + running) / 2
        grows = before is not None and running > before
        if float(row["prompt_throughput"]) == 0 and running > 0 and tokens > 0 and not grows:
            yield float(row["t"]) - 0.5, mean, mean / tokens
        before = running


def _mean_contexts(record: RunRecord, at_s: Sequence[float]) -> list[float]:
    """Return the mean context of the decodes at these times; 0 where there are none."""
    steps = record.steps[0].expand()
    places = np.searchsorted(steps["end_ps"], np.array(at_s) * PS_PER_S)
    last = len(steps["end_ps"]) - 1
    decodes = steps["decode_seqs"][np.minimum(places, last)]
    tokens = steps["decode_context_tokens"][np.minimum(places, last)]
    found = np.where((places <= last) & (decodes > 0), tokens / np.maximum(decodes, 1), 0.0)
    return [float(one) for one in found]
