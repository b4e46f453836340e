"""Latency models by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simserve.errors import InputError
from simserve.inputs.deployment import Deployment, read_deployment
from simserve.latency.load import load_latency_model
from simserve.latency.roofline import RooflineModel
from simserve.records.step import StepShape


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    return read_deployment({"model": "llama-3.1-70b", "gpu": "h100-sxm", "tp": 4})


def test_roofline_is_built_from_the_deployment(deployment: Deployment) -> None:
    shape = StepShape(64, 64_000)
    direct = RooflineModel(deployment.model, deployment.gpu, deployment.tp)
    assert load_latency_model(deployment).step_s(shape) == direct.step_s(shape)


def test_unknown_latency_model_suggests_the_nearest(deployment: Deployment) -> None:
    with pytest.raises(InputError, match=r"latency: got roofine.*did you mean roofline"):
        load_latency_model(replace(deployment, latency="roofine"))
