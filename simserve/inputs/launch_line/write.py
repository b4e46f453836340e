"""Prints the launch line of a deployment: the shortest one that means the same.

A line cannot say everything that a deployment can: the GPU, the latency model, and what vLLM
measures itself at start-up are not in it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from simserve.errors import InputError
from simserve.inputs.engine_defaults import load_engine
from simserve.inputs.engine_resolution import EngineRequest, resolve_engine
from simserve.inputs.launch_line.flag_table import Flag, vllm_table
from simserve.inputs.model_catalogue import load_model
from simserve.inputs.validation import Origins

if TYPE_CHECKING:
    from simserve.inputs.deployment import Deployment
    from simserve.inputs.model_spec import ModelSpec

VLLM_SCHEDULER, DATA_PARALLEL_ROUTER = "chunked-prefill", "least-loaded"
_GIVEN = "given"
_WHERE = "launch line"
# Formats under the same name here and in --quantization (QuantizationMethods of vLLM 0.33), and
# the one of them that vLLM makes itself out of a 16-bit checkpoint.
_QUANTIZATIONS = ("awq", "fp8", "gptq", "mxfp4")
_MADE_BY_VLLM = "fp8"
_KV_BYTES = 2.0


def to_serve_command(deployment: Deployment) -> str:
    """Return the ``vllm serve`` line that starts one server of ``deployment``.

    Replicas that a load balancer in front takes turns with are servers of their own: the line
    is then that of one of them.

    Raises:
        InputError: if vLLM has no flag for what is deployed.
    """
    if deployment.scheduler != VLLM_SCHEDULER:
        got = deployment.scheduler
        raise InputError(_WHERE, "deployment.scheduler", got, f"{VLLM_SCHEDULER}, as vLLM's is")
    words = ["vllm", "serve", deployment.model.hf_id]
    if deployment.tp > 1:
        words += _words("tp", deployment.tp)
    if deployment.replicas > 1 and deployment.router == DATA_PARALLEL_ROUTER:
        words += _words("replicas", deployment.replicas)
    for setting, value in {**_stored_as(deployment.model), **_needed(deployment)}.items():
        words += _words(setting, value)
    return shlex.join(words)


def remarks_on(deployment: Deployment) -> list[str]:
    """Return what has to be known beside the launch line of ``deployment``."""
    gpu = deployment.gpu.name
    if deployment.replicas > 1 and deployment.router != DATA_PARALLEL_ROUTER:
        remarks = [
            f"one of {deployment.replicas} servers behind a {deployment.router} load balancer, "
            f"each on {deployment.tp} × {gpu}"
        ]
    else:
        remarks = [f"on {deployment.tp * deployment.replicas} × {gpu}"]
    remark = load_engine(deployment.engine_name).remark_on(gpu)
    if remark is not None:
        remarks.append(remark)
    stored = _stored_as(deployment.model).get("quantization", _MADE_BY_VLLM)
    if stored != _MADE_BY_VLLM:
        remarks.append(f"the model's name must be that of a checkpoint in {stored}")
    reserves = _given_reserves(deployment)
    if reserves:
        remarks.append(f"vLLM measures this itself at start-up: {', '.join(reserves)}")
    return remarks


def _words(setting: str, value: Any) -> list[str]:
    flag = vllm_table().for_setting(setting)
    if flag is None:
        raise InputError(
            _WHERE, f"deployment.{setting}", value, "a setting that vLLM has a flag for"
        )
    if flag.takes_no_value:
        return [flag.name if value else _negation(flag)]
    return [flag.name, str(value)]


def _negation(flag: Flag) -> str:
    return next(iter(flag.negations))


def _needed(deployment: Deployment) -> dict[str, Any]:
    """Return the given settings without which the engine would be another, in their order."""
    needed = _given_settings(deployment)
    wanted = _resolved(deployment, needed)
    for setting in list(needed):
        rest = {key: value for key, value in needed.items() if key != setting}
        if _resolved(deployment, rest) == wanted:
            needed = rest
    return needed


def _is_given(deployment: Deployment, setting: str) -> bool:
    return deployment.sources.get(setting, "").startswith(_GIVEN)


def _stored_as(model: ModelSpec) -> dict[str, str]:
    """Return the flags for weights and KV values in another format than the checkpoint's."""
    try:
        native: ModelSpec | None = load_model(model.name)
    except InputError:  # a config.json of one's own: naming its own format does no harm
        native = None
    stored: dict[str, str] = {}
    if model.weights is not None and (native is None or native.weights != model.weights):
        if model.weights.method not in _QUANTIZATIONS:
            allowed = ", ".join(_QUANTIZATIONS) + ": what vLLM 0.33 calls by the same name"
            raise InputError(_WHERE, "deployment.quantization", model.weights.method, allowed)
        stored["quantization"] = model.weights.method
    native_bytes = native.kv_bytes_per_value if native else _KV_BYTES
    if model.kv_bytes_per_value != native_bytes:
        one_byte = model.kv_bytes_per_value == 1
        stored["kv_cache_dtype"] = "fp8" if one_byte else "bfloat16"
    return stored


def _given_settings(deployment: Deployment) -> dict[str, Any]:
    values = asdict(deployment.engine)
    given = {
        key: values[key]
        for key in deployment.sources
        if _is_given(deployment, key) and key in values and values[key] is not None
    }
    if given.pop("num_blocks", None) is not None:
        by_bytes = deployment.sources["num_blocks"].endswith("kv_cache_memory_bytes")
        if by_bytes:
            given["kv_cache_memory_bytes"] = deployment.kv.num_blocks * deployment.kv.block_bytes
        else:
            given["num_gpu_blocks"] = deployment.kv.num_blocks
    return given


def _given_reserves(deployment: Deployment) -> dict[str, int]:
    """Return the memory terms that simserve was told and vLLM cannot be told."""
    told = ("activation_peak", "context", "cuda_graph_pool")
    return {
        f"{term.name}_bytes": term.bytes
        for term in deployment.kv.terms
        if term.kind == _GIVEN and term.name in told
    }


def _resolved(deployment: Deployment, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the engine would be with just ``given``, None if it would not start."""
    request = EngineRequest(
        model=deployment.model,
        gpu=deployment.gpu,
        tp=deployment.tp,
        scheduler=deployment.scheduler,
        given={**given, **_given_reserves(deployment)},
        origins=Origins(_WHERE),
    )
    try:
        resolution = resolve_engine(request, load_engine(deployment.engine_name))
    except InputError:
        return None
    return asdict(resolution.settings)
