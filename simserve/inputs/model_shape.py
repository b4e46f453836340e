"""The parts of a model's shape that not every model has: windows, experts, latent attention."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionGroup:
    """``layers`` layers whose attention is alike; a ``window`` of None looks at everything.

    With a window, a layer keeps the KV of that many tokens of a sequence at most, whether the
    window slides (Mistral, Gemma) or the context is cut into chunks (``chunked``, Llama 4).
    """

    layers: int
    kv_heads: int
    head_size: int
    window: int | None = None
    chunked: bool = False
    # K and V come from one projection (Gemma 4); both are cached.
    shared_kv_projection: bool = False

    def tokens_kept(self, tokens: int) -> int:
        """Return how many tokens of a sequence of ``tokens`` these layers keep."""
        return tokens if self.window is None else min(tokens, self.window)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1).

    The cache holds one latent of ``kv_rank`` values and one rotated key of ``rope_size`` per
    token and layer, whatever the number of heads; every GPU keeps all of it.
    """

    kv_rank: int
    nope_size: int
    rope_size: int
    value_size: int
    q_rank: int | None = None

    @property
    def cached_values(self) -> int:
        """Values per token and layer in the KV cache."""
        return self.kv_rank + self.rope_size

    @property
    def query_size(self) -> int:
        """Values of one head's query."""
        return self.nope_size + self.rope_size


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseIndexer:
    """The lightning indexer of DeepSeek-V3.2 (arXiv:2512.02556): attention to ``top_k`` tokens.

    It keeps one key of ``head_size`` values per token and layer, beside the KV.
    """

    heads: int
    head_size: int
    top_k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A mixture of experts in ``layers`` of the layers; the others have the dense FFN.

    A token is computed by ``per_token`` of ``count`` experts of ``ffn_size`` and by the shared
    ones, whose sizes are summed in ``shared_ffn_size``. ``beside_dense``: the dense FFN stands
    beside the experts in the same layer (Gemma 4).
    """

    count: int
    per_token: int
    ffn_size: int
    layers: int
    shared_ffn_size: int = 0
    beside_dense: bool = False
    bias: bool = False
