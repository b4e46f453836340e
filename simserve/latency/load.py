"""The latency model that a deployment names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simserve.errors import unknown_name
from simserve.latency.model import StepLatencyModel
from simserve.latency.roofline import RooflineModel

if TYPE_CHECKING:
    from simserve.inputs.deployment import Deployment

LATENCY_MODELS = {"roofline": RooflineModel}
"""Latency models by the name that a deployment's ``latency`` gives."""


def load_latency_model(deployment: Deployment) -> StepLatencyModel:
    """Return the latency model of a deployment.

    Raises:
        InputError: if its name is unknown, with the nearest one.
    """
    name = deployment.latency.replace("_", "-")
    if name not in LATENCY_MODELS:
        raise unknown_name("deployment", "latency", deployment.latency, LATENCY_MODELS)
    return LATENCY_MODELS[name](deployment.model, deployment.gpu, deployment.tp)
