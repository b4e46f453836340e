"""The cheapest changes that make a deployment fit, each resolved as what it leads to.

Ranked by dollars per hour, then by how much they ask for: a flag, lower precision, other
weights, more GPUs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from simserve.errors import InputError
from simserve.inputs.deployment import (
    Deployment,
    DeploymentSpec,
    engine_request,
    resolve_deployment,
)
from simserve.inputs.engine_defaults import load_engine
from simserve.inputs.engine_resolution import kv_request
from simserve.inputs.hardware_profile import list_gpus, load_gpu
from simserve.inputs.kv_capacity import KvCapacity
from simserve.inputs.memory_terms import KvRequest
from simserve.inputs.model_spec import ModelSpec
from simserve.inputs.prices import PriceBook, typical_offer
from simserve.inputs.validation import Origins

# The most GPUs in one machine of the price list's common kinds.
MOST_TP = 8
# A shorter context is no way out: choices of this module, not of vLLM.
SHORTEST_CONTEXT = 1024
FEWEST_SEQS = 16
HIGHER_UTILIZATIONS = (0.95, 0.97)
MOST_CHANGES = 3
# From a flag to another machine: what a kind of change asks for, least first.
_KINDS = (
    "gpu_memory_utilization",
    "max_num_seqs",
    "kv_cache_dtype",
    "max_model_len",
    "quantization",
    "tp",
    "gpu",
)
_CAVEATS = {
    "gpu_memory_utilization": "less is left for what else uses the GPU",
    "max_num_seqs": "fewer requests at once",
    "kv_cache_dtype": "KV values lose precision",
    "max_model_len": "longer requests are refused",
    "quantization": "other weights: check the quality of the answers",
    "tp": "other latencies: run it",
    "gpu": "other latencies: run it",
}

Update = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Settings that make the deployment fit; prices are US$ per hour of all replicas."""

    settings: Update
    caveats: tuple[str, ...]
    usd_per_hour: float | None
    extra_usd_per_hour: float | None
    capacity: KvCapacity
    max_model_len: int
    rank: int


def fleet_usd_per_hour(prices: PriceBook, gpu: str, tp: int, replicas: int) -> float | None:
    """Return the typical on-demand price of a deployment, None if the list has none."""
    offers = prices.offers_for(gpu, tp)
    if not offers:
        return None
    return typical_offer(offers, tp)[0].usd_per_hour(replicas, tp)


class Changes:
    """The search for changes: of one setting, of two, of three, until there are enough."""

    def __init__(
        self, spec: DeploymentSpec, origins: Origins, prices: PriceBook, model: ModelSpec
    ) -> None:
        self.spec, self.origins, self.prices, self.model = spec, origins, prices, model

    def best(self, usd_per_hour: float | None) -> tuple[Change, ...]:
        """Return the cheapest changes: one of each kind first, then second ones of a kind."""
        found: dict[tuple[str, ...], list[Change]] = {}
        for size in (1, 2, 3):
            for kinds in itertools.combinations(_KINDS, size):
                if any(set(done) <= set(kinds) for done in found):
                    continue  # half of it is enough
                changes = self._that_fit(kinds, usd_per_hour)
                if changes:
                    found[kinds] = changes
            if len(found) >= MOST_CHANGES:
                break
        firsts = sorted((one[0] for one in found.values()), key=_dollars_then_rank)
        others = sorted(
            (one for rest in found.values() for one in rest[1:]), key=_dollars_then_rank
        )
        chosen = [*firsts, *others][:MOST_CHANGES]
        return tuple(sorted(chosen, key=_dollars_then_rank))

    def _that_fit(self, kinds: tuple[str, ...], now: float | None) -> list[Change]:
        """Return the changes of these kinds, cheapest first, of equally cheap ones the gentlest.

        Where the context is cut, the gentlest is the one that cuts it least.
        """
        changes = []
        for parts in itertools.product(*(list(self._steps(kind)) for kind in kinds)):
            update: Update = {key: value for part in parts for key, value in part.items()}
            change = self._verified(update, kinds, now)
            if change is not None:
                changes.append(change)
        if "max_model_len" in kinds:
            return sorted(changes, key=_dollars_then_context)
        return sorted(changes, key=_dollars)  # stable: what is tried first is gentler

    def _verified(self, update: Update, kinds: tuple[str, ...], now: float | None) -> Change | None:
        if update.get("max_model_len") == 0:
            update = update | {"max_model_len": self._longest_that_fits(update)}
            if not update["max_model_len"]:
                return None
        deployment = self._resolved(update)
        if deployment is None:
            return None
        cost = fleet_usd_per_hour(
            self.prices, deployment.gpu.name, deployment.tp, deployment.replicas
        )
        extra = None if cost is None or now is None else cost - now
        return Change(
            settings=update,
            caveats=tuple(dict.fromkeys(_CAVEATS[kind] for kind in kinds)),
            usd_per_hour=cost,
            extra_usd_per_hour=extra if {"tp", "gpu"} & set(kinds) else 0.0,
            capacity=deployment.kv,
            max_model_len=deployment.engine.max_model_len,
            rank=sum(1 << _KINDS.index(kind) for kind in kinds),
        )

    def _resolved(self, update: Mapping[str, Any]) -> Deployment | None:
        try:
            return resolve_deployment(self.spec.model_copy(update=dict(update)), self.origins)
        except InputError:  # it does not fit, or the other GPU cannot run it
            return None

    def _longest_that_fits(self, update: Update) -> int:
        """Return the longest ``max_model_len`` that fits, in whole blocks; 0 if none is usable."""
        request, engine = engine_request(self.spec, self.origins)
        pool = kv_request(request, engine)
        size = pool.block_size
        low, high = SHORTEST_CONTEXT // size, pool.max_model_len // size
        if high < low or self._resolved(update | {"max_model_len": low * size}) is None:
            return 0
        while low < high:
            middle = (low + high + 1) // 2
            if self._resolved(update | {"max_model_len": middle * size}) is None:
                high = middle - 1
            else:
                low = middle
        return low * size

    def _steps(self, kind: str) -> Iterator[Update]:
        """Yield the values that ``kind`` may take, gentlest first."""
        steps: Mapping[str, Callable[[], Iterator[Update]]] = {
            "gpu_memory_utilization": self._utilizations,
            "max_num_seqs": self._seqs,
            "kv_cache_dtype": self._kv_dtypes,
            "max_model_len": lambda: iter([{"max_model_len": 0}]),  # found when it is tried
            "quantization": self._formats,
            "tp": self._tps,
            "gpu": self._gpus,
        }
        return steps[kind]()

    def _pool(self) -> KvRequest:
        return kv_request(*engine_request(self.spec, self.origins))

    def _pool_is_given(self) -> bool:
        return (self.spec.num_gpu_blocks or self.spec.kv_cache_memory_bytes) is not None

    def _utilizations(self) -> Iterator[Update]:
        if self._pool_is_given():
            return
        for higher in HIGHER_UTILIZATIONS:
            if higher > self._pool().gpu_memory_utilization:
                yield {"gpu_memory_utilization": higher}

    def _seqs(self) -> Iterator[Update]:
        seqs = self._pool().max_num_seqs // 2
        while seqs >= FEWEST_SEQS:
            yield {"max_num_seqs": seqs}
            seqs //= 2

    def _kv_dtypes(self) -> Iterator[Update]:
        if self.model.kv_bytes_per_value > 1 and self.spec.kv_cache_dtype is None:
            yield {"kv_cache_dtype": "fp8"}

    def _formats(self) -> Iterator[Update]:
        if self.model.weights is None and self.spec.quantization is None:
            yield from ({"quantization": name} for name in ("fp8", "awq"))

    def _tps(self) -> Iterator[Update]:
        for tp in self.model.tp_sizes():
            if self.spec.tp < tp <= MOST_TP:
                yield {"tp": tp}

    def _gpus(self) -> Iterator[Update]:
        now, stack_of = load_gpu(self.spec.gpu), load_engine().other_stack
        for name in list_gpus():
            other = load_gpu(name)
            # Another stack would be a change of software, not of the deployment.
            larger = other.memory_bytes > now.memory_bytes and stack_of(name) == stack_of(now.name)
            if larger and self.prices.offers_for(name, self.spec.tp):
                yield {"gpu": name}


def _dollars(change: Change) -> tuple[bool, float]:
    """Order changes: known prices first, cheaper first, to a hundredth of a cent."""
    extra = change.extra_usd_per_hour
    return (extra is None, round(extra or 0.0, 4))


def _dollars_then_context(change: Change) -> tuple[tuple[bool, float], int]:
    """Order changes of the same kinds: cheaper first, then the longer context."""
    return (_dollars(change), -change.max_model_len)


def _dollars_then_rank(change: Change) -> tuple[tuple[bool, float], int]:
    """Order changes of several kinds: cheaper first, then gentler."""
    return (_dollars(change), change.rank)
