"""How far the roofline is off where it was compared least: experts and latent attention.

The figures are those of ``tests/latency/test_roofline_experts.py``: time per output token of
published vLLM servers (InferenceX, 2026) beside the roofline's steps. No constant was fitted
to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_REMARK = (
    "The roofline prices {layers} from a few constants and is hardly validated there: beside 130 "
    "vLLM measurements of three such models (up to 8 requests at once, H200 and B200) its time "
    "per output token is 22 % too short at the median, from 47 % too short to 21 % too long; the "
    "9 to 31 % of dense models do not hold"
)


def remark_on_bf16(gpu: str, numbers: Mapping[str, Any]) -> str | None:
    """Return what has to be said of a part with a rate for fp16 alone; None if nothing.

    ``numbers`` are those of its profile, by their dotted names.
    """
    if "flops_per_s.bf16" in numbers or "flops_per_s.fp16" not in numbers:
        return None
    return f"{gpu} has no bf16: what the model computes in 16 bits is priced as fp16"


def remark_on(latency: str, model: Mapping[str, Any]) -> str | None:
    """Return what has to be said of ``latency`` for a model; None if nothing.

    ``model`` is one as ``ModelSpec.described`` gives it, so that saved runs have it too.
    """
    layers = [
        name
        for key, name in (("experts", "mixture-of-experts"), ("mla", "latent-attention"))
        if model.get(key) is not None
    ]
    if latency != "roofline" or not layers:
        return None
    return _REMARK.format(layers=f"{' and '.join(layers)} layers")
