"""One step as the latency model sees it: shapes, no names."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class PrefillChunk(NamedTuple):
    """``new_tokens`` of one prompt computed on top of ``past_tokens`` already in the KV cache."""

    new_tokens: int
    past_tokens: int


class StepShape(NamedTuple):
    """What a step computes.

    ``decode_context_tokens`` is the sum, over the decoding sequences, of the context each
    attends to in this step, the new token included; ``decode_contexts`` is each of them, in
    the order of the batch, for latency models that ask (``reads_contexts``). Tuples rather than
    dataclasses: one is built for every step with a prefill, and tuples cost a third.
    """

    decode_seqs: int
    decode_context_tokens: int
    prefill: tuple[PrefillChunk, ...] = ()
    decode_contexts: npt.NDArray[np.int64] | None = None  # int64[decode_seqs]

    @property
    def tokens(self) -> int:
        """Tokens that go through the model in this step."""
        return self.decode_seqs + sum(chunk.new_tokens for chunk in self.prefill)

    @property
    def seqs(self) -> int:
        """Sequences in this step: the rows that reach the LM head."""
        return self.decode_seqs + len(self.prefill)

    @property
    def context_tokens(self) -> int:
        """Sum over all sequences of the context after this step."""
        return self.decode_context_tokens + sum(
            chunk.new_tokens + chunk.past_tokens for chunk in self.prefill
        )
