"""The kernels of one model on one of ``tp`` GPUs, from the shapes that the simulator prices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from simserve.inputs.model_matrices import Matrix, layer_matrices, padded_vocab
from simserve.inputs.model_spec import ModelSpec

EIGHT_BIT_PARTS = ("attention", "ffn", "shared")
"""The matrices that 8-bit weights cover; experts are measured as a group, the rest is 16 bits."""


@dataclass(frozen=True, slots=True)
class Heads:
    """Query and KV heads of one layer on one GPU, and their size."""

    queries: int
    keys: int
    size: int

    @property
    def width(self) -> int:
        """Values that are rotated and stored per token: queries, keys and values."""
        return (self.queries + 2 * self.keys) * self.size


def dense_matrices(model: ModelSpec, tp: int) -> Iterator[Matrix]:
    """Yield the matrices that are measured one by one, LM head included; experts are not."""
    for matrix in layer_matrices(model, tp):
        if matrix.part != "experts":
            yield matrix
    yield Matrix("head", "lm_head", -(-padded_vocab(model) // tp), model.hidden_size, 1)


def attention_heads(model: ModelSpec, tp: int) -> list[Heads]:
    """Return the kinds of full attention; none for latent attention or windows."""
    if model.mla is not None:
        return []
    return [
        Heads(model.attention_heads // tp, max(1, group.kv_heads // tp), group.head_size)
        for group in model.attention_groups
        if group.window is None
    ]


def pointwise_widths(model: ModelSpec, tp: int) -> Iterator[tuple[str, int, Heads | None]]:
    """Yield operation, width and heads of the small kernels of a step."""
    yield "norm", model.hidden_size, None
    yield "embed", model.hidden_size, None
    for heads in attention_heads(model, tp):
        yield "rope_store", heads.width, heads
        if model.qk_norm:
            yield "qk_norm", heads.width, heads
    dense = model.layers - (model.experts.layers if model.experts else 0)
    if dense:
        yield "act", model.ffn_size // tp, None
    yield "sample", model.vocab_size, None
