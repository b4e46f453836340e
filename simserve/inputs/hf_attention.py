"""The attention of a ``config.json``: windows per layer, latent ranks, the sparse indexer."""

from __future__ import annotations

from collections import Counter

from simserve.inputs.hf_families import Family
from simserve.inputs.hf_fields import Fields
from simserve.inputs.model_shape import AttentionGroup, LatentAttention, SparseIndexer

_FULL, _SLIDING, _CHUNKED = "full_attention", "sliding_attention", "chunked_attention"


def read_mla(fields: Fields) -> LatentAttention | None:
    """Return the latent attention, None if there is no ``kv_lora_rank``."""
    rank = fields.optional_count("kv_lora_rank")
    names = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    if not rank:
        given = [name for name in names if fields.optional_count(name)]
        if given:
            raise fields.refuse("kv_lora_rank", "nothing", f"a rank, since {given[0]} is given")
        return None
    nope, rope, value = (fields.count(name) for name in names)
    return LatentAttention(
        kv_rank=rank,
        nope_size=nope,
        rope_size=rope,
        value_size=value,
        q_rank=fields.optional_count("q_lora_rank") or None,
    )


def read_indexer(fields: Fields, mla: LatentAttention | None) -> SparseIndexer | None:
    """Return the sparse indexer, None if there is no ``index_topk``."""
    top_k = fields.optional_count("index_topk")
    if not top_k:
        return None
    if mla is None:
        allowed = "nothing: simserve models it with latent attention only"
        raise fields.refuse("index_topk", top_k, allowed)
    return SparseIndexer(
        heads=fields.count("index_n_heads"),
        head_size=fields.count("index_head_dim"),
        top_k=top_k,
    )


def read_groups(
    fields: Fields, family: Family, layers: int, kv_heads: int, head_size: int, heads: int
) -> tuple[AttentionGroup, ...]:
    """Return the layers by kind of attention; empty if all of them see everything.

    Raises:
        InputError: for a kind that simserve does not model, or a list of another length.
    """
    window = fields.optional_count("sliding_window")
    chunk = fields.optional_count("attention_chunk_size")
    counts = _kinds(fields, family, layers, window, chunk)
    full_heads = fields.optional_count("num_global_key_value_heads") or kv_heads
    full_size = fields.optional_count("global_head_dim") or head_size
    shared = fields.flag("attention_k_eq_v", False)
    if heads % full_heads:
        allowed = f"a divisor of num_attention_heads ({heads})"
        raise fields.refuse("num_global_key_value_heads", full_heads, allowed)
    groups = []
    for kind, width in ((_SLIDING, window), (_CHUNKED, chunk)):
        if not counts[kind]:
            continue
        if not width:
            key = "sliding_window" if kind == _SLIDING else "attention_chunk_size"
            raise fields.refuse(key, "nothing", f"tokens, since layer_types has {kind}")
        groups.append(
            AttentionGroup(
                layers=counts[kind],
                kv_heads=kv_heads,
                head_size=head_size,
                window=width,
                chunked=kind == _CHUNKED,
            )
        )
    if counts[_FULL] and (groups or (full_heads, full_size) != (kv_heads, head_size) or shared):
        groups.append(
            AttentionGroup(
                layers=counts[_FULL],
                kv_heads=full_heads,
                head_size=full_size,
                shared_kv_projection=shared,
            )
        )
    return tuple(groups)


def _kinds(
    fields: Fields, family: Family, layers: int, window: int | None, chunk: int | None
) -> Counter[str]:
    """Return how many layers have which kind of attention."""
    listed = fields.texts("layer_types")
    pattern = fields.optional_count("sliding_window_pattern", "_sliding_window_pattern")
    in_use = fields.flag("use_sliding_window", True)
    first_windowed = fields.optional_count("max_window_layers")
    unrotated = fields.numbers("no_rope_layers")
    every = fields.optional_count("no_rope_layer_interval")
    if listed:
        if len(listed) != layers:
            allowed = f"one entry for each of num_hidden_layers ({layers})"
            raise fields.refuse("layer_types", f"{len(listed)} entries", allowed)
        for kind in listed:
            if kind not in (_FULL, _SLIDING, _CHUNKED):
                raise fields.refuse("layer_types", kind, f"{_FULL}, {_SLIDING}, {_CHUNKED}")
        return Counter(listed)
    if chunk:
        full = unrotated.count(0) if unrotated else layers // (every or family.full_every or 1)
        return Counter({_FULL: full, _CHUNKED: layers - full})
    if not window or not in_use:
        return Counter({_FULL: layers})
    if first_windowed is not None and "use_sliding_window" in fields.values:
        windowed = max(0, layers - first_windowed)
        return Counter({_FULL: layers - windowed, _SLIDING: windowed})
    step = pattern or family.full_every
    if step == 1:
        allowed = "null, or a sliding_window_pattern or layer_types beside it"
        raise fields.refuse("sliding_window", window, allowed)
    full = layers // step if step else 0
    return Counter({_FULL: full, _SLIDING: layers - full})
