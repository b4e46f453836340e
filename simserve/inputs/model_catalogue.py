"""Models by name: the shapes in ``catalogue/models``, or a ``config.json`` of one's own."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from types import MappingProxyType
from typing import Any

from simserve.errors import InputError
from simserve.inputs.data_files import CATALOGUE, find_name, normal_name
from simserve.inputs.hf_config import is_config_path, load_config
from simserve.inputs.model_shape import AttentionGroup, Experts, LatentAttention, SparseIndexer
from simserve.inputs.model_spec import ATTENTION_BIASES, ModelSpec
from simserve.inputs.quantization import find_format
from simserve.inputs.sourced import read_provenance, refuse_unknown_keys
from simserve.inputs.units import parse_count, parse_quantity
from simserve.inputs.yaml_reader import read_yaml

_SECTIONS: Mapping[str, type] = MappingProxyType(
    {"mla": LatentAttention, "indexer": SparseIndexer, "experts": Experts}
)
_WIDTHS = ("weight_bytes_per_value", "kv_bytes_per_value")
_TEXTS = ("name", "hf_id")
# Counts that may be 0: no dense FFN beside experts, nothing learned, nothing extra.
_MAY_BE_ZERO = ("ffn_size", "learned_positions", "extra_values_per_layer", "shared_ffn_size")
_KEYS = ("aliases", *(one.name for one in fields(ModelSpec)))


def list_models() -> tuple[str, ...]:
    """Return the names of the models in the catalogue, sorted."""
    return tuple(sorted(path.stem for path in (CATALOGUE / "models").glob("*.yaml")))


def load_model(name: str, where: str = "--model", which: str = "model") -> ModelSpec:
    """Return the model ``name``: of the catalogue, by its name, an alias or its Hugging Face id,
    or the path of a ``config.json`` or of a folder that has one.

    Raises:
        InputError: if there is none, naming the nearest; or if its file is not right.
    """  # noqa: D205 (one sentence)
    if is_config_path(name):
        return load_config(name, where, which)
    return _read_catalogue_model(find_name(name, _spellings(), where, which))


@functools.cache
def _read_catalogue_model(name: str) -> ModelSpec:
    path = CATALOGUE / "models" / f"{name}.yaml"
    return read_model(read_yaml(path), str(path))


@functools.cache
def _spellings() -> Mapping[str, str]:
    spellings: dict[str, str] = {}
    for name in list_models():
        path = CATALOGUE / "models" / f"{name}.yaml"
        entry = read_yaml(path)
        for spelling in (name, entry["hf_id"], *entry.get("aliases", ())):
            other = spellings.setdefault(normal_name(spelling), name)
            if other != name:
                raise InputError(str(path), "aliases", spelling, f"a name that {other} has not")
    return MappingProxyType(spellings)


def read_model(entry: Mapping[str, Any], where: str) -> ModelSpec:
    """Return the model that a catalogue file's mapping describes; refuse an unsourced one."""
    refuse_unknown_keys(entry, _KEYS, where)
    provenance = read_provenance(entry, where, "")
    values: dict[str, Any] = {
        "kind": provenance.kind,
        "source": provenance.source,
        "date": provenance.date,
    }
    for one in fields(ModelSpec):
        if one.name not in values and (one.name in entry or _is_required(one)):
            values[one.name] = _read_field(one.name, entry.get(one.name), where)
    model = ModelSpec(**values)
    _refuse_contradictions(model, where)
    return model


def _read_field(key: str, value: object, where: str) -> Any:
    if key in _SECTIONS:
        return _read_section(_SECTIONS[key], value, where, key)
    if key == "groups":
        if not isinstance(value, list):
            raise InputError(where, key, value, "a list of mappings")
        return tuple(
            _read_section(AttentionGroup, one, where, f"{key}[{index}]")
            for index, one in enumerate(value)
        )
    if key == "weights":
        return find_format(_text(value, where, key), where, key)
    if key in _TEXTS:
        return _text(value, where, key)
    if key == "attention_bias":
        if value not in ATTENTION_BIASES:
            raise InputError(where, key, value, ", ".join(ATTENTION_BIASES))
        return value
    if key in _WIDTHS:
        return _positive_number(value, where, key)
    kind = next(one.type for one in fields(ModelSpec) if one.name == key)
    return _scalar(kind, value, where, key, key)


def _read_section(part: type, value: object, where: str, which: str) -> Any:
    """Return the dataclass ``part`` of counts and flags that a mapping describes."""
    if not isinstance(value, Mapping):
        raise InputError(where, which, "nothing" if value is None else value, "a mapping")
    known = fields(part)
    refuse_unknown_keys(value, tuple(one.name for one in known), where, which)
    return part(
        **{
            one.name: _scalar(one.type, value.get(one.name), where, f"{which}.{one.name}", one.name)
            for one in known
            if one.name in value or _is_required(one)
        }
    )


def _scalar(kind: object, value: object, where: str, which: str, key: str) -> Any:
    """Return a flag or a count, as the field's annotation says."""
    if kind in ("bool", bool):
        if not isinstance(value, bool):
            raise InputError(where, which, "nothing" if value is None else value, "true or false")
        return value
    return _count(value, where, which, 0 if key in _MAY_BE_ZERO else 1)


def _is_required(one: Field[Any]) -> bool:
    return one.default is MISSING and one.default_factory is MISSING


def _text(value: object, where: str, which: str) -> str:
    if not isinstance(value, str):
        raise InputError(where, which, "nothing" if value is None else value, "text")
    return value


def _refuse_contradictions(model: ModelSpec, where: str) -> None:
    for group in model.attention_groups:
        if model.attention_heads % group.kv_heads:
            allowed = f"a divisor of attention_heads ({model.attention_heads})"
            raise InputError(where, "kv_heads", group.kv_heads, allowed)
    grouped = sum(group.layers for group in model.attention_groups)
    if grouped != model.layers:
        raise InputError(where, "groups", f"{grouped} layers", f"{model.layers} layers in all")
    experts = model.experts
    if experts and (experts.layers > model.layers or experts.per_token > experts.count):
        allowed = f"at most {model.layers} layers and {experts.count} experts per token"
        raise InputError(where, "experts", f"{experts.layers}, {experts.per_token}", allowed)
    if not model.ffn_size and (experts is None or experts.layers < model.layers):
        raise InputError(where, "ffn_size", 0, "an integer of at least 1 for the dense layers")


def _count(value: object, where: str, key: str, lowest: int) -> int:
    allowed = f"an integer of at least {lowest}"
    try:
        count = parse_count(value, allowed)
    except ValueError:
        count = -1
    if count < lowest:
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
