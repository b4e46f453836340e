"""What a file stands for, as flat rows: key, value, unit, and where the value comes from."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from simserve.inputs.deployment import Deployment
    from simserve.inputs.hardware_profile import GpuSpec
    from simserve.inputs.launch_line import LaunchLine
    from simserve.inputs.model_spec import ModelSpec
    from simserve.inputs.scenario import Scenario
    from simserve.inputs.workload import WorkloadSpec
    from simserve.parity.case import Case
    from simserve.traffic.trace_stats import TraceStats

GIVEN = "given"
_GIVEN_OR_NOT = "given, or the default"
_DERIVED = "derived"


class Value(NamedTuple):
    """One resolved value; the unit is empty for names, flags and plain counts."""

    key: str
    value: Any
    unit: str
    source: str


# By the last words of a key, longest first where one ends with another.
_UNITS_BY_ENDING = (
    ("bytes_per_s", "bytes/s"),
    ("bytes_per_value", "bytes/value"),
    ("bytes_per_token", "bytes/token"),
    ("tokens_per_s", "tokens/s"),
    ("per_token_s", "s/token"),
    ("per_seq_s", "s/sequence"),
    ("rate_per_s", "requests/s"),
    ("_per_s", "1/s"),
    ("_bytes", "bytes"),
    ("_tokens", "tokens"),
    ("_frac", "fraction"),
    ("_efficiency", "fraction"),
    ("_ms", "ms"),
    ("_s", "s"),
)
_UNITS_BY_NAME = {
    "max_num_seqs": "sequences",
    "max_num_active_seqs": "sequences",
    "max_num_batched_tokens": "tokens",
    "max_model_len": "tokens",
    "max_position_embeddings": "tokens",
    "block_size": "tokens",
    "num_blocks": "blocks",
    "gpu_memory_utilization": "fraction",
    "watermark": "fraction",
    "tp": "GPUs",
    "long_prefill_token_threshold": "tokens",
    "tokens": "tokens",
    "parameters": "values",
    "num_requests": "requests",
}

# The numbers that describe lengths in tokens.
_LENGTHS = re.compile(r".*tokens\.(fixed|median|mean|p95|p99|min|max|histogram\.(upto|above))")


def unit_of(key: str) -> str:
    """Return the unit that the dotted ``key`` names, empty if it has none."""
    if "flops_per_s" in key:
        return "FLOP/s"
    if _LENGTHS.fullmatch(key):
        return "tokens"
    if ".slo." in key:
        return "ms"
    name = key.rpartition(".")[2]
    if name in _UNITS_BY_NAME:
        return _UNITS_BY_NAME[name]
    return next((unit for ending, unit in _UNITS_BY_ENDING if f"_{name}".endswith(ending)), "")


def scenario_values(scenario: Scenario) -> list[Value]:
    """Return every value that decides a run of ``scenario``."""
    found = [Value("name", scenario.name, "", _GIVEN_OR_NOT)]
    found.append(Value("seed", scenario.seed, "", _GIVEN_OR_NOT))
    if scenario.start_date is not None:
        found.append(Value("start_date", scenario.start_date, "", GIVEN))
    found += workload_values(scenario.workload)
    for one in scenario.slo.objectives if scenario.slo is not None else ():
        found.append(Value(f"slo.{one.name}", one.limit_ms, "ms", GIVEN))
    return found + deployment_values(scenario.deployment)


def workload_values(workload: WorkloadSpec) -> list[Value]:
    """Return what a workload says, defaults of its process included."""
    content = workload.model_dump(mode="json", exclude_none=True)
    given = set(_leaves(workload.model_dump(mode="json", exclude_unset=True), "workload"))
    return [
        Value(key, value, unit_of(key), GIVEN if key in given else "default")
        for key, value in _leaves(content, "workload").items()
    ]


def deployment_values(deployment: Deployment) -> list[Value]:
    """Return what is deployed, every engine setting and memory term."""
    found = [
        Value("deployment.tp", deployment.tp, "GPUs", _GIVEN_OR_NOT),
        Value("deployment.replicas", deployment.replicas, "", _GIVEN_OR_NOT),
        Value("deployment.router", deployment.router, "", _GIVEN_OR_NOT),
        Value("deployment.scheduler", deployment.scheduler, "", _GIVEN_OR_NOT),
        Value("deployment.latency", deployment.latency, "", _GIVEN_OR_NOT),
        Value("deployment.allow_extrapolation", deployment.allow_extrapolation, "", _GIVEN_OR_NOT),
    ]
    settings = dataclasses.asdict(deployment.engine)
    for key, source in deployment.sources.items():
        found.append(Value(f"engine.{key}", settings[key], unit_of(key), source))
    for term in deployment.kv.terms:
        source = f"{term.kind}: {term.source}"
        found.append(Value(f"memory.{term.name}", term.bytes, "bytes", source))
    found.append(Value("memory.kv_block", deployment.kv.block_bytes, "bytes", _DERIVED))
    found += [one._replace(key=f"model.{one.key}") for one in model_values(deployment.model)]
    return found + [one._replace(key=f"gpu.{one.key}") for one in device_values(deployment.gpu)]


def model_values(model: ModelSpec) -> list[Value]:
    """Return a model's shape, and what follows from it."""
    source = f"{model.kind}: {model.source}" + (f" ({model.date})" if model.date else "")
    described = model.described()
    skipped = ("kind", "source", "date", "parameters")
    found = [
        Value(key, value, unit_of(key), source)
        for name, part in described.items()
        if name not in skipped and part is not None and part != []
        for key, value in _leaves(part, name).items()
    ]
    found.append(Value("parameters", described["parameters"], "values", _DERIVED))
    found.append(Value("weight_bytes", model.weight_bytes(), "bytes", _DERIVED))
    found.append(Value("kv_bytes_per_token", model.kv_bytes_per_token(), "bytes/token", _DERIVED))
    return found


def device_values(gpu: GpuSpec) -> list[Value]:
    """Return every number of a hardware profile."""
    found = [Value("name", gpu.name, "", GIVEN), Value("family", gpu.family, "", GIVEN)]
    for key, one in gpu.sources.items():
        found.append(Value(key, one.value, unit_of(key), one.described()))
    return found


def trace_values(stats: TraceStats) -> list[Value]:
    """Return what a trace looks like in a dozen numbers."""
    return [
        Value(key, value, unit_of(key), "counted")
        for key, value in _leaves(dataclasses.asdict(stats), "").items()
        if value is not None and key not in ("format", "notes")
    ] + [Value("format", stats.format, "", "detected")]


def launch_values(line: LaunchLine) -> list[Value]:
    """Return what a launch line sets, and which words of it do so."""
    found = [Value("engine", line.engine, "", "the program that is started")]
    for key, value in line.deployment.items():
        found.append(Value(key, value, unit_of(key), line.origins.get(key, _DERIVED)))
    if line.gpus is not None:
        found.append(Value("gpus", line.gpus.count, "GPUs", line.gpus.said_by))
    return found + [Value("note", note, "", "") for note in line.notes]


def case_values(case: Case) -> list[Value]:
    """Return the settings of a scheduler case, and how many requests it has."""
    from simserve.parity.case_file import settings_of
    from simserve.records.clock import PS_PER_S

    found = [Value("name", case.name, "", GIVEN)]
    found.append(Value("requests", len(case.requests), "requests", "counted"))
    for name, value_ps in dataclasses.asdict(case.step_time).items():
        key = f"step_time.{name.removesuffix('_ps')}_s"
        found.append(Value(key, value_ps / PS_PER_S, "s", GIVEN))
    for part, settings in settings_of(case.limits).items():
        for key, value in settings.items():
            if value is not None:
                found.append(Value(f"{part}.{key}", value, unit_of(key), _GIVEN_OR_NOT))
    return found


def _leaves(content: object, path: str) -> dict[str, Any]:
    return dict(_leaf_pairs(content, path))


def _leaf_pairs(content: object, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the scalars of nested mappings; short lists of scalars stay whole."""
    if isinstance(content, Mapping):
        for key, inner in content.items():
            yield from _leaf_pairs(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(content, list | tuple) and any(isinstance(one, Mapping) for one in content):
        for at, inner in enumerate(content):
            yield from _leaf_pairs(inner, f"{path}[{at}]")
    else:
        yield path, list(content) if isinstance(content, tuple) else content
