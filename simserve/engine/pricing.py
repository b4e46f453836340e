"""Step plans to picoseconds: the one place where a latency model is asked."""

from __future__ import annotations

from math import isfinite

import numpy as np

from simserve.errors import SimserveError
from simserve.latency.model import (
    DecodeLine,
    LinearDecodeModel,
    StepLatencyModel,
    UnevenDecodeModel,
)
from simserve.policy.scheduler import StepPlan
from simserve.records.clock import PS_PER_S
from simserve.records.step import PrefillChunk, StepShape

_new = tuple.__new__  # half the price of a NamedTuple's own constructor


class Pricing:
    """Prices steps of one replica; decode-only steps on lines where the model has them."""

    def __init__(self, model: StepLatencyModel) -> None:
        self._step_s = model.step_s
        self._decode_line = model.decode_line if isinstance(model, LinearDecodeModel) else None
        self._lines: dict[int, DecodeLine] = {}
        self._uneven_line = None
        if isinstance(model, UnevenDecodeModel) and model.reads_contexts:
            self._uneven_line = model.uneven_decode_line

    def decode_line(self, slots: int, context_tokens: int) -> DecodeLine:
        """Return a line on which decode-only steps of ``slots`` sequences lie, from here on.

        A model without lines gives one that holds for this step alone.
        """
        line = self._lines.get(slots)
        if line is None or not line.context_start <= context_tokens <= line.context_limit:
            if self._decode_line is None:
                alone_ps = self._to_ps(self._step_s(StepShape(slots, context_tokens)))
                return DecodeLine(alone_ps, 0, context_tokens, context_tokens)
            line = self._lines[slots] = self._decode_line(slots, context_tokens)
        return line

    @property
    def reads_contexts(self) -> bool:
        """Whether the model wants the context of every decoding sequence."""
        return self._uneven_line is not None

    def uneven_line(self, slots: int, contexts: list[int]) -> DecodeLine:
        """Return the line of decode-only steps for a model that reads every context."""
        if self._uneven_line is None:
            raise SimserveError("latency model: it does not read contexts")
        return self._uneven_line(slots, np.array(contexts, dtype=np.int64))

    def step_ps(self, plan: StepPlan, contexts: list[int] | None = None) -> int:
        """Return the duration of a step with prefill; ``contexts`` if the model reads them."""
        chunks = tuple([_new(PrefillChunk, chunk[1:]) for chunk in plan.prefill])
        each = None if contexts is None else np.array(contexts, dtype=np.int64)
        shape = _new(StepShape, (plan.decode_slots, plan.decode_context_tokens, chunks, each))
        return self._to_ps(self._step_s(shape))

    def _to_ps(self, seconds: float) -> int:
        if not (isfinite(seconds) and seconds >= 0):
            raise SimserveError(f"latency model: step_s(={seconds}) must be finite and >= 0")
        return round(seconds * PS_PER_S)


def stretch_ps(steps: int, duration_ps: int, growth_ps: int) -> int:
    """Return the length of ``steps`` steps, each longer than the one before by ``growth_ps``."""
    return steps * duration_ps + growth_ps * (steps * (steps - 1) // 2)


def steps_to_reach(span_ps: int, duration_ps: int, growth_ps: int) -> int:
    """Return the smallest number of steps whose ``stretch_ps`` is at least ``span_ps``.

    ``duration_ps`` must be above 0 and ``growth_ps`` not below. Newton's method from above
    the root, in integers, then the last few steps one by one.
    """
    steps = span_ps // duration_ps + 1
    while True:
        excess_ps = steps * duration_ps + growth_ps * (steps * (steps - 1) // 2) - span_ps
        fewer = excess_ps // (duration_ps + growth_ps * steps)
        if fewer < 1:
            break
        steps -= fewer
    while steps > 1 and excess_ps >= (last_ps := duration_ps + growth_ps * (steps - 1)):
        steps -= 1
        excess_ps -= last_ps
    return steps
