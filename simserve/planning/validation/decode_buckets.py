"""Decode step times of a run by the size of the batch, from what the engine logged each second.

In a second without prefill every running request gets one token a step: a step took running ÷
tokens per second, with the mean of the running at both ends of the second. It is compared with
a step of the same batch at the mean context that the simulated run has at that moment, made as
uneven as that run is then: its own step over an even one of its batch. A second holds a whole
number of steps, so single seconds scatter by some percent. Prompts that are
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
    what: str,
    seconds: Sequence[Row],
    record: RunRecord,
    model: StepLatencyModel,
    bar_pct: float | None = None,
) -> Iterator[Finding]:
    """Yield one finding for each bucket that seconds of decodes alone fall into."""
    measured = list(_measured(seconds))
    moments = _moments(record, [at_s for at_s, _, _ in measured])
    by_bucket: dict[int, list[tuple[float, float]]] = {}
    for (_, running, step_s), moment in zip(measured, moments, strict=True):
        bucket = next((i for i, last in enumerate(_LAST_OF_BUCKETS) if running <= last), None)
        if bucket is None or moment is None:
            continue
        decodes, tokens, simulated_s = moment
        uneven = simulated_s / model.step_s(StepShape(decodes, tokens))
        batch = round(running)
        even_s = model.step_s(StepShape(batch, round(batch * tokens / decodes)))
        by_bucket.setdefault(bucket, []).append((uneven * even_s, step_s))
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
            bar_pct=bar_pct,
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


def _moments(record: RunRecord, at_s: Sequence[float]) -> Iterator[tuple[int, int, float] | None]:
    """Yield the next step of decodes alone from each time on: decodes, context, seconds.

    None where there is none within a second.
    """
    steps = record.steps[0].expand()
    alone = np.flatnonzero((steps["prefill_seqs"] == 0) & (steps["decode_seqs"] > 0))
    ends_ps = steps["end_ps"][alone]
    for time_s in at_s:
        place = int(np.searchsorted(ends_ps, time_s * PS_PER_S))
        if place == len(alone) or ends_ps[place] > (time_s + 1) * PS_PER_S:
            yield None
            continue
        step = alone[place]
        lasted_ps = int(steps["end_ps"][step] - steps["start_ps"][step])
        tokens = int(steps["decode_context_tokens"][step])
        yield int(steps["decode_seqs"][step]), tokens, lasted_ps / PS_PER_S
