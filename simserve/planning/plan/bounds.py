"""What no schedule can beat: lower bounds that remove plans before anything is simulated.

They are proofs under the roofline, whose step gets no shorter by anything added to it (more
tokens, sequences, context): every term of ``latency.roofline`` is a sum or a maximum of terms
that grow with them. Of other latency models nothing is proven, and nothing is removed.

*Lemma 1 (memory).* An engine whose weights, or one longest sequence, do not fit does not start:
``inputs`` refuses it, and so does every run.

*Lemma 2 (a lone request).* Let a request share all but ``c`` of its ``P`` prompt tokens with
others. It computes those ``c`` itself, in chunks, in steps that begin after it arrived and end
by its first token. Whatever else is in these steps, they take at least as long as its chunks
alone; and chunks ``n_1 + … + n_k = c`` take at least as long as one of ``c``: pairs and
compute add up, ``Σ max(x_i, y_i) ≥ max(Σ x_i, Σ y_i)``, weights are read ``k ≥ 1`` times (of
experts, no fewer: with ``u_12 = u_1 + u_2 - u_1·u_2`` and ``f(u) = u - 0.52·u²·(1 - u)``,
``f(u_1) + f(u_2) ≥ f(u_12)`` on the unit square). So **TTFT ≥ step(c)**. Each further token
takes a step in which it attends to more than ``P`` tokens, so **TPOT ≥ decode(P + 1)**, and
**E2E ≥ step(c) + (n - 1)·decode(P + 1)** for ``n`` output tokens. If too few requests have
bounds within the limits, the promise is broken whatever the rest does, on any number of
replicas.

*Lemma 3 (work).* Without its attention, a step of ``T`` tokens and ``S`` sequences takes
``w(T, S)``. For any ``a`` with ``b = min_S (w(1, S) - w(1, 1)) / (S - 1) ≤ a ≤ w(1, 1)`` and
``s = min_T (w(T, 1) - a) / T`` over all steps that the engine allows,
``w(T, S) ≥ a + s·T + b·(S - 1)``. Attention adds up over requests. A request of ``n`` output
tokens is in at least ``n`` steps, and a step holds at most ``max_num_seqs`` of them, nor more
context than the KV pool. So ``K ≥ Σ n_r / max_num_seqs`` and ``K ≥ Σ context_r / pool`` steps
are needed, and the replicas are **busy for at least Σ (attention_r + s·T_r + b·n_r) +
(a - b)·K**. Where that is more than ``replicas`` times the time in which the requests arrive,
work arrives faster than it can be done: the number of requests in the system grows for as long as
they come, there is no steady state, and a plan must have one.

*Lemma 4 (price).* A plan that costs more than one that keeps the promises is not the cheapest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simserve.inputs.deployment import Deployment
from simserve.inputs.slo import ClassSlo, Objective, Slo
from simserve.latency.roofline import RooflineModel
from simserve.latency.roofline_attention import attention_costs
from simserve.records.clock import PS_PER_S
from simserve.records.requests import RequestTable
from simserve.records.step import PrefillChunk, StepShape

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Lengths are rounded down to a grid this fine before they are priced: a bound stays one.
_GRID_RATIO = 1.05
# How many values of ``a`` are tried; each gives a bound, and the best is taken.
_TRIES = 24
# ``decode_line`` may be this much below ``step_s``, and once more per context token.
_ROUNDING_S = 0.5 / PS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What the requests of one draw ask, however they are served: ``int64[requests]`` each.

    ``computed`` are the prompt tokens that a request shares with nobody, at least 1, ``steps``
    its output tokens. ``sheds`` says that clients may give up, so that work may vanish.
    """

    arrival_s: FloatArray
    prompt: IntArray
    computed: IntArray
    output: IntArray
    shares: bool
    sheds: bool
    closed: bool
    kind: IntArray  # the number of its class
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, requests: RequestTable) -> Demand:
        """Return the demand of ``requests``."""
        kind = requests.request_class
        return cls(
            arrival_s=requests.arrival_ps / PS_PER_S,
            prompt=requests.prompt_tokens,
            computed=_computed_tokens(requests),
            output=requests.output_tokens,
            shares=requests.segments is not None,
            sheds=requests.give_up_ps is not None,
            closed=requests.users is not None,
            kind=np.zeros(len(requests), np.int64) if kind is None else kind,
            class_names=requests.class_names,
        )

    @property
    def span_s(self) -> float:
        """The time in which the requests arrive, with a gap after the last one."""
        count = len(self.prompt)
        lasting = float(self.arrival_s[-1] - self.arrival_s[0])
        return lasting * count / (count - 1) if count > 1 else 0.0

    def served(self, max_model_len: int) -> IntArray:
        """Return the tokens that each gets: a context has an end, and no room is a refusal."""
        return np.clip(max_model_len - self.prompt, 0, self.output)


def _computed_tokens(requests: RequestTable) -> IntArray:
    """Return how many prompt tokens belong to segments that are in no other prompt."""
    table = requests.segments
    if table is None:
        return requests.prompt_tokens
    owner = np.repeat(np.arange(len(requests)), np.diff(table.offsets))
    names, place, counts = np.unique(table.segment, return_inverse=True, return_counts=True)
    alone = counts[place] == 1
    if requests.output_segment is not None:
        alone &= ~np.isin(names, requests.output_segment)[place]
    own = np.bincount(owner[alone], weights=table.tokens[alone], minlength=len(requests))
    return np.maximum(own.astype(np.int64), 1)


@dataclass(frozen=True, slots=True)
class LoneBounds:
    """Lower bounds in seconds of every request's latencies: ``float64[requests]`` each."""

    ttft_s: FloatArray
    tpot_s: FloatArray  # 0 for a single token
    e2el_s: FloatArray


class HardwareBounds:
    """The lemmas for one model format on one kind of replica, whatever its limits are."""

    def __init__(self, deployment: Deployment) -> None:
        self._model = RooflineModel(deployment.model, deployment.gpu, deployment.tp)
        self._costs = attention_costs(deployment.model, deployment.gpu, deployment.tp)

    def alone(self, demand: Demand, max_model_len: int) -> LoneBounds:
        """Return Lemma 2 for every request; a refused one has bounds, too."""
        served = demand.served(max_model_len)
        ttft_s = _by_grid(demand.computed, self._prefill_s)
        decode_s = _by_grid(demand.prompt + 1, self._decode_s)
        further = np.maximum(served - 1, 0)
        return LoneBounds(
            ttft_s=ttft_s,
            tpot_s=np.where(further > 0, decode_s, 0.0),
            e2el_s=ttft_s + further * decode_s,
        )

    def busy_s(self, demand: Demand, deployment: Deployment) -> float:
        """Return Lemma 3: how long replicas of ``deployment`` are busy, at least, all together."""
        engine, kv = deployment.engine, deployment.kv
        served = demand.served(engine.max_model_len)
        taken = served > 0
        tokens = float((demand.computed + served - 1)[taken].sum())
        seqs = float(served.sum())
        steps = seqs / engine.max_num_seqs
        if not demand.shares:
            steps = max(
                steps, float(_context_steps(demand.prompt, served).sum()) / kv.usable_tokens
            )
        attention = float(self._attention_s(demand, served)[taken].sum())
        per_seq = self._per_seq_s(engine.max_num_seqs)
        most = engine.max_num_batched_tokens
        return attention + per_seq * seqs + self._best_line(most, per_seq, tokens, steps)

    def _best_line(self, most: int, per_seq: float, tokens: float, steps: float) -> float:
        """Return the largest ``s·tokens + (a - b)·steps`` over the lines that are tried."""
        first = _grid(most)
        work = np.array([self._work_s(int(one), 1) for one in first])
        last = np.append(first[1:] - 1, most)  # of the tokens that are rounded down to ``first``
        tries = np.linspace(per_seq, work[0], _TRIES)
        slopes = ((work[None, :] - tries[:, None]) / last[None, :]).min(axis=1)
        return float((slopes * tokens + (tries - per_seq) * steps).max())

    def _per_seq_s(self, most: int) -> float:
        if most < 2:
            return 0.0
        first = _grid(most)[1:]
        alone = self._work_s(most, 1)
        grown = np.array([self._work_s(most, int(one)) - alone for one in first])
        last = np.append(first[1:] - 1, most)
        return float((np.maximum(grown, 0) / (last - 1)).min())

    def _work_s(self, tokens: int, seqs: int) -> float:
        """Return the time of a step of one chunk and ``seqs - 1`` decodes without its attention."""
        chunk = tokens - seqs + 1
        step_s = self._model.step_s(StepShape(seqs - 1, 0, (PrefillChunk(chunk, 0),)))
        return step_s - sum(cost.chunk_s(chunk, 0) for cost in self._costs)

    def _attention_s(self, demand: Demand, served: IntArray) -> FloatArray:
        total = _by_grid(
            demand.computed, lambda new: sum(cost.chunk_s(new, 0) for cost in self._costs)
        )
        for cost in self._costs:
            window = _context_steps(demand.prompt, served, cost.window)
            total = total + window * cost.context_s
        return total

    def _prefill_s(self, new: int) -> float:
        return self._model.step_s(StepShape(0, 0, (PrefillChunk(new, 0),)))

    def _decode_s(self, context: int) -> float:
        return self._model.step_s(StepShape(1, context)) - _ROUNDING_S * (context + 1)


def share_within(
    slo: Slo | None, classes: Sequence[ClassSlo], demand: Demand, bounds: LoneBounds
) -> list[tuple[str, float | None, float]]:
    """Return, per promise, its name, the share that it asks, and the most that can keep it.

    The share is None for per-request objectives, of which the planner asks a share.
    """
    kind = demand.kind
    others = np.ones(len(kind), np.bool_)
    found: list[tuple[str, float | None, float]] = []
    for one in classes:
        if one.slo is not None and one.name in demand.class_names:
            who = kind == demand.class_names.index(one.name)
            others &= ~who
            found += _shares(one.slo, bounds, who)
    return found if slo is None else [*_shares(slo, bounds, others), *found]


def _shares(
    slo: Slo, bounds: LoneBounds, who: npt.NDArray[np.bool_]
) -> list[tuple[str, float | None, float]]:
    if not who.any():
        return []
    found: list[tuple[str, float | None, float]] = []
    single = [one for one in slo.objectives if one.percentile is None]
    if single:
        within = np.logical_and.reduce([_within(one, bounds) for one in single])
        found.append((" ".join(one.name for one in single), None, float(within[who].mean())))
    for one in slo.objectives:
        if one.percentile is None or one.metric == "itl":
            continue
        counts = who & (bounds.tpot_s > 0) if one.metric == "tpot" else who
        if counts.any():
            found.append(
                (one.name, one.percentile / 100, float(_within(one, bounds)[counts].mean()))
            )
    return found


def _within(one: Objective, bounds: LoneBounds) -> npt.NDArray[np.bool_]:
    seconds = {"ttft": bounds.ttft_s, "tpot": bounds.tpot_s, "e2el": bounds.e2el_s}[one.metric]
    return np.asarray(seconds * 1000 <= one.limit_ms)


def _context_steps(prompt: IntArray, served: IntArray, window: int | None = None) -> FloatArray:
    """Return the sum, over a request's decode steps, of the context that it attends to."""
    further = np.maximum(served - 1, 0).astype(np.float64)
    growing = further if window is None else np.clip(window - prompt, 0, further)
    seen = growing * prompt + growing * (growing + 1) / 2
    return seen + (further - growing) * (window or 0)


def _grid(most: int) -> IntArray:
    """Return rising whole numbers from 1 to ``most``, ever farther apart."""
    count = int(np.log(most) / np.log(_GRID_RATIO)) + 2
    return np.unique(np.rint(np.geomspace(1, most, count)).astype(np.int64))


def _by_grid(lengths: IntArray, seconds: Callable[[int], float]) -> FloatArray:
    """Return a growing function of every length, each rounded down to the grid."""
    grid = _grid(int(lengths.max()))
    values = np.array([seconds(int(one)) for one in grid])
    return np.asarray(values[np.searchsorted(grid, lengths, side="right") - 1])
