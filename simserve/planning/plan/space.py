"""What may be deployed: the product of a few axes, each point resolved as a deployment.

Every axis stands with its preferred value first: 16-bit weights before quantised ones, the
engine's own limits before others. Of two plans that are equal otherwise that one is the answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from simserve.errors import DoesNotFitError, InputError
from simserve.inputs.deployment import (
    ROUTER_NAMES,
    Deployment,
    DeploymentSpec,
    resolve_deployment,
)
from simserve.inputs.engine_defaults import load_engine
from simserve.inputs.hardware_profile import load_gpu
from simserve.inputs.model_catalogue import load_model
from simserve.inputs.plan_spec import PlanSpec
from simserve.inputs.prices import PriceBook
from simserve.inputs.prices_file import Terms
from simserve.inputs.quantization import find_format, find_kv_bytes
from simserve.inputs.validation import Origins, validate

# The most GPUs in one machine of the price list's common kinds.
TP_SIZES = (1, 2, 4, 8)
WEIGHTS = (None, "fp8", "awq")
KV_DTYPES = (None, "fp8")
# The engine's own limits; less interference of prefills with decodes; a small batch besides.
LIMITS: tuple[Mapping[str, Any], ...] = (
    {},
    {"max_num_batched_tokens": 2048, "max_num_seqs": 256},
    {"max_num_batched_tokens": 512, "max_num_seqs": 128},
)
# Models are served in bf16: a GPU without a rate for it would have to run something else.
_RATE = "bf16"
_RATE_BITS = 16
_BITS_PER_BYTE = 8
# What a cell may say for "as the checkpoint is", or "the engine's own".
_UNSET = ("none", "auto", "default", "")

Fate = Literal["impossible", "memory"]
Settings = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One point: a replica and its router. ``fate`` and ``error`` say why it cannot be."""

    number: int  # in order of preference
    settings: Settings  # only what is varied, by key of the deployment
    deployment: Deployment | None
    fate: Fate | None = None
    error: InputError | None = None

    @property
    def router(self) -> str:
        """How requests are divided among replicas."""
        return str(self.settings["router"])

    @property
    def gpu(self) -> str:
        """The catalogue's name of the GPU."""
        return str(self.settings["gpu"])

    @property
    def tp(self) -> int:
        """GPUs per replica."""
        return int(self.settings["tp"])

    @property
    def coarsening(self) -> tuple[int, int]:
        """How much coarser the model is than as given: bits that a value loses, kinds of values.

        The kinds are weights and KV values; of both, the bits are those of the coarser one.
        """
        if self.deployment is None:
            return 0, 0
        model, bits = self.deployment.model, []
        if self.settings.get("quantization") and model.weights is not None:
            bits.append(model.weights.bits)
        if self.settings.get("kv_cache_dtype"):
            bits.append(round(model.kv_bytes_per_value * _BITS_PER_BYTE))
        coarser = [one for one in bits if one < _RATE_BITS]
        return _RATE_BITS - min(coarser, default=_RATE_BITS), len(coarser)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """The values of every axis; ``limits`` are settings that go together."""

    values: Mapping[str, tuple[Any, ...]]
    limits: tuple[Mapping[str, Any], ...]

    def points(self) -> Iterator[Settings]:
        """Yield every combination; GPU and TP vary fastest."""
        keys = [key for key in self.values if key not in ("gpu", "tp")]
        slow = itertools.product(*(self.values[key] for key in keys), self.limits)
        for *chosen, limits in slow:
            for gpu, tp in itertools.product(self.values["gpu"], self.values["tp"]):
                yield {"gpu": gpu, "tp": tp, **dict(zip(keys, chosen, strict=True)), **limits}

    @property
    def size(self) -> int:
        """How many points there are."""
        count = len(self.limits)
        for values in self.values.values():
            count *= len(values)
        return count


def axes_for(
    spec: DeploymentSpec,
    plan: PlanSpec,
    prices: PriceBook,
    terms: Terms,
    fixed: frozenset[str] = frozenset(),
    model_from: str = "--model",
) -> Axes:
    """Return the axes: the usual ones, those of ``plan`` over them, what is ``fixed`` alone.

    ``fixed`` are keys of the deployment that the command line gives; ``model_from`` says where
    the model was given.

    Raises:
        InputError: if there is no such model.
    """
    native = load_model(spec.model, model_from, "deployment.model").weights is not None
    values: dict[str, tuple[Any, ...]] = {
        "quantization": (None,) if native else WEIGHTS,
        "kv_cache_dtype": KV_DTYPES,
        "router": ROUTER_NAMES,
        "gpu": priced_gpus(prices, terms),
        "tp": TP_SIZES,
    }
    limits = LIMITS if plan.limits is None else plan.limits
    varied = {key.replace("-", "_"): tuple(map(_given, found)) for key, found in plan.vary.items()}
    values |= varied
    in_limits = {key for one in limits for key in one}
    for key in sorted(fixed & (values.keys() | in_limits)):
        values[key] = (getattr(spec, key),)
    alone = set(values)
    limits = tuple(
        {key: _given(value) for key, value in one.items() if key not in alone} for one in limits
    )
    distinct = [one for at, one in enumerate(limits) if one not in limits[:at]]
    return Axes(values=values, limits=tuple(distinct) or ({},))


def priced_gpus(prices: PriceBook, terms: Terms) -> tuple[str, ...]:
    """Return the GPUs of the price list that vLLM runs bf16 on, sorted."""
    names = {one.gpu for one in prices.offers if one.terms == terms}
    engine = load_engine()
    return tuple(
        name
        for name in sorted(names)
        if _RATE in load_gpu(name).flops_per_s and engine.other_stack(name) is None
    )


def candidates(axes: Axes, spec: DeploymentSpec, origins: Origins) -> list[Candidate]:
    """Return every point with its deployment of one replica, or why there is none.

    Of points that come to the same (limits that are the engine's own anyway) only the first is.

    Raises:
        InputError: for a value that no deployment can have.
    """
    _refuse_wrong(axes, spec, origins)
    found: dict[object, Candidate] = {}
    for number, settings in enumerate(axes.points()):
        one = _resolved(number, settings, spec, origins)
        found.setdefault(number if one.deployment is None else _identity(one.deployment), one)
    return list(found.values())


def refuse_what_is_always_wrong(
    found: Sequence[Candidate],
    wrong: Mapping[int, InputError],
    asked: Mapping[str, Sequence[Any]],
) -> None:
    """Refuse an input with which no candidate can be built, whatever else is chosen.

    ``wrong`` are the candidates, by number, that cannot; ``asked`` the values that were asked for,
    by key. A GPU, or a number of them, may well be wrong for a profile that is right for others.

    Raises:
        InputError: what is wrong with the first of those candidates.
    """
    by_value = [
        [one for one in found if one.settings.get(key) == value]
        for key in sorted(asked.keys() - {"gpu", "tp"})
        for value in map(_given, asked[key])
    ]
    for group in (list(found), *by_value):
        if group and all(one.number in wrong for one in group):
            raise wrong[group[0].number]


def _identity(deployment: Deployment) -> object:
    """Return what tells deployments apart, wherever their settings come from."""
    model = deployment.model
    return (
        *(model.name, model.weights, model.kv_bytes_per_value),
        *(deployment.gpu.name, deployment.tp, deployment.router, deployment.scheduler),
        *(deployment.engine_name, deployment.latency, deployment.engine),
    )


def _resolved(number: int, settings: Settings, spec: DeploymentSpec, origins: Origins) -> Candidate:
    try:
        deployment = _resolve(settings, spec, origins)
    except DoesNotFitError as error:
        return Candidate(
            number=number, settings=settings, deployment=None, fate="memory", error=error
        )
    except InputError as error:
        return Candidate(
            number=number, settings=settings, deployment=None, fate="impossible", error=error
        )
    return Candidate(number=number, settings=settings, deployment=deployment)


def _resolve(settings: Settings, spec: DeploymentSpec, origins: Origins) -> Deployment:
    return resolve_deployment(spec.model_copy(update={**settings, "replicas": 1}), origins)


def _refuse_wrong(axes: Axes, spec: DeploymentSpec, origins: Origins) -> None:
    """Refuse a key or a value that is wrong whatever the others are."""
    base = spec.model_dump(exclude_none=True)
    for key, values in axes.values.items():
        if key == "replicas":
            where = origins.given("deployment.replicas") or origins.where("plan")
            raise InputError(where, "vary", key, "any other key: it is the answer")
        for value in values:
            _check(base, {key: value}, origins)
    for limits in axes.limits:
        _check(base, limits, origins)
    finders: dict[str, Callable[[str, str, str], object]] = {
        "quantization": find_format,
        "kv_cache_dtype": find_kv_bytes,
        "gpu": load_gpu,
    }
    for key, find in finders.items():
        which = f"deployment.{key}"
        for name in filter(None, axes.values[key]):
            find(name, origins.where(which), which)


def _check(base: Mapping[str, Any], settings: Mapping[str, Any], origins: Origins) -> None:
    entry = {**base, **{key: value for key, value in settings.items() if value is not None}}
    validate(DeploymentSpec, entry, origins, "deployment")


def _given(value: Any) -> Any:
    return None if isinstance(value, str) and value.lower() in _UNSET else value


def label_of(candidate: Candidate) -> str:
    """Return what a candidate is beside GPU, TP and router: ``fp8, kv fp8, 256 seqs``."""
    model = candidate.deployment.model if candidate.deployment is not None else None
    native = _RATE if model is None or model.weights is None else model.weights.method
    given = {
        key: value
        for key, value in candidate.settings.items()
        if value is not None and key not in ("gpu", "tp", "router", "quantization")
    }
    words = [_WORDS.get(key, f"{key} {{}}").format(value) for key, value in given.items()]
    return ", ".join([candidate.settings.get("quantization") or native, *words])


_WORDS = {
    "kv_cache_dtype": "kv {}",
    "max_num_seqs": "{} seqs",
    "max_num_batched_tokens": "{} tok",
}
