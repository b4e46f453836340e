"""The shape of a model: what its weights and its KV cache weigh.

Shapes stand in ``catalogue/models``. They describe a decoder with grouped-query attention
and a gated feed-forward network of three matrices, without biases (Llama 3, Qwen3).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from simserve.errors import InputError
from simserve.inputs.data_files import CATALOGUE, find_name, normal_name
from simserve.inputs.sourced import read_provenance, refuse_unknown_keys
from simserve.inputs.units import parse_count, parse_quantity
from simserve.inputs.yaml_reader import read_yaml

# vLLM pads the vocabulary of embedding and LM head to a multiple of this before it is cut
# (layers/vocab_parallel_embedding.py, DEFAULT_VOCAB_PADDING_SIZE).
VOCAB_PADDING = 64

_COUNTS = (
    "layers",
    "hidden_size",
    "attention_heads",
    "kv_heads",
    "head_size",
    "ffn_size",
    "vocab_size",
    "max_position_embeddings",
)
_WIDTHS = ("weight_bytes_per_value", "kv_bytes_per_value")
_FLAGS = ("tied_embeddings", "qk_norm")
_KEYS = ("name", "hf_id", "aliases", "kind", "source", "date", *_COUNTS, *_WIDTHS, *_FLAGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model's shape; ``qk_norm`` says whether queries and keys have norm weights."""

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
    kind: str = "assumed"
    source: str = "given in code"
    date: str = ""

    @property
    def parameters(self) -> int:
        """Values in the checkpoint: embeddings, projections, norms and LM head."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)
        layer = self._attention_values(1) + self._ffn_values(1) + self._layer_norm_values
        return embeddings + self.layers * layer + self.hidden_size

    def weight_bytes(self, tp: int = 1) -> int:
        """Return the bytes of weights on each of ``tp`` GPUs.

        Matrices are cut (KV heads replicated when there are fewer than ``tp``), the vocabulary
        is padded as vLLM pads it, norms stand on every GPU.
        """
        padded = -(-self.vocab_size // VOCAB_PADDING) * VOCAB_PADDING
        vocab = -(-padded // tp) * self.hidden_size * (1 if self.tied_embeddings else 2)
        layer = self._attention_values(tp) + self._ffn_values(tp) + self._layer_norm_values
        values = vocab + self.layers * layer + self.hidden_size
        return round(values * self.weight_bytes_per_value)

    def kv_heads_per_gpu(self, tp: int = 1) -> int:
        """Return the KV heads that each of ``tp`` GPUs keeps: at least one."""
        return max(1, self.kv_heads // tp)

    def kv_bytes_per_token(self, tp: int = 1) -> int:
        """Return the KV-cache bytes that one token adds on each of ``tp`` GPUs.

        Two tensors (K and V) per layer, each ``kv_heads × head_size`` values.
        """
        values = 2 * self.layers * self.kv_heads_per_gpu(tp) * self.head_size
        return round(values * self.kv_bytes_per_value)

    def tp_sizes(self) -> tuple[int, ...]:
        """Return the tensor-parallel sizes that cut this model evenly."""
        return tuple(
            tp
            for tp in range(1, self.attention_heads + 1)
            if self.attention_heads % tp == 0
            and self.ffn_size % tp == 0
            and (self.kv_heads % tp == 0 or tp % self.kv_heads == 0)
        )

    def _attention_values(self, tp: int) -> int:
        queries = self.attention_heads // tp * self.head_size
        keys = self.kv_heads_per_gpu(tp) * self.head_size
        return self.hidden_size * (2 * queries + 2 * keys)  # Q and O, K and V

    def _ffn_values(self, tp: int) -> int:
        return 3 * self.hidden_size * (self.ffn_size // tp)  # gate, up, down

    @property
    def _layer_norm_values(self) -> int:
        return 2 * self.hidden_size + (2 * self.head_size if self.qk_norm else 0)


def list_models() -> tuple[str, ...]:
    """Return the names of the models in the catalogue, sorted."""
    return tuple(sorted(path.stem for path in (CATALOGUE / "models").glob("*.yaml")))


def load_model(name: str, where: str = "--model", which: str = "model") -> ModelSpec:
    """Return the catalogue's model ``name``: its own name, an alias or a Hugging Face id.

    Raises:
        InputError: if there is none, naming the nearest; or if its file is not right.
    """
    return _read_catalogue_model(find_name(name, _spellings(), where, which))


@functools.cache
def _read_catalogue_model(name: str) -> ModelSpec:
    path = CATALOGUE / "models" / f"{name}.yaml"
    return read_model(read_yaml(path), str(path))


@functools.cache
def _spellings() -> Mapping[str, str]:
    spellings: dict[str, str] = {}
    for name in list_models():
        entry = read_yaml(CATALOGUE / "models" / f"{name}.yaml")
        for spelling in (name, entry["hf_id"], *entry.get("aliases", ())):
            spellings[normal_name(spelling)] = name
    return MappingProxyType(spellings)


def read_model(entry: Mapping[str, Any], where: str) -> ModelSpec:
    """Return the model that a catalogue file's mapping describes; refuse an unsourced one."""
    refuse_unknown_keys(entry, _KEYS, where)
    provenance = read_provenance(entry, where, "")
    fields: dict[str, Any] = {}
    for key in ("name", "hf_id"):
        if not isinstance(entry.get(key), str):
            raise InputError(where, key, entry.get(key, "nothing"), "text")
        fields[key] = entry[key]
    for key in _COUNTS:
        fields[key] = _positive_count(entry.get(key), where, key)
    for key in _WIDTHS:
        fields[key] = _positive_number(entry.get(key), where, key)
    for key in _FLAGS:
        if not isinstance(entry.get(key), bool):
            raise InputError(where, key, entry.get(key, "nothing"), "true or false")
        fields[key] = entry[key]
    if fields["attention_heads"] % fields["kv_heads"]:
        allowed = f"a divisor of attention_heads ({fields['attention_heads']})"
        raise InputError(where, "kv_heads", fields["kv_heads"], allowed)
    return ModelSpec(**fields, kind=provenance.kind, source=provenance.source, date=provenance.date)


def _positive_count(value: object, where: str, key: str) -> int:
    allowed = "an integer of at least 1"
    try:
        count = parse_count(value, allowed)
    except ValueError:
        count = 0
    if count < 1:
        raise InputError(where, key, "nothing" if value is None else value, allowed)
    return count


def _positive_number(value: object, where: str, key: str) -> float:
    allowed = "a number above 0, in bytes"
    try:
        number = parse_quantity(value, {}, allowed)
    except ValueError:
        number = 0.0
    if number <= 0:
        raise InputError(where, key, "nothing" if value is None else value, allowed)
    return number
