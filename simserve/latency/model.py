"""How long a step takes: the protocol between the engine and any latency model."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

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


@runtime_checkable
class UnevenDecodeModel(LinearDecodeModel, Protocol):
    """A model that can price decodes by the context of each, and says whether it wants to.

    Some attention kernels take as long as their longest block of work, so that the sum of the
    contexts does not tell how long a step takes. Where ``reads_contexts`` is true the engine
    prices decode-only steps by ``uneven_decode_line``, and hands ``step_s`` the contexts of
    the decodes beside a prefill (``StepShape.decode_contexts``).
    """

    reads_contexts: bool  # False: the engine uses decode_line

    def uneven_decode_line(self, decode_slots: int, contexts: npt.NDArray[np.int64]) -> DecodeLine:
        """Return the line on which these decodes lie while every context grows by one a step.

        ``contexts`` is ``int64[decode_seqs]``: the context of every decoding sequence in the
        order of the batch, this step's new token included. The line is in the *summed* context,
        as that of ``decode_line``, and holds up to its ``context_limit``.
        """
        ...
