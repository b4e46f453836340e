"""What one thing costs: the same requests without it, the largest gain first.

None of these can be bought as such. They say where to look: what is gained without a limit is
the most that any real remedy against it can gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from simserve.inputs.deployment import Deployment
from simserve.inputs.scenario import Scenario
from simserve.latency.model import (
    DecodeLine,
    StepLatencyModel,
    UnevenDecodeModel,
)
from simserve.planning.other_hardware import (
    as_it_is,
    is_measured,
    twice_the_bandwidth,
    twice_the_flops,
    without_host_time,
)
from simserve.planning.perfect_cache import COHORT, with_perfect_cache, with_perfect_hits
from simserve.planning.what_if import Change, Effect
from simserve.records.clock import to_ps
from simserve.records.requests import IntArray, RequestTable
from simserve.records.run_record import FINISHED, RunRecord
from simserve.records.step import PrefillChunk, StepShape

# More tokens than any step computes: no prompt waits for the token budget.
_NO_BUDGET = 1 << 40


def counterfactuals(scenario: Scenario, requests: RequestTable) -> list[Change]:
    """Return the changes; ``requests`` are those of the scenario's own seed."""
    deployment = scenario.deployment
    endless = replace(scenario, deployment=with_endless_kv(deployment, requests))
    return [
        Change(name="infinite KV", meaning="KV blocks never run out", scenario=endless),
        Change(
            name="no host time",
            meaning="scheduling, launching and sampling on the host take no time",
            scenario=scenario,
            latency=without_host_time,
        ),
        _hardware(scenario, "2x bandwidth", "memory twice as fast", twice_the_bandwidth),
        _hardware(scenario, "2x FLOPs", "twice the operations per second", twice_the_flops),
        _perfect_cache(endless, requests),
        Change(
            name="no interference",
            meaning="a prompt takes as long as it does alone, and holds up nobody else",
            scenario=replace(scenario, deployment=_without_budget(deployment)),
            latency=free_prefill,
            finish=partial(with_own_prefill, budget=deployment.engine.max_num_batched_tokens),
        ),
    ]


def ranked(found: Sequence[Effect]) -> list[Effect]:
    """Return the effects by gain, the largest first; those that cannot be made come last."""
    return sorted(found, key=lambda one: -one.gain_s)


def with_endless_kv(deployment: Deployment, requests: RequestTable) -> Deployment:
    """Return the deployment with blocks for all requests at once on every replica."""
    size = deployment.engine.block_size
    tokens = requests.prompt_tokens + requests.output_tokens
    enough = int((-(-tokens // size) + 1).sum()) + 1
    enough = int(enough / (1 - deployment.engine.watermark)) + 1
    num_blocks = max(2 * enough, deployment.engine.num_blocks)
    return replace(deployment, engine=replace(deployment.engine, num_blocks=num_blocks))


def _hardware(scenario: Scenario, name: str, meaning: str, latency: Any) -> Change:
    if is_measured(scenario.deployment):
        reason = f"{scenario.deployment.latency} was measured, and not on such a part"
        return Change.impossible(name, meaning, reason)
    return Change(name=name, meaning=meaning, scenario=scenario, latency=latency)


def _perfect_cache(endless: Scenario, requests: RequestTable) -> Change:
    name, deployment = "perfect prefix cache", endless.deployment
    meaning = "every block that an earlier prompt had is found; there is KV for all of it"
    if requests.segments is None:
        return Change.impossible(name, meaning, "no prompt repeats another")
    if deployment.scheduler != COHORT:
        return Change.impossible(name, meaning, f"not with scheduler {deployment.scheduler}")
    return Change(
        name=name,
        meaning=meaning,
        scenario=replace(endless, deployment=with_perfect_cache(deployment)),
        edit=with_perfect_hits,
    )


def _without_budget(deployment: Deployment) -> Deployment:
    engine = replace(
        deployment.engine,
        max_num_batched_tokens=_NO_BUDGET,
        long_prefill_token_threshold=0,
        prefill_schedule_interval=1,
    )
    return replace(deployment, engine=engine)


def free_prefill(deployment: Deployment) -> StepLatencyModel:
    """Return the model in which a chunk costs a step what one more decode does."""
    model = as_it_is(deployment)
    return _FreeUneven(model) if isinstance(model, UnevenDecodeModel) else _Free(model)


@dataclass(frozen=True)
class _Free:
    """Prices chunks as decodes of the same context."""

    model: Any

    def step_s(self, shape: StepShape) -> float:
        """Return the duration of a step in seconds."""
        contexts = shape.decode_contexts
        if contexts is not None:
            chunks = [one.new_tokens + one.past_tokens for one in shape.prefill]
            contexts = np.concatenate([contexts, np.array(chunks, dtype=np.int64)])
        decodes = StepShape(shape.seqs, shape.context_tokens, (), contexts)
        return float(self.model.step_s(decodes))

    def decode_line(self, decode_seqs: int, decode_context_tokens: int) -> DecodeLine:
        """Return the model's own line."""
        line: DecodeLine = self.model.decode_line(decode_seqs, decode_context_tokens)
        return line


@dataclass(frozen=True)
class _FreeUneven(_Free):
    """The same for models that read every context."""

    @property
    def reads_contexts(self) -> bool:
        """Whether the model reads them."""
        return bool(self.model.reads_contexts)

    def uneven_decode_line(self, decode_slots: int, contexts: IntArray) -> DecodeLine:
        """Return the model's own line."""
        line: DecodeLine = self.model.uneven_decode_line(decode_slots, contexts)
        return line


def with_own_prefill(
    record: RunRecord, scenario: Scenario, model: StepLatencyModel, *, budget: int
) -> RunRecord:
    """Return the record with every answer later by what its own prompt takes alone.

    That is in place of the step of its first token, which was priced as a decode's. ``budget``
    is the most tokens that are computed at once.
    """
    out = record.outcomes
    later_ps = np.zeros(len(out.status), dtype=np.int64)
    lasting_ps = [log.duration_per_step_ps() for log in record.steps]
    for request in np.flatnonzero(out.status == FINISHED).tolist():
        step = int(out.first_token_step[request])
        own_ps = sum(
            to_ps(model.step_s(StepShape(0, 0, (chunk,))))
            for chunk in _chunks_of(record, request, budget)
        )
        later_ps[request] = own_ps - int(lasting_ps[int(out.replica[request])][step])
    outcomes = replace(
        out, first_token_ps=out.first_token_ps + later_ps, finish_ps=out.finish_ps + later_ps
    )
    return replace(record, outcomes=outcomes)


def _chunks_of(record: RunRecord, request: int, budget: int) -> list[PrefillChunk]:
    prompt = int(record.requests.prompt_tokens[request])
    cached = int(record.outcomes.cached_tokens[request])
    return [
        PrefillChunk(min(budget, prompt - past), past) for past in range(cached, prompt, budget)
    ]
