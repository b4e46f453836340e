"""A transformer of Llama's and Qwen's shape with random weights, on ``calibrate``'s kernels.

Every product, attention call and small kernel is the very object that is measured, in the
order and number in which the simulator adds them up: per layer two norms, four products,
rotation with KV store, attention, activation; around them embedding, last norm, and LM head
and sampling for the last row of each sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch

from calibrate.engine.inputs import DeviceInputs
from calibrate.kernels.interface import AttentionShape, Gemm, PagedAttention
from calibrate.kernels.pointwise import PointwiseOps, rope_table
from simserve.errors import InputError
from simserve.inputs.model_matrices import padded_vocab
from simserve.inputs.model_spec import ModelSpec

# Of Llama 3 (its config.json); with random weights neither changes any time.
_ROPE_BASE, _NORM_EPS = 500_000.0, 1e-5
_GATED_MATRICES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """The kernels of a run: how queries attend, how matrices multiply, and the small ones."""

    attention: PagedAttention
    gemm: Gemm
    ops: PointwiseOps


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer; matrices as ``Gemm.pack`` made them."""

    attention_norm: torch.Tensor
    qkv: Any
    query_norm: torch.Tensor
    key_norm: torch.Tensor
    o: Any
    ffn_norm: torch.Tensor
    gate_up: Any
    down: Any


@dataclass(frozen=True, slots=True)
class KvCache:
    """Keys and values of all layers: ``[num_blocks, block_size, kv_heads, head_size]`` each."""

    keys: list[torch.Tensor]
    values: list[torch.Tensor]


def check_supported(model: ModelSpec) -> None:
    """Refuse a model that is not of this shape.

    Raises:
        InputError: naming what it has that the engine has not.
    """
    unlike = {
        "experts": model.experts is not None,
        "latent attention": model.mla is not None,
        "windows": model.has_windows,
        "layers of several kinds": len(model.groups) > 1,
        "attention biases": model.attention_bias != "none",
        "FFN biases": model.ffn_bias,
        "an FFN without gate": model.ffn_matrices != _GATED_MATRICES,
        "learned positions": model.learned_positions > 0,
        "other norms": model.norms_per_layer != 2 or model.norm_bias or model.embedding_norm,
    }
    for what, found in unlike.items():
        if found:
            allowed = "a dense model of Llama's or Qwen 3's shape"
            raise InputError("engine", "model", f"{model.name}, which has {what}", allowed)


class Workspace:
    """Activations of a step of up to ``tokens`` tokens and ``seqs`` sequences."""

    def __init__(
        self, model: ModelSpec, tokens: int, seqs: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        def make(rows: int, width: int) -> torch.Tensor:
            return torch.zeros(rows, width, dtype=dtype, device=device)

        query = model.attention_heads * model.head_size
        self.residual = make(tokens, model.hidden_size)
        self.hidden = make(tokens, model.hidden_size)
        self.normed = make(tokens, model.hidden_size)
        self.qkv = make(tokens, query + 2 * model.kv_heads * model.head_size)
        self.attended = make(tokens, query)
        self.gate_up = make(tokens, 2 * model.ffn_size)
        self.gated = make(tokens, model.ffn_size)
        self.last = make(seqs, model.hidden_size)
        self.logits = make(seqs, padded_vocab(model))
        self.sampled = torch.zeros(seqs, dtype=torch.int64, device=device)


class Transformer:
    """The model on one device, in ``dtype``.

    Weights are normal, scaled by their inputs, and those that write to the residual stream by
    the depth too (GPT-2's initialisation), so that activations stay near 1 in any depth.

    Raises:
        InputError: if the model is not of this shape.
    """

    def __init__(
        self,
        model: ModelSpec,
        kernels: Kernels,
        dtype: torch.dtype,
        device: torch.device,
        max_positions: int,
        seed: int = 0,
    ) -> None:
        check_supported(model)
        self.model, self.kernels, self.dtype, self.device = model, kernels, dtype, device
        self._generator = torch.Generator(device).manual_seed(seed)
        self.query_width = model.attention_heads * model.head_size
        self.key_width = model.kv_heads * model.head_size
        hidden, depth = model.hidden_size, (2 * model.layers) ** -0.5
        qkv_width = self.query_width + 2 * self.key_width
        self.layers = [
            Layer(
                attention_norm=self._ones(hidden),
                qkv=self._matrix(qkv_width, hidden),
                query_norm=self._ones(model.head_size),
                key_norm=self._ones(model.head_size),
                o=self._matrix(hidden, self.query_width, depth),
                ffn_norm=self._ones(hidden),
                gate_up=self._matrix(2 * model.ffn_size, hidden),
                down=self._matrix(hidden, model.ffn_size, depth),
            )
            for _ in range(model.layers)
        ]
        self.last_norm = self._ones(hidden)
        self.embedding = self._normal(padded_vocab(model), hidden, 1.0)
        tied = self.embedding if model.tied_embeddings else None
        self.head = self._matrix(padded_vocab(model), hidden, of=tied)
        self.cos_sin = rope_table(max_positions, model.head_size, _ROPE_BASE, device)

    def attention_shape(self, block_size: int) -> AttentionShape:
        """Return what is fixed of a layer's attention."""
        model = self.model
        return AttentionShape(
            heads=model.attention_heads,
            kv_heads=model.kv_heads,
            head_size=model.head_size,
            block_size=block_size,
            dtype=self.dtype,
            kv_dtype=self.dtype,
        )

    def new_cache(self, num_blocks: int, block_size: int) -> KvCache:
        """Return the KV cache of all layers, zeroed: padding rows read block 0."""
        shape = (num_blocks, block_size, self.model.kv_heads, self.model.head_size)
        keys, values = (
            [torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in self.layers]
            for _ in range(2)
        )
        return KvCache(keys, values)

    def forward(
        self, inputs: DeviceInputs, planned: Any, cache: KvCache, work: Workspace
    ) -> torch.Tensor:
        """Launch one step; return the sampled tokens, ``int64[seqs]`` in ``work``."""
        ops, gemm, model = self.kernels.ops, self.kernels.gemm, self.model
        attend = self.kernels.attention.run
        tokens, seqs = inputs.token_ids.shape[0], inputs.last_rows.shape[0]
        residual, hidden = work.residual[:tokens], work.hidden[:tokens]
        normed, qkv, attended = work.normed[:tokens], work.qkv[:tokens], work.attended[:tokens]
        gate_up, gated = work.gate_up[:tokens], work.gated[:tokens]
        heads = qkv.view(tokens, -1, model.head_size)
        counts = [model.attention_heads, model.kv_heads, model.kv_heads]
        query, key, value = torch.split(heads, counts, dim=1)
        attended_heads = attended.view(tokens, model.attention_heads, model.head_size)

        ops.embed(inputs.token_ids, self.embedding, residual)
        ops.rms_norm(residual, self.layers[0].attention_norm, _NORM_EPS, normed)
        for number, layer in enumerate(self.layers):
            if number:
                ops.add_rms_norm(hidden, residual, layer.attention_norm, _NORM_EPS, normed)
            gemm.run(gemm.pack_input(normed), layer.qkv, qkv)
            if model.qk_norm:
                ops.qk_norm(query, key, layer.query_norm, layer.key_norm, _NORM_EPS)
            keys, values = cache.keys[number], cache.values[number]
            ops.rope_store(
                query, key, value, self.cos_sin, inputs.positions, inputs.cache_slots, keys, values
            )
            attend(planned, query, keys, values, attended_heads)
            gemm.run(gemm.pack_input(attended), layer.o, hidden)
            ops.add_rms_norm(hidden, residual, layer.ffn_norm, _NORM_EPS, normed)
            gemm.run(gemm.pack_input(normed), layer.gate_up, gate_up)
            ops.silu_mul(gate_up, gated)
            gemm.run(gemm.pack_input(gated), layer.down, hidden)
        ops.add_rms_norm(hidden, residual, self.last_norm, _NORM_EPS, normed)
        last, logits, sampled = work.last[:seqs], work.logits[:seqs], work.sampled[:seqs]
        ops.embed(inputs.last_rows, normed, last)  # a gather of rows
        gemm.run(gemm.pack_input(last), self.head, logits)
        ops.greedy(logits[:, : model.vocab_size], sampled)
        return sampled

    def _ones(self, width: int) -> torch.Tensor:
        return torch.ones(width, dtype=self.dtype, device=self.device)

    def _normal(self, rows: int, width: int, std: float) -> torch.Tensor:
        values = torch.empty(rows, width, dtype=self.dtype, device=self.device)
        return values.normal_(0.0, std, generator=self._generator)

    def _matrix(
        self, outputs: int, inputs: int, factor: float = 1.0, of: torch.Tensor | None = None
    ) -> Any:
        made = self._normal(outputs, inputs, factor * inputs**-0.5) if of is None else of
        return self.kernels.gemm.pack(made)
