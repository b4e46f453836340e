"""Step plans to picoseconds: the one place where a latency model is asked."""

from __future__ import annotations

from math import isfinite, sqrt

from simserve.errors import SimserveError
from simserve.latency.model import DecodeLine, LinearDecodeModel, StepLatencyModel
from simserve.policy.scheduler import StepPlan
from simserve.records.clock import PS_PER_S
from simserve.records.step import PrefillChunk, StepShape


class Pricing:
    """Prices steps of one replica; decode-only steps on lines where the model has them."""

    def __init__(self, model: StepLatencyModel) -> None:
        self._step_s = model.step_s
        self._decode_line = model.decode_line if isinstance(model, LinearDecodeModel) else None
        self._lines: dict[int, DecodeLine] = {}

    def step(self, plan: StepPlan) -> tuple[int, int, int]:
        """Return (duration, growth with every further step, steps for which that holds)."""
        context = plan.decode_context_tokens
        if plan.prefill or self._decode_line is None:
            if not plan.prefill and not plan.decode_slots:
                return 0, 0, 1  # nothing was scheduled: only requests were preempted
            chunks = tuple([PrefillChunk(c[1], c[2]) for c in plan.prefill])
            return self._to_ps(self._step_s(StepShape(plan.decode_slots, context, chunks))), 0, 1
        slots = plan.decode_slots
        if not slots:
            return 0, 0, 1
        line = self._lines.get(slots)
        if line is None or not line.context_start <= context <= line.context_limit:
            line = self._lines[slots] = self._decode_line(slots, context)
        base_ps, per_context_ps, limit, _ = line
        seqs = plan.decode_seqs
        duration_ps = base_ps + per_context_ps * context
        return duration_ps, per_context_ps * seqs, (limit - context) // seqs + 1

    def _to_ps(self, seconds: float) -> int:
        if not (isfinite(seconds) and seconds >= 0):
            raise SimserveError(f"latency model: step_s(={seconds}) must be finite and >= 0")
        return round(seconds * PS_PER_S)


def stretch_ps(steps: int, duration_ps: int, growth_ps: int) -> int:
    """Return the length of ``steps`` steps, each longer than the one before by ``growth_ps``."""
    return steps * duration_ps + growth_ps * (steps * (steps - 1) // 2)


def steps_to_reach(span_ps: int, duration_ps: int, growth_ps: int) -> int:
    """Return the smallest number of steps whose ``stretch_ps`` is at least ``span_ps``.

    ``duration_ps`` must be above 0 and ``growth_ps`` not below. The root of the quadratic is
    found in floating point and then corrected in integers.
    """
    if growth_ps:
        half = duration_ps - growth_ps / 2
        steps = int((sqrt(half * half + 2.0 * growth_ps * span_ps) - half) / growth_ps)
    else:
        steps = span_ps // duration_ps
    steps = max(steps, 1)
    while stretch_ps(steps, duration_ps, growth_ps) < span_ps:
        steps += 1
    while steps > 1 and stretch_ps(steps - 1, duration_ps, growth_ps) >= span_ps:
        steps -= 1
    return steps
