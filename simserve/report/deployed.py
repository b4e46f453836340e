"""A deployment in a few words: the model, how it is stored, and on what it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simserve.inputs.deployment import Deployment
from simserve.results.run_facts import RunFacts

_BITS_PER_BYTE = 8
_USUAL_KV_BYTES = 2.0  # a value of 16 bits, which every catalogued model keeps


def deployed(deployment: Deployment) -> str:
    """Return such as ``llama-3.1-70b, fp8 weights, on 4 × h100-sxm (tp 4)``."""
    model = stored(deployment.model.name, deployment.model.described())
    gpus = deployment.tp * deployment.replicas
    return f"{model}, on {gpus} × {deployment.gpu.name} (tp {deployment.tp})"


def stored_of_run(facts: RunFacts) -> str:
    """Return the name and formats of a run's model."""
    return stored(facts.model, facts.resolved.get("deployment", {}).get("model", {}))


def stored(name: str, model: Mapping[str, Any]) -> str:
    """Return a model's name with the formats that ``model``, a resolved one, is stored in.

    Of a model that says nothing of it, such as a measured run's, the name alone.
    """
    said = [name]
    weights, width = model.get("weights"), model.get("weight_bytes_per_value")
    if weights is not None:
        covered = " expert" if weights["experts_only"] else ""
        said.append(f"{weights['method']}{covered} weights")
    elif width is not None:
        said.append(f"{width * _BITS_PER_BYTE:g}-bit weights")
    kv_bytes = model.get("kv_bytes_per_value", _USUAL_KV_BYTES)
    if kv_bytes != _USUAL_KV_BYTES:
        said.append(f"{kv_bytes * _BITS_PER_BYTE:g}-bit KV cache")
    return ", ".join(said)
