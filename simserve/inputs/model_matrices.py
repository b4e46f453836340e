"""Every matrix of a model as one of ``tp`` GPUs holds it, from which all byte counts follow.

Cut as vLLM cuts it (Megatron-LM, arXiv:1909.08053): heads, FFN columns and vocabulary are
divided, KV heads are replicated where there are fewer than ``tp``; router, latent
down-projections, indexer, norms and position embeddings stand on every GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simserve.inputs.model_shape import AttentionGroup, Experts, LatentAttention

if TYPE_CHECKING:
    from simserve.inputs.model_spec import ModelSpec

# vLLM pads the vocabulary of embedding and LM head to a multiple of this before it is cut
# (layers/vocab_parallel_embedding.py, DEFAULT_VOCAB_PADDING_SIZE).
VOCAB_PADDING = 64
# A gated FFN has gate, up and down; the FFN of GPT-2's kind up and down.
GATED_MATRICES = 3


@dataclass(frozen=True, slots=True)
class Matrix:
    """``layers`` matrices of ``outputs × inputs``, ``copies`` of them in a layer.

    ``part`` is attention, ffn, experts, shared, router, indexer, embedding or head.
    """

    part: str
    name: str
    outputs: int
    inputs: int
    layers: int
    copies: int = 1

    @property
    def values(self) -> int:
        """Values of all of them."""
        return self.outputs * self.inputs * self.layers * self.copies


# The parts that a weight format covers; the others stay in 16 bits.
QUANTISED_PARTS = ("attention", "ffn", "experts", "shared")


def matrices(model: ModelSpec, tp: int = 1) -> tuple[Matrix, ...]:
    """Return every matrix of ``model`` on one of ``tp`` GPUs, the vocabulary padded."""
    return (*layer_matrices(model, tp), *_vocabulary(model, -(-padded_vocab(model) // tp)))


def layer_matrices(model: ModelSpec, tp: int) -> Iterator[Matrix]:
    """Yield the matrices of the layers: what a step multiplies for every token."""
    if model.mla is not None:
        yield from _latent_attention(model, model.mla, tp)
    else:
        for group in model.attention_groups:
            yield from _attention(model, group, tp)
    if model.indexer is not None:
        yield from _indexer(model)
    dense = model.layers - (model.experts.layers if model.experts else 0)
    if model.experts and model.experts.beside_dense:
        dense = model.layers
    if dense:
        yield from _ffn(model, "ffn", model.ffn_size // tp, dense)
    if model.experts is not None:
        yield from _experts(model, model.experts, tp)


def padded_vocab(model: ModelSpec) -> int:
    """Return the rows of embedding and LM head on all GPUs together."""
    return -(-model.vocab_size // VOCAB_PADDING) * VOCAB_PADDING


def vector_values(model: ModelSpec, tp: int = 1) -> int:
    """Return the values that are no matrix: norms, biases and learned positions.

    Biases are cut with their matrix; they are counted whole here, a few kilobytes too many.
    """
    norm = model.hidden_size * (2 if model.norm_bias else 1)
    per_layer = model.norms_per_layer * norm + model.extra_values_per_layer
    final_norms = 2 if model.embedding_norm else 1
    positions = model.learned_positions * model.hidden_size
    biases = sum(
        matrix.outputs * matrix.layers * matrix.copies
        for matrix in layer_matrices(model, tp)
        if _has_bias(model, matrix)
    )
    qk_norms = sum(2 * group.head_size * group.layers for group in model.attention_groups)
    latent = 0
    if model.mla is not None:
        latent = model.layers * (model.mla.kv_rank + (model.mla.q_rank or 0))
    return (
        model.layers * per_layer
        + final_norms * norm
        + positions
        + biases
        + (qk_norms if model.qk_norm else 0)
        + latent
    )


def checkpoint_values(model: ModelSpec) -> int:
    """Return the parameters of the checkpoint, where the vocabulary is not padded."""
    layers = sum(matrix.values for matrix in layer_matrices(model, 1))
    vocabulary = sum(matrix.values for matrix in _vocabulary(model, model.vocab_size))
    return layers + vocabulary + vector_values(model)


def _vocabulary(model: ModelSpec, rows: int) -> Iterator[Matrix]:
    yield Matrix("embedding", "embedding", rows, model.hidden_size, 1)
    if not model.tied_embeddings:
        yield Matrix("head", "lm_head", rows, model.hidden_size, 1)


def _attention(model: ModelSpec, group: AttentionGroup, tp: int) -> Iterator[Matrix]:
    queries = model.attention_heads // tp * group.head_size
    keys = max(1, group.kv_heads // tp) * group.head_size
    projected = queries + (1 if group.shared_kv_projection else 2) * keys
    yield Matrix("attention", "qkv", projected, model.hidden_size, group.layers)
    yield Matrix("attention", "o", model.hidden_size, queries, group.layers)


def _latent_attention(model: ModelSpec, mla: LatentAttention, tp: int) -> Iterator[Matrix]:
    heads, hidden, layers = model.attention_heads // tp, model.hidden_size, model.layers
    down = mla.cached_values
    if mla.q_rank is None:
        yield Matrix("attention", "q", heads * mla.query_size, hidden, layers)
    else:
        down += mla.q_rank
        yield Matrix("attention", "q_b", heads * mla.query_size, mla.q_rank, layers)
    yield Matrix("attention", "kv_a", down, hidden, layers)
    yield Matrix("attention", "kv_b", heads * (mla.nope_size + mla.value_size), mla.kv_rank, layers)
    yield Matrix("attention", "o", hidden, heads * mla.value_size, layers)


def _indexer(model: ModelSpec) -> Iterator[Matrix]:
    if model.indexer is None:
        return
    heads, size, layers = model.indexer.heads, model.indexer.head_size, model.layers
    source = model.mla.q_rank if model.mla and model.mla.q_rank else model.hidden_size
    yield Matrix("attention", "index_q", heads * size, source, layers)
    yield Matrix("attention", "index_k", size, model.hidden_size, layers)
    yield Matrix("indexer", "index_weights", heads, model.hidden_size, layers)


def _ffn(
    model: ModelSpec, part: str, ffn_size: int, layers: int, copies: int = 1
) -> Iterator[Matrix]:
    up = (model.ffn_matrices - 1) * ffn_size
    yield Matrix(part, f"{part}_up", up, model.hidden_size, layers, copies)
    yield Matrix(part, f"{part}_down", model.hidden_size, ffn_size, layers, copies)


def _experts(model: ModelSpec, experts: Experts, tp: int) -> Iterator[Matrix]:
    yield Matrix("router", "router", experts.count, model.hidden_size, experts.layers)
    size = experts.ffn_size // tp
    yield from _ffn(model, "experts", size, experts.layers, experts.count)
    if experts.shared_ffn_size:
        yield from _ffn(model, "shared", experts.shared_ffn_size // tp, experts.layers)


def _has_bias(model: ModelSpec, matrix: Matrix) -> bool:
    if matrix.part == "attention":
        return model.attention_bias == "all" or (
            model.attention_bias == "qkv" and matrix.name == "qkv"
        )
    if matrix.part in ("experts", "router"):
        return model.experts is not None and model.experts.bias
    return matrix.part == "ffn" and model.ffn_bias
