"""The latency model that a deployment names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simserve.errors import InputError, known_names
from simserve.latency.model import StepLatencyModel
from simserve.latency.roofline import RooflineModel

if TYPE_CHECKING:
    from simserve.inputs.deployment import Deployment

LATENCY_MODELS = {"roofline": RooflineModel}
"""Latency models by the name that a deployment's ``latency`` gives."""


def load_latency_model(
    deployment: Deployment, *, allow_extrapolation: bool = False
) -> StepLatencyModel:
    """Return the latency model of a deployment: the roofline, or a profile by name or path.

    Raises:
        InputError: if its name is unknown, with the nearest one; if the profile cannot be
            read; or if it is not for this GPU, model, tensor-parallel size or dtype.
    """
    name = deployment.latency.replace("_", "-")
    if name in LATENCY_MODELS:
        return LATENCY_MODELS[name](deployment.model, deployment.gpu, deployment.tp)
    # Tables need numpy and a folder of files: only those who name one pay for them.
    from simserve.latency.tables.profile import find_profile, list_profiles, read_profile
    from simserve.latency.tables.table_model import TableModel

    folder = find_profile(deployment.latency, deployment.gpu.name)
    if folder is None:
        if "/" in deployment.latency or "\\" in deployment.latency:
            allowed = "a folder with profile.yaml"
            raise InputError("deployment", "latency", deployment.latency, allowed)
        known = (*LATENCY_MODELS, *list_profiles(deployment.gpu.name))
        names = known_names(deployment.latency, sorted(known))
        allowed = f"the folder of a profile, or one of {names}"
        raise InputError("deployment", "latency", deployment.latency, allowed)
    return TableModel(
        read_profile(folder),
        deployment.model,
        deployment.gpu,
        deployment.tp,
        async_scheduling=deployment.engine.async_scheduling,
        allow_extrapolation=allow_extrapolation or deployment.allow_extrapolation,
    )
