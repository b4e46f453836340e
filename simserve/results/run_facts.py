"""What a result must know of its scenario: enough to label it without the scenario's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import simserve
from simserve.inputs.engine_defaults import load_engine
from simserve.inputs.slo import ClassSlo, Objective, Slo, parse_slo
from simserve.latency.roofline_trust import remark_on, remark_on_bf16

if TYPE_CHECKING:
    from simserve.inputs.deployment import Deployment
    from simserve.inputs.scenario import Scenario
    from simserve.inputs.workload import TraceSpec, WorkloadSpec

# A fixed instant: the same inputs and seed must give the same bytes.
DEFAULT_START = "20260101-000000"
_ALSO_IN_SOURCES = ("cuda_reserved",)
_ONLY_BETWEEN_GPUS = (
    "link_bytes_per_s",
    "link_domain",
    "efficiency.link_efficiency",
    "efficiency.collective_latency_s",
)
_ONLY_OF_EXPERTS = ("efficiency.expert_gemm_efficiency", "efficiency.expert_launch_s")
_ONLY_OF_LATENTS = ("efficiency.latent_launch_s",)
_SHOWN_LIMITS = ("max_num_seqs", "max_num_batched_tokens", "num_blocks")
# What JSON may hold for a field of ``RunFacts``, by its annotation.
_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "bool": bool,
    "float | str | None": (int, float, str, type(None)),
    "dict[str, Any]": dict,
    "tuple[dict[str, Any], ...]": tuple,
}
# Tokens; far beyond any engine, and harmless in 64-bit arithmetic.
_LARGEST_BLOCK = 1 << 31
_DATE_FORMAT = "%Y%m%d-%H%M%S"  # that of `vllm bench serve`


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Labels and settings of a run; everything in it can be written as JSON.

    ``request_rate`` is requests per second, ``"inf"`` for all at once, or None for a trace;
    ``burstiness`` is a number or ``"inf"`` (equal gaps), None for a trace.
    """

    version: str
    name: str
    model: str
    hf_id: str
    gpu: str
    tp: int
    replicas: int
    engine: str
    limits: str  # the main limits and whose they are
    scheduler: str
    async_scheduling: bool
    router: str
    latency: str
    block_size: int
    seed: int
    start: str
    request_rate: float | str | None
    burstiness: float | str | None
    traffic: str
    digest: str
    assumed_numbers: int
    resolved: dict[str, Any]
    objectives: tuple[dict[str, Any], ...]
    classes: tuple[dict[str, Any], ...] = ()  # name, and limits in ms by objective (or None)

    def remark(self) -> str | None:
        """Return what has to be said of engine, GPU and latency model; None if nothing."""
        deployment = self.resolved.get("deployment", {})
        numbers = deployment.get("gpu", {}).get("numbers", {})
        return _remark(self.gpu, numbers, self.latency, deployment.get("model", {}))

    def slo(self) -> Slo | None:
        """Return the objectives of all that have none of their own, if any were given."""
        if not self.objectives:
            return None
        return Slo(objectives=tuple(Objective(**entry) for entry in self.objectives))

    def class_slos(self) -> tuple[ClassSlo, ...]:
        """Return the classes of requests, with the objectives that each has of its own."""
        where = "facts.classes"
        return tuple(
            ClassSlo(one["name"], parse_slo(one["slo"], where) if one["slo"] else None)
            for one in self.classes
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as JSON-able data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entry: dict[str, Any]) -> RunFacts:
        """Return the facts that ``as_dict`` wrote.

        Raises:
            TypeError, ValueError, KeyError: if it did not write them.
        """
        listed = {"objectives": entry["objectives"], "classes": entry.get("classes", ())}
        facts = cls(**{**entry, **{name: tuple(value) for name, value in listed.items()}})
        for field in fields(cls):
            value = getattr(facts, field.name)
            types = _TYPES.get(str(field.type), object)
            if not isinstance(value, types) or (types is int and isinstance(value, bool)):
                raise TypeError(f"facts.{field.name} is {value!r:.60}")
        if not 1 <= facts.block_size <= _LARGEST_BLOCK:
            raise ValueError(f"facts.block_size is {facts.block_size}")
        for one in facts.objectives:
            _check_objective(**one)
        for one in facts.classes:
            _check_class(**one)
        return facts


def _check_objective(metric: str, percentile: float | None, limit_ms: float) -> None:
    """Refuse an objective that no file of objectives can have said."""
    name = metric if percentile is None else f"{metric}_p{percentile}"
    [read] = parse_slo({name: limit_ms}, "facts.objectives").objectives
    if read != Objective(metric, percentile, limit_ms):
        raise ValueError(f"facts.objectives has {name}: {limit_ms}")


def _check_class(name: str, slo: dict[str, float] | None) -> None:
    """Refuse a class that no workload can have had."""
    if not isinstance(name, str) or not (slo is None or isinstance(slo, dict)):
        raise TypeError(f"facts.classes has {name!r:.60}: {slo!r:.60}")
    if slo is not None and parse_slo(slo, "facts.classes").limits_ms() != slo:
        raise ValueError(f"facts.classes has {name}: {slo!r:.60}")


def facts_of(scenario: Scenario) -> RunFacts:
    """Return the facts of a scenario."""
    deployment = scenario.deployment
    rate, burstiness = _arrivals(scenario.workload)
    objectives = scenario.slo.objectives if scenario.slo is not None else ()
    return RunFacts(
        version=simserve.__version__,
        name=scenario.name,
        model=deployment.model.name,
        hf_id=deployment.model.hf_id,
        gpu=deployment.gpu.name,
        tp=deployment.tp,
        replicas=deployment.replicas,
        engine=f"{deployment.engine_name} {deployment.engine_version}",
        limits=_limits(deployment),
        scheduler=deployment.scheduler,
        async_scheduling=deployment.engine.async_scheduling,
        router=deployment.router,
        latency=deployment.latency,
        block_size=deployment.engine.block_size,
        seed=scenario.seed,
        start=_start(getattr(scenario, "start_date", None)),
        request_rate=rate,
        burstiness=burstiness,
        traffic=_traffic(scenario.workload),
        digest=scenario.digest(),
        assumed_numbers=assumed_numbers(deployment),
        resolved=scenario.resolved(),
        objectives=tuple(
            {"metric": entry.metric, "percentile": entry.percentile, "limit_ms": entry.limit_ms}
            for entry in objectives
        ),
        classes=tuple(
            {"name": one.name, "slo": None if one.slo is None else one.slo.limits_ms()}
            for one in scenario.workload.classes or ()
        ),
    )


def assumed_numbers(deployment: Deployment) -> int:
    """Return how many numbers behind the answer nobody has measured or published."""
    return len(assumed_names(deployment))


def remark_of(deployment: Deployment) -> str | None:
    """Return what a run of ``deployment`` would remark (``RunFacts.remark``); None if nothing."""
    gpu = deployment.gpu
    return _remark(gpu.name, gpu.sources, deployment.latency, deployment.model.described())


def _remark(
    gpu: str, numbers: Mapping[str, Any], latency: str, model: Mapping[str, Any]
) -> str | None:
    said = (
        load_engine().remark_on(gpu),
        remark_on_bf16(gpu, numbers),
        remark_on(latency, model),
    )
    return ". ".join(one for one in said if one is not None) or None


def assumed_names(deployment: Deployment) -> list[str]:
    """Return the names of those numbers: of the GPU's profile, then of its memory."""
    names = [
        name
        for name, entry in deployment.gpu.sources.items()
        if entry.kind == "assumed"
        and is_used(
            name,
            tp=deployment.tp,
            experts=deployment.model.experts is not None,
            latent=deployment.model.mla is not None,
        )
    ]
    return names + [
        term.name
        for term in deployment.kv.terms
        if term.kind == "assumed" and term.name not in _ALSO_IN_SOURCES
    ]


def is_used(name: str, *, tp: int, experts: bool, latent: bool) -> bool:
    """Return whether an answer rests on the number ``name`` of the GPU's profile."""
    if name in _ONLY_BETWEEN_GPUS:
        return tp > 1
    if name in _ONLY_OF_EXPERTS:
        return experts
    return latent or name not in _ONLY_OF_LATENTS


def _limits(deployment: Deployment) -> str:
    """Return the limits that decide most, grouped by where they come from."""
    by_source: dict[str, list[str]] = {}
    for name in _SHOWN_LIMITS:
        text = f"{name} {getattr(deployment.engine, name)}"
        by_source.setdefault(deployment.sources[name], []).append(text)
    return "; ".join(f"{', '.join(texts)} ({source})" for source, texts in by_source.items())


def _arrivals(workload: WorkloadSpec) -> tuple[float | str | None, float | str | None]:
    arrivals = workload.arrivals
    if arrivals is None:
        return None, None
    if arrivals.process in ("all-at-once", "closed-loop"):
        return "inf", 1.0
    if arrivals.process == "constant":
        return arrivals.rate_per_s, "inf"
    rate = "inf" if arrivals.ramp_up is not None else arrivals.rate_per_s  # as vLLM writes a ramp
    return rate, arrivals.burstiness or 1.0


def _traffic(workload: WorkloadSpec) -> str:
    if workload.trace is not None:
        return f"trace {workload.trace.file}{_part(workload.trace)}"
    arrivals = workload.arrivals
    if arrivals is None or arrivals.process == "all-at-once":
        return "all at once"
    if arrivals.users is not None:
        return f"{arrivals.users:,} users, who think {arrivals.think_time_s or 0:g} s on average"
    if arrivals.rate_per_s is None:
        return f"{arrivals.process} arrivals at changing rates"
    return f"{arrivals.process} arrivals at {arrivals.rate_per_s:g}/s"


def _part(trace: TraceSpec) -> str:
    """Return which part of a trace was asked for, and how fast, in words."""
    said = [
        f"{word} {value:g}{unit}"
        for word, value, unit in (
            ("from", trace.from_s, " s"),
            ("to", trace.to_s, " s"),
            ("first", trace.head, ""),
            ("at", trace.rate_per_s, "/s"),
            ("times ×", trace.time_scale, ""),
        )
        if value is not None
    ]
    return f" ({', '.join(said)})" if said else ""


def _start(given: object) -> str:
    """Return the simulated start as `vllm bench serve` writes a date."""
    if given is None:
        return DEFAULT_START
    if isinstance(given, date):
        return given.strftime(_DATE_FORMAT)
    text = str(given)
    try:
        return datetime.fromisoformat(text).strftime(_DATE_FORMAT)
    except ValueError:
        return text
