"""Where a request's time went: parts that sum to its latency exactly, in integer picoseconds.

Every moment from arrival to last token lies in one step of the request's replica, or between
two. ``step_parts`` divides a step; what the request was doing says whose the parts are.

* **Waiting** (arrival until first scheduled). The steps that were planned before it came are
  ``others_prefill`` (what prefill adds to a step of decodes), ``decode_interference`` (decodes
  of others) and ``host``. So are steps that used up the token budget, or in which prefill was
  held back for decodes. Of the other steps, one with all slots taken is ``slot_queue``; the
  rest is ``kv_queue``: the head of the queue found no blocks.
* **Prefill** (until the end of the step of the first token). Of these steps: ``host``; what the
  decodes beside it add, ``decode_interference``; the rest is prefill. Of it ``own_prefill`` is
  what its prompt, less what the cache had, takes alone in chunks of the token budget, and all
  of it if no other prompt was computed then; the remainder is ``others_prefill``.
* **Decoding** (until the last token). Of every step: ``host``; what prefill adds,
  ``others_prefill``; of the decodes' time ``own_decode`` is what steps with this request alone
  would take, and the remainder, which the batch adds, is ``decode_interference``. Steps that
  the request sat out for want of budget count likewise.
* **preemption**: everything from the last token before to the first one after, and, for a
  request that was preempted before its first token, all of the prefill phase but ``own_prefill``.

Where an alternative price exceeds what there is to divide, it takes all of that; so no part is
negative. Moments between two steps are ``host``. Only finished requests have a waterfall.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from simserve.latency.model import StepLatencyModel
from simserve.records.clock import to_ps
from simserve.records.requests import IntArray
from simserve.records.run_record import RunRecord
from simserve.records.step import PrefillChunk, StepShape
from simserve.records.step_log import StepLog
from simserve.results.step_parts import StepParts, decode_prices_ps, step_parts
from simserve.results.token_times import BoolArray, finished_requests

COMPONENTS = (
    "slot_queue",
    "kv_queue",
    "own_prefill",
    "others_prefill",
    "own_decode",
    "decode_interference",
    "preemption",
    "host",
)
"""The parts, in the order of the columns of ``Waterfalls``."""
_SLOT, _KV, _OWN_PREFILL, _PREFILL, _OWN_DECODE, _DECODE, _PREEMPTION, _HOST = range(8)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRules:
    """What can keep a request waiting: the engine's limits that the reasons are read from."""

    max_running: int
    max_num_batched_tokens: int
    chunked: bool
    prefill_schedule_interval: int
    whole_batches: bool  # static batching: nobody joins a batch under way
    scheduled_ahead: bool  # a step is planned when the one before it starts

    @classmethod
    def of_resolved(cls, deployment: Mapping[str, Any]) -> QueueRules:
        """Return the rules of a resolved deployment, as ``RunFacts.resolved`` has it."""
        value = {key: one["value"] for key, one in deployment["engine"]["settings"].items()}
        return cls(
            max_running=value["max_num_active_seqs"] or value["max_num_seqs"],
            max_num_batched_tokens=value["max_num_batched_tokens"],
            chunked=value["enable_chunked_prefill"],
            prefill_schedule_interval=value["prefill_schedule_interval"],
            whole_batches=deployment["scheduler"] == "static",
            scheduled_ahead=value["async_scheduling"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Waterfalls:
    """The waterfalls of the finished requests, whose numbers are ``request``: ``int64[n]``.

    ``until_first_ps`` sums to the TTFT, ``after_first_ps`` to the time from first to last token:
    ``int64[n, len(COMPONENTS)]``.
    """

    request: IntArray
    further_tokens: IntArray  # generated after the first
    until_first_ps: IntArray
    after_first_ps: IntArray


def waterfalls(
    record: RunRecord, rules: QueueRules, model: StepLatencyModel, without_host: StepLatencyModel
) -> Waterfalls:
    """Return where the time of every finished request went.

    ``model`` priced the run; ``without_host`` is the same with a host that takes no time.
    """
    finished = finished_requests(record)
    chosen = np.flatnonzero(finished)
    first = np.zeros((len(finished), len(COMPONENTS)), dtype=np.int64)
    later = np.zeros_like(first)
    alone = _AlonePrices(record, finished, rules, without_host)
    for replica, log in enumerate(record.steps):
        who = np.flatnonzero(finished & (record.outcomes.replica == replica))
        if len(who):
            one = _ReplicaView(record, log, rules, step_parts(log, model, without_host), who)
            first[who] = one.waiting() + one.prefilling(alone.prefill_ps(who))
            later[who] = one.decoding(alone.decode_ps(who))
    return Waterfalls(
        request=chosen,
        further_tokens=record.outcomes.generated_tokens[chosen] - 1,
        until_first_ps=first[chosen],
        after_first_ps=later[chosen],
    )


class _AlonePrices:
    """What a request's own work takes on the GPU when nobody else is there."""

    def __init__(
        self, record: RunRecord, finished: BoolArray, rules: QueueRules, model: StepLatencyModel
    ) -> None:
        self._record, self._model = record, model
        self._most = rules.max_num_batched_tokens
        self._chunks_ps: dict[tuple[int, int], int] = {}
        longest = record.requests.prompt_tokens + record.outcomes.generated_tokens
        context = np.arange(int(longest[finished].max(initial=0)) + 1)
        steps_ps = decode_prices_ps(model, np.minimum(context, 1), context)
        self._upto_ps = np.cumsum(steps_ps)  # of decode steps at every context up to this one

    def prefill_ps(self, who: IntArray) -> IntArray:
        """Return what the prompts take in chunks of the token budget: ``int64[who]``."""
        cached = self._record.outcomes.cached_tokens[who].tolist()
        prompts = self._record.requests.prompt_tokens[who].tolist()
        prices = [self._prompt_ps(*one) for one in zip(prompts, cached, strict=True)]
        return np.array(prices, dtype=np.int64)

    def _prompt_ps(self, prompt: int, cached: int) -> int:
        found = self._chunks_ps.get((prompt, cached))
        if found is None:
            found = 0
            for past in range(cached, prompt, self._most):
                chunk = PrefillChunk(min(self._most, prompt - past), past)
                found += to_ps(self._model.step_s(StepShape(0, 0, (chunk,))))
            self._chunks_ps[prompt, cached] = found
        return found

    def decode_ps(self, who: IntArray) -> IntArray:
        """Return what the tokens after the first take: ``int64[who]``.

        A token that came with a recomputation counts as the mean of the others.
        """
        prompts = self._record.requests.prompt_tokens[who]
        further = self._record.outcomes.generated_tokens[who] - 1
        total = self._upto_ps[prompts + further] - self._upto_ps[prompts]
        recomputed = _recomputations(self._record)[who]
        share = 1 - recomputed / np.maximum(further, 1)
        scaled = np.floor(total * share).astype(np.int64)
        return np.asarray(np.where(recomputed > 0, scaled, total))


def _recomputations(record: RunRecord) -> IntArray:
    """Return how many of each request's tokens came with a recomputation: ``int64[requests]``."""
    again = record.gaps.request[~record.gaps.as_decode]
    return np.asarray(np.bincount(again, minlength=len(record.requests)), dtype=np.int64)


class _Sums:
    """Sums of columns over ranges of steps."""

    def __init__(self, *columns: IntArray) -> None:
        self._upto = np.zeros((len(columns[0]) + 1, len(columns)), dtype=np.int64)
        np.cumsum(np.stack(columns, axis=1), axis=0, out=self._upto[1:])

    def over(self, first: IntArray, stop: IntArray) -> IntArray:
        """Return the sums over steps ``first`` up to ``stop``, not included: ``[n, columns]``."""
        return np.asarray(self._upto[stop] - self._upto[first])


class _ReplicaView:
    """The requests ``who`` on one replica, against its steps."""

    def __init__(
        self, record: RunRecord, log: StepLog, rules: QueueRules, parts: StepParts, who: IntArray
    ) -> None:
        out = record.outcomes
        self._record, self._parts, self._who = record, parts, who
        self._columns = log.expand()
        self._arrival_ps = record.requests.arrival_ps[who]
        self._scheduled_ps = out.first_scheduled_ps[who]
        # The step that first computes for the request; steps without duration change no sum.
        self._first = np.searchsorted(parts.start_ps, self._scheduled_ps)
        self._token, self._last = out.first_token_step[who], out.last_token_step[who]
        self._planned_ps = parts.start_ps
        if rules.scheduled_ahead:  # which a log that was saved does not say
            self._planned_ps = _planned_ahead_ps(parts)
        self._reasons = _reasons(self._columns, rules)
        self._seen = _Sums(parts.host_ps, parts.decode_ps, parts.added_ps)

    def waiting(self) -> IntArray:
        """Return the parts of the time from arrival to first scheduled."""
        parts = self._parts
        slot, kv = self._reasons
        found = self._empty()
        begin = np.searchsorted(parts.start_ps, self._arrival_ps)
        considered = np.searchsorted(self._planned_ps, self._arrival_ps)
        considered = np.clip(considered, begin, self._first)
        under_way = self._seen.over(begin, considered)
        duration_ps = parts.duration_ps
        queues = _Sums(duration_ps * slot, duration_ps * kv).over(considered, self._first)
        budget = ~(slot | kv)
        under_way += _Sums(
            parts.host_ps * budget, parts.decode_ps * budget, parts.added_ps * budget
        ).over(considered, self._first)
        under_way += self._rest_of_step_ps(begin - 1)
        found[:, [_HOST, _DECODE, _PREFILL]] = under_way
        found[:, [_SLOT, _KV]] = queues
        found[:, _HOST] += self._scheduled_ps - self._arrival_ps - found.sum(axis=1)
        return found

    def _rest_of_step_ps(self, step: IntArray) -> IntArray:
        """Return what is left, at arrival, of the step under way: host, decodes, added prefill."""
        parts = self._parts
        there = step >= 0
        step = np.maximum(step, 0)
        left_ps = np.where(there, np.maximum(parts.end_ps[step] - self._arrival_ps, 0), 0)
        share = left_ps / np.maximum(parts.duration_ps[step], 1)
        host_ps = np.floor(parts.host_ps[step] * share).astype(np.int64)
        decode_ps = np.floor(parts.decode_ps[step] * share).astype(np.int64)
        rest_ps = left_ps - host_ps - decode_ps
        without_prefill = parts.added_ps[step] == 0
        decode_ps += np.where(without_prefill, rest_ps, 0)
        return np.stack([host_ps, decode_ps, np.where(without_prefill, 0, rest_ps)], axis=1)

    def prefilling(self, alone_ps: IntArray) -> IntArray:
        """Return the parts of the time from first scheduled to the first token."""
        parts, found = self._parts, self._empty()
        first, stop = self._first, self._token + 1
        prefill_seqs = self._columns["prefill_seqs"]
        preempting_step = self._columns["preempted"] > 0
        sums = _Sums(parts.host_ps, parts.beside_ps, parts.prefill_ps).over(first, stop)
        found[:, [_HOST, _DECODE]] = sums[:, :2]
        chunks, steps, preempting = (
            _Sums(
                prefill_seqs, *(one.astype(np.int64) for one in (prefill_seqs > 0, preempting_step))
            )
            .over(first, stop)
            .T
        )
        prefill_ps = sums[:, 2]
        own_ps = np.where(chunks == steps, prefill_ps, np.minimum(prefill_ps, alone_ps))
        found[:, _OWN_PREFILL] = own_ps
        found[:, _PREFILL] = prefill_ps - own_ps
        lasting_ps = self._record.outcomes.first_token_ps[self._who] - self._scheduled_ps
        found[:, _HOST] += lasting_ps - found.sum(axis=1)
        before_token = self._record.outcomes.preemptions[self._who]
        before_token = before_token - _recomputations(self._record)[self._who]
        again = (before_token > 0) & (preempting > 0)
        found[again] = 0
        found[again, _OWN_PREFILL] = np.minimum(own_ps, alone_ps)[again]
        found[again, _PREEMPTION] = (lasting_ps - np.minimum(own_ps, alone_ps))[again]
        return found

    def decoding(self, alone_ps: IntArray) -> IntArray:
        """Return the parts of the time from the first token to the last."""
        found, out = self._empty(), self._record.outcomes
        sums = self._seen.over(self._token + 1, self._last + 1)
        lasting_ps = out.finish_ps[self._who] - out.first_token_ps[self._who]
        sums[:, 0] += lasting_ps - sums.sum(axis=1)
        gaps = self._record.gaps
        place = np.full(len(self._record.requests), -1)
        place[self._who] = np.arange(len(self._who))
        lost = np.flatnonzero(~gaps.as_decode & (place[gaps.request] >= 0))
        if len(lost):
            whose, after, until = (
                place[gaps.request[lost]],
                gaps.previous_step[lost],
                gaps.step[lost],
            )
            taken = self._seen.over(after + 1, until + 1)
            lost_ps = self._parts.end_ps[until] - self._parts.end_ps[after]
            taken[:, 0] += lost_ps - taken.sum(axis=1)
            np.subtract.at(sums, whose, taken)
            np.add.at(found[:, _PREEMPTION], whose, lost_ps)
        found[:, _HOST], decodes_ps, found[:, _PREFILL] = sums.T
        found[:, _OWN_DECODE] = np.minimum(decodes_ps, alone_ps)
        found[:, _DECODE] = decodes_ps - found[:, _OWN_DECODE]
        return found

    def _empty(self) -> IntArray:
        return np.zeros((len(self._who), len(COMPONENTS)), dtype=np.int64)


def _planned_ahead_ps(parts: StepParts) -> IntArray:
    """Return when each step was planned: as the one before it started, unless it was idle."""
    planned_ps = parts.start_ps.copy()
    follows = parts.start_ps[1:] == parts.end_ps[:-1]
    planned_ps[1:][follows] = parts.start_ps[:-1][follows]
    return planned_ps


def _reasons(columns: Mapping[str, IntArray], rules: QueueRules) -> tuple[BoolArray, BoolArray]:
    """Return in which steps whoever waited did so for a slot, and in which for KV blocks.

    In all others the token budget was used up, or prefill was held back.
    """
    slot = columns["running"] >= rules.max_running
    if rules.whole_batches:
        return np.ones_like(slot), np.zeros_like(slot)
    used_up = columns["tokens"] >= rules.max_num_batched_tokens
    if not rules.chunked:
        used_up |= columns["prefill_tokens"] > 0  # the next whole prompt was too long
    if rules.prefill_schedule_interval > 1:
        used_up |= (columns["prefill_tokens"] == 0) & (columns["decode_seqs"] > 0)
    kv = (columns["preempted"] > 0) | ~(slot | used_up)
    return slot & ~kv, kv
