"""The latency model of a deployment as it is, and on hardware that differs in one thing.

A roofline is built again from changed figures. A measured profile holds for the part that it was
measured on: only its host times are separate numbers that can be set to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from simserve.errors import InputError
from simserve.inputs.hardware_profile import GpuSpec
from simserve.inputs.sourced import Sourced
from simserve.latency.load import LATENCY_MODELS, load_latency_model
from simserve.latency.model import StepLatencyModel

if TYPE_CHECKING:
    from simserve.inputs.deployment import Deployment
    from simserve.latency.tables.host_file import HostTerms

LatencyOf = Callable[["Deployment"], StepLatencyModel]

_NOTHING = Sourced(0.0, "assumed", "set to nothing, to see what it costs", "")
_HOST_KEYS = ("host_step_s", "host_per_seq_s")


def is_measured(deployment: Deployment) -> bool:
    """Return whether the deployment's steps are priced from a profile, not from a roofline."""
    return deployment.latency.replace("_", "-") not in LATENCY_MODELS


def as_it_is(deployment: Deployment) -> StepLatencyModel:
    """Return the deployment's own model."""
    return load_latency_model(deployment)


def without_host_time(deployment: Deployment) -> StepLatencyModel:
    """Return the model with a host that takes no time; the GPU's time stays what it is."""
    quick = _with_efficiency(deployment.gpu, dict.fromkeys(_HOST_KEYS, _NOTHING))
    if not is_measured(deployment):
        return load_latency_model(replace(deployment, gpu=quick))
    from simserve.latency.tables.profile import find_profile, read_profile
    from simserve.latency.tables.table_model import TableModel

    folder = find_profile(deployment.latency, deployment.gpu.name)
    if folder is None:
        raise InputError("deployment", "latency", deployment.latency, "a folder with profile.yaml")
    profile = read_profile(folder)
    if profile.host is not None:
        profile = replace(profile, host=_no_host(profile.host))
    return TableModel(
        profile,
        deployment.model,
        quick,
        deployment.tp,
        async_scheduling=deployment.engine.async_scheduling,
        allow_extrapolation=deployment.allow_extrapolation,
    )


def twice_the_bandwidth(deployment: Deployment) -> StepLatencyModel:
    """Return the model with memory that is twice as fast."""
    gpu = deployment.gpu
    return load_latency_model(
        replace(deployment, gpu=replace(gpu, hbm_bytes_per_s=2 * gpu.hbm_bytes_per_s))
    )


def twice_the_flops(deployment: Deployment) -> StepLatencyModel:
    """Return the model with twice the operations per second, in every number format."""
    rates = {name: 2 * rate for name, rate in deployment.gpu.flops_per_s.items()}
    return load_latency_model(replace(deployment, gpu=replace(deployment.gpu, flops_per_s=rates)))


def _with_efficiency(gpu: GpuSpec, changes: Mapping[str, Sourced]) -> GpuSpec:
    return replace(gpu, efficiency={**gpu.efficiency, **changes})


def _no_host(terms: HostTerms) -> HostTerms:
    times: dict[str, Any] = {
        field.name: _NOTHING
        for field in fields(terms)
        if isinstance(getattr(terms, field.name), Sourced)
    }
    return replace(terms, **times)
