"""How long a step takes: the protocol between the engine and any latency model."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from simserve.records.step import StepShape


class StepLatencyModel(Protocol):
    """Prices one step."""

    def step_s(self, shape: StepShape) -> float:
        """Return the duration of a step in seconds, host time included."""
        ...


class DecodeLine(NamedTuple):
    """The cost of decode-only steps of one batch size, linear in the summed context.

    A step over ``c`` context tokens takes ``base_ps + per_context_ps * c`` picoseconds, for
    every ``c`` from ``context_start`` up to and including ``context_limit``.
    """

    base_ps: int
    per_context_ps: int
    context_limit: int
    context_start: int = 0


UNLIMITED_CONTEXT = 1 << 62
"""A ``context_limit`` for a line that never ends."""


@runtime_checkable
class LinearDecodeModel(StepLatencyModel, Protocol):
    """A model whose decode-only steps lie on lines.

    The engine prices *every* decode-only step through ``decode_line``, one at a time or a
    whole stretch at once, so that both give the same picoseconds; ``step_s`` then prices
    only steps with a prefill. It may agree with ``decode_line`` to within rounding only.
    """

    def decode_line(self, decode_seqs: int, decode_context_tokens: int) -> DecodeLine:
        """Return the line on which this decode-only step lies."""
        ...
