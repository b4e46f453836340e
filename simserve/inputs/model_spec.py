"""The shape of a model: what its weights and its KV cache weigh.

Bytes follow from the shape, never from a name: grouped-query, latent and windowed attention,
dense and mixed-expert feed-forward networks are all one ``ModelSpec``, whose matrices
``model_matrices`` enumerates.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from simserve.inputs.model_matrices import (
    QUANTISED_PARTS,
    Matrix,
    checkpoint_values,
    matrices,
    vector_values,
)
from simserve.inputs.model_shape import AttentionGroup, Experts, LatentAttention, SparseIndexer
from simserve.inputs.quantization import WeightFormat

ATTENTION_BIASES = ("none", "qkv", "all")
# The indexer keeps its keys in fp8, with one 32-bit scale per token and layer (vLLM 0.33,
# model_executor/models/deepseek_v2.py, DeepseekV32IndexerCache).
_INDEX_SCALE_BYTES = 4
# In 8 bits the sparse kernels keep the latent in fp8 with a 32-bit scale per 128 values and
# the rotated key in 16 bits (vLLM 0.33, kv-cache-dtype fp8_ds_mla: 656 bytes for DeepSeek).
_SPARSE_SCALE_GROUP, _SPARSE_SCALE_BYTES, _SPARSE_ROPE_BYTES = 128, 4, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model's shape.

    ``groups`` splits the layers by kind of attention; empty, all are alike and see everything.
    ``weight_bytes_per_value`` is the width of what ``weights`` does not cover: of everything,
    if it is None. ``qk_norm``: queries and keys have norm weights of ``head_size`` each;
    ``extra_values_per_layer`` are vectors that no other field tells (attention sinks).
    """

    name: str
    hf_id: str
    layers: int
    hidden_size: int
    attention_heads: int
    kv_heads: int
    head_size: int
    ffn_size: int
    vocab_size: int
    tied_embeddings: bool
    max_position_embeddings: int
    weight_bytes_per_value: float = 2.0
    kv_bytes_per_value: float = 2.0
    qk_norm: bool = False
    ffn_matrices: int = 3
    ffn_bias: bool = False
    attention_bias: str = "none"
    norms_per_layer: int = 2
    norm_bias: bool = False
    embedding_norm: bool = False
    learned_positions: int = 0
    extra_values_per_layer: int = 0
    groups: tuple[AttentionGroup, ...] = ()
    mla: LatentAttention | None = None
    indexer: SparseIndexer | None = None
    experts: Experts | None = None
    weights: WeightFormat | None = None
    kind: str = "assumed"
    source: str = "given in code"
    date: str = ""

    @property
    def attention_groups(self) -> tuple[AttentionGroup, ...]:
        """The layers by kind of attention; one group, unless the model mixes kinds."""
        if self.groups:
            return self.groups
        return (
            AttentionGroup(layers=self.layers, kv_heads=self.kv_heads, head_size=self.head_size),
        )

    @property
    def has_windows(self) -> bool:
        """Whether some layers keep only a window of the context."""
        return any(group.window is not None for group in self.groups)

    @property
    def parameters(self) -> int:
        """Values in the checkpoint: embeddings, projections, experts, norms and LM head."""
        return checkpoint_values(self)

    @property
    def active_parameters(self) -> int:
        """Values that one token is computed with: of the experts only those it is sent to."""
        if self.experts is None:
            return self.parameters
        idle = self.experts.count - self.experts.per_token
        return self.parameters - sum(
            one.outputs * one.inputs * one.layers * idle
            for one in matrices(self)
            if one.part == "experts"
        )

    def described(self) -> dict[str, Any]:
        """Return every field and the parameters, as JSON-able objects."""
        groups = [asdict(group) for group in self.groups]
        return asdict(self) | {"groups": groups, "parameters": self.parameters}

    def weight_bytes(self, tp: int = 1) -> int:
        """Return the bytes of weights on each of ``tp`` GPUs, scales included."""
        stored = sum(self.matrix_bytes(one) for one in matrices(self, tp))
        return round(stored + vector_values(self, tp) * self.weight_bytes_per_value)

    def matrix_bytes(self, matrix: Matrix) -> float:
        """Return the bytes of all layers' and experts' copies of ``matrix``."""
        weights = self.format_of(matrix)
        if weights is None:
            return matrix.values * self.weight_bytes_per_value
        one = weights.matrix_bytes(matrix.outputs, matrix.inputs)
        return one * matrix.layers * matrix.copies

    def format_of(self, matrix: Matrix) -> WeightFormat | None:
        """Return the format that ``matrix`` is stored in, None for plain values."""
        weights = self.weights
        covered = ("experts",) if weights and weights.experts_only else QUANTISED_PARTS
        return weights if matrix.part in covered else None

    def kv_heads_per_gpu(self, tp: int = 1) -> int:
        """Return the KV heads that each of ``tp`` GPUs keeps: at least one."""
        return max(1, self.kv_heads // tp)

    def kv_bytes_per_token(self, tp: int = 1) -> int:
        """Return the KV-cache bytes that a token adds on each of ``tp`` GPUs, in every layer.

        Two tensors (K and V) per layer, each ``kv_heads × head_size`` values; with latent
        attention one latent and one rotated key per layer, not divided. What windows save
        later is not taken off here, but in ``kv_bytes``.
        """
        if self.mla is not None:
            return round(self.layers * self._latent_bytes(self.mla))
        return sum(self.group_bytes_per_token(group, tp) for group in self.attention_groups)

    def group_bytes_per_token(self, group: AttentionGroup, tp: int = 1) -> int:
        """Return the KV-cache bytes that a token adds in the layers of ``group``."""
        if self.mla is not None:
            return round(group.layers * self._latent_bytes(self.mla))
        values = 2 * group.layers * max(1, group.kv_heads // tp) * group.head_size
        return round(values * self.kv_bytes_per_value)

    @property
    def index_bytes_per_token(self) -> int:
        """Bytes that a token adds to the sparse indexer's own cache, on every GPU."""
        if self.indexer is None:
            return 0
        return self.layers * (self.indexer.head_size + _INDEX_SCALE_BYTES)

    def cache_bytes_per_token(self, tp: int = 1) -> int:
        """Return all that a token adds to the cache: KV, and the indexer's keys if any."""
        return self.kv_bytes_per_token(tp) + self.index_bytes_per_token

    def kv_bytes(self, tokens: int, tp: int = 1) -> int:
        """Return the cache bytes of one sequence of ``tokens``: windows keep their window."""
        return tokens * self.index_bytes_per_token + sum(
            group.tokens_kept(tokens) * self.group_bytes_per_token(group, tp)
            for group in self.attention_groups
        )

    def tp_sizes(self) -> tuple[int, ...]:
        """Return the tensor-parallel sizes that cut this model evenly."""
        return tuple(tp for tp in range(1, self.attention_heads + 1) if self._is_cut_by(tp))

    def _is_cut_by(self, tp: int) -> bool:
        sizes = [self.attention_heads, self.ffn_size]
        if self.experts is not None:
            sizes += [self.experts.ffn_size, self.experts.shared_ffn_size]
        kv_heads = () if self.mla else {group.kv_heads for group in self.attention_groups}
        return all(size % tp == 0 for size in sizes) and all(
            heads % tp == 0 or tp % heads == 0 for heads in kv_heads
        )

    def _latent_bytes(self, mla: LatentAttention) -> float:
        """Return the bytes of one token's latent and rotated key in one layer."""
        if self.indexer is None or self.kv_bytes_per_value > 1:
            return mla.cached_values * self.kv_bytes_per_value
        scales = -(-mla.kv_rank // _SPARSE_SCALE_GROUP) * _SPARSE_SCALE_BYTES
        return mla.kv_rank + scales + mla.rope_size * _SPARSE_ROPE_BYTES
