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
from simserve.planning.tamed_requests import (
    LONG_PERCENTILE,
    longest_usual_prompt,
    why_not_even,
    with_even_arrivals,
    with_prompts_cut,
)
from simserve.planning.what_if import Change, Effect
from simserve.records.clock import to_ps
from simserve.records.requests import IntArray, RequestTable
from simserve.records.run_record import FINISHED, RunRecord
from simserve.records.step import PrefillChunk, StepShape

# More tokens than any step computes: no prompt waits for the token budget.
_NO_BUDGET = 1 << 40
_BEST_ROUTER = "least-loaded"
_STATIC = "static"
INFINITE_KV, PERFECT_CACHE = "infinite KV", "perfect prefix cache"
NO_SLOT_LIMIT, NO_HOST_TIME, NO_INTERFERENCE = "no slot limit", "no host time", "no interference"
MORE_HARDWARE = ("2x bandwidth", "2x FLOPs")
"""These take no cause away: they make everything faster, whatever the cause is."""


def counterfactuals(scenario: Scenario, requests: RequestTable) -> list[Change]:
    """Return the changes; ``requests`` are those of the scenario's own seed."""
    deployment = scenario.deployment
    endless = replace(scenario, deployment=with_endless_kv(deployment, requests))
    bandwidth, flops = MORE_HARDWARE
    return [
        Change(name=INFINITE_KV, meaning="KV blocks never run out", scenario=endless),
        _endless_slots(scenario, requests),
        Change(
            name="no token budget",
            meaning="max_num_batched_tokens never cuts a prompt or holds it back",
            scenario=replace(scenario, deployment=_without_budget(deployment)),
        ),
        *_other_router(scenario),
        _even_arrivals(scenario, requests),
        _no_long_prompts(scenario, requests),
        Change(
            name=NO_HOST_TIME,
            meaning="scheduling, launching and sampling on the host take no time",
            scenario=scenario,
            latency=without_host_time,
        ),
        _hardware(scenario, bandwidth, "memory twice as fast", twice_the_bandwidth),
        _hardware(scenario, flops, "twice the operations per second", twice_the_flops),
        _perfect_cache(endless, requests),
        Change(
            name=NO_INTERFERENCE,
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


def _endless_slots(scenario: Scenario, requests: RequestTable) -> Change:
    """Return the scenario with a slot for everyone, as far as a step has tokens; KV stays."""
    name, meaning = NO_SLOT_LIMIT, "max_num_seqs never holds a request back"
    deployment = scenario.deployment
    engine = deployment.engine
    if deployment.scheduler == _STATIC:
        return Change.impossible(name, meaning, "a static batch is what the scheduler makes")
    seats = max(engine.max_num_seqs, min(len(requests), engine.max_num_batched_tokens))
    engine = replace(engine, max_num_seqs=seats, max_num_active_seqs=None)
    endless = replace(scenario, deployment=replace(deployment, engine=engine))
    return Change(name=name, meaning=meaning, scenario=endless)


def _other_router(scenario: Scenario) -> list[Change]:
    deployment = scenario.deployment
    if deployment.replicas == 1 or deployment.router == _BEST_ROUTER:
        return []
    changed = replace(scenario, deployment=replace(deployment, router=_BEST_ROUTER))
    meaning = f"a request goes to the replica with the fewest, not {deployment.router}"
    return [Change(name=f"{_BEST_ROUTER} router", meaning=meaning, scenario=changed)]


def _even_arrivals(scenario: Scenario, requests: RequestTable) -> Change:
    name, meaning = "even arrivals", "the same requests at equal gaps: no burst, no wave"
    reason = why_not_even(requests)
    if reason is not None:
        return Change.impossible(name, meaning, reason)
    return Change(name=name, meaning=meaning, scenario=scenario, edit=with_even_arrivals)


def _no_long_prompts(scenario: Scenario, requests: RequestTable) -> Change:
    most = longest_usual_prompt(requests)
    name, meaning = "no long prompts", f"prompts end at {most:,} tokens, p{LONG_PERCENTILE} of them"
    if most >= int(requests.prompt_tokens.max()):
        return Change.impossible(name, meaning, "no prompt is much longer than the others")
    edit = partial(with_prompts_cut, most=most)
    return Change(name=name, meaning=meaning, scenario=scenario, edit=edit)


def _hardware(scenario: Scenario, name: str, meaning: str, latency: Any) -> Change:
    if is_measured(scenario.deployment):
        reason = f"{scenario.deployment.latency} was measured, and not on such a part"
        return Change.impossible(name, meaning, reason)
    return Change(name=name, meaning=meaning, scenario=scenario, latency=latency)


def _perfect_cache(endless: Scenario, requests: RequestTable) -> Change:
    name, deployment = PERFECT_CACHE, endless.deployment
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
