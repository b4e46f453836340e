"""A tiny, slow serving loop that writes RunRecords and keeps the time of every token.

It knows nothing of vLLM: slots, a prompt budget per step, random interruptions. Its only
purpose is a record whose parts agree, beside the plain list of token times to check against.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simserve.records.clock import NEVER_PS, PS_PER_MS
from simserve.records.requests import RequestTable
from simserve.records.run_record import (
    FINISHED,
    REJECTED,
    RequestOutcomes,
    RunRecord,
    TokenGaps,
)
from simserve.records.step_log import StepLog

BLOCK = 16
Row = dict[str, int]
COLUMNS = [
    "steps",
    "start_ps",
    "duration_ps",
    "duration_growth_ps",
    "decode_seqs",
    "decode_context_tokens",
    "prefill_seqs",
    "prefill_tokens",
    "prefill_context_tokens",
    "admitted",
    "hit_tokens",
    "preempted",
    "finished",
    "running",
    "waiting",
    "free_blocks",
    "free_blocks_end",
]


@dataclass
class Options:
    slots: int = 4
    budget: int = 64  # prompt tokens per step
    base_ps: int = 10 * PS_PER_MS
    per_seq_ps: int = PS_PER_MS
    per_context_ps: int = 1000
    num_blocks: int = 10_000
    preempt_chance: float = 0.0  # a decoding request loses its cache
    skip_chance: float = 0.0  # a decoding request is left out of a step
    longest: int = 10**9  # longer prompts are rejected
    stop_after_steps: int | None = None  # per replica; leaves requests unfinished
    cached_tokens: int = 0  # prefix hit of every prompt longer than this


@dataclass
class Live:
    index: int
    todo: int  # tokens to prefill before the next token
    past: int = 0
    token_steps: list[int] = field(default_factory=list)


@dataclass
class Reference:
    record: RunRecord
    token_ps: list[list[int]]  # the truth: when each token of each request appeared


def request_table(arrival_ms: list[float], prompt: list[int], output: list[int]) -> RequestTable:
    return RequestTable(
        arrival_ps=np.array([round(ms * PS_PER_MS) for ms in arrival_ms], np.int64),
        prompt_tokens=np.array(prompt, np.int64),
        output_tokens=np.array(output, np.int64),
    )


def random_requests(count: int, seed: int, gap_ms: float = 30.0) -> RequestTable:
    rng = random.Random(seed)
    now, arrival = 0.0, []
    for _ in range(count):
        arrival.append(now)
        now += rng.expovariate(1 / gap_ms) if gap_ms else 0.0
    return request_table(
        arrival,
        [rng.randint(1, 200) for _ in range(count)],
        [rng.choice([1, 2, rng.randint(1, 60)]) for _ in range(count)],
    )


class _Outcomes:
    """RequestOutcomes in the making, column by column."""

    def __init__(self, count: int) -> None:
        self.status = np.zeros(count, np.uint8)
        self.first_scheduled_ps = np.full(count, NEVER_PS, np.int64)
        self.first_token_ps = np.full(count, NEVER_PS, np.int64)
        self.finish_ps = np.full(count, NEVER_PS, np.int64)
        self.generated_tokens = np.zeros(count, np.int64)
        self.preemptions = np.zeros(count, np.int64)
        self.cached_tokens = np.zeros(count, np.int64)
        self.replica = np.full(count, -1, np.int64)
        self.first_token_step = np.full(count, -1, np.int64)
        self.last_token_step = np.full(count, -1, np.int64)


class _World:
    """What all replicas write to."""

    def __init__(self, requests: RequestTable, options: Options) -> None:
        self.requests = requests
        self.options = options
        self.out = _Outcomes(len(requests))
        self.gaps: list[tuple[int, int, int, bool]] = []
        self.token_ps: list[list[int]] = [[] for _ in range(len(requests))]


def run_reference(
    requests: RequestTable, options: Options | None = None, replicas: int = 1, seed: int = 0
) -> Reference:
    """Serve ``requests`` round-robin on ``replicas`` and return the record and the truth."""
    world = _World(requests, options or Options())
    served = [_Replica(world, number, replicas, seed) for number in range(replicas)]
    logs = [replica.serve() for replica in served]
    gaps = world.gaps
    record = RunRecord(
        requests=requests,
        outcomes=RequestOutcomes(**vars(world.out)),
        steps=tuple(logs),
        gaps=TokenGaps(
            request=np.array([gap[0] for gap in gaps], np.int64),
            previous_step=np.array([gap[1] for gap in gaps], np.int64),
            step=np.array([gap[2] for gap in gaps], np.int64),
            as_decode=np.array([gap[3] for gap in gaps], np.bool_),
        ),
        end_ps=max(replica.now for replica in served),
    )
    return Reference(record, world.token_ps)


class _Replica:
    def __init__(self, world: _World, number: int, replicas: int, seed: int) -> None:
        self.world, self.number = world, number
        self.rng = random.Random(f"{seed}-{number}")
        self.arrivals = deque(range(number, len(world.requests), replicas))
        self.waiting: deque[Live] = deque()
        self.running: list[Live] = []
        self.rows: list[Row] = []
        self.new_blocks: list[int] = []
        self.now = 0

    def serve(self) -> StepLog:
        options, limit = self.world.options, self.world.options.stop_after_steps
        while self.arrivals or self.waiting or self.running:
            if limit is not None and len(self.rows) >= limit:
                break
            self._take_arrivals()
            if self.waiting or self.running:
                self._step()
        rows = _joined(self.rows, options)
        columns: dict[str, Any] = {
            name: np.array([row[name] for row in rows], np.int64) for name in COLUMNS
        }
        return StepLog(
            **columns,
            new_blocks=np.array(self.new_blocks, np.int32),
            num_blocks=options.num_blocks,
        )

    def _take_arrivals(self) -> None:
        requests, out = self.world.requests, self.world.out
        if not self.waiting and not self.running:
            self.now = max(self.now, int(requests.arrival_ps[self.arrivals[0]]))
        while self.arrivals and requests.arrival_ps[self.arrivals[0]] <= self.now:
            index = self.arrivals.popleft()
            if requests.prompt_tokens[index] > self.world.options.longest:
                out.status[index] = REJECTED
            else:
                self.waiting.append(Live(index, int(requests.prompt_tokens[index])))

    def _step(self) -> None:
        options, rng = self.world.options, self.rng
        row: Row = dict.fromkeys(COLUMNS, 0) | {"steps": 1, "start_ps": self.now}
        self._preempt(row)
        held_before = self._held()
        decoding = [r for r in self.running if r.todo == 0 and rng.random() >= options.skip_chance]
        self._admit(row)
        emitting = [(live, False) for live in self._prefill(row)]
        for live in decoding:
            live.past += 1
            row["decode_seqs"] += 1
            row["decode_context_tokens"] += live.past
            emitting.append((live, True))
        row["duration_ps"] = (
            options.base_ps
            + options.per_seq_ps * (row["decode_seqs"] + row["prefill_seqs"])
            + options.per_context_ps
            * (row["decode_context_tokens"] + row["prefill_context_tokens"])
        )
        held = self._held()
        row["running"], row["waiting"] = len(self.running), len(self.waiting)
        row["free_blocks"] = options.num_blocks - held
        self.now += row["duration_ps"]
        for live, as_decode in emitting:
            row["finished"] += self._emit(live, as_decode)
        row["free_blocks_end"] = options.num_blocks - self._held()
        self.rows.append(row)
        self.new_blocks.append(held - held_before)

    def _held(self) -> int:
        return sum(-(-live.past // BLOCK) for live in self.running)

    def _preempt(self, row: Row) -> None:
        chance = self.world.options.preempt_chance
        for live in [r for r in self.running if r.todo == 0 and self.rng.random() < chance]:
            self.running.remove(live)
            live.todo, live.past = live.past + 1, 0
            self.waiting.appendleft(live)
            self.world.out.preemptions[live.index] += 1
            row["preempted"] += 1

    def _admit(self, row: Row) -> None:
        options, out = self.world.options, self.world.out
        while self.waiting and len(self.running) < options.slots and not row["preempted"]:
            live = self.waiting.popleft()
            self.running.append(live)
            row["admitted"] += 1
            if out.first_scheduled_ps[live.index] != NEVER_PS:
                continue
            out.first_scheduled_ps[live.index] = self.now
            out.replica[live.index] = self.number
            hit = options.cached_tokens if live.todo > options.cached_tokens else 0
            out.cached_tokens[live.index] = hit
            row["hit_tokens"] += hit
            live.past, live.todo = hit, live.todo - hit

    def _prefill(self, row: Row) -> list[Live]:
        """Compute prompt tokens within the budget; return whose prompt is complete."""
        budget, complete = self.world.options.budget, []
        for live in self.running:
            chunk = min(live.todo, budget)
            if chunk == 0:
                continue
            budget -= chunk
            live.todo, live.past = live.todo - chunk, live.past + chunk
            row["prefill_seqs"] += 1
            row["prefill_tokens"] += chunk
            row["prefill_context_tokens"] += live.past
            if live.todo == 0:
                complete.append(live)
        return complete

    def _emit(self, live: Live, as_decode: bool) -> int:
        """Note a token; return 1 if it was the request's last."""
        out, step, index = self.world.out, len(self.rows), live.index
        if not live.token_steps:
            out.first_token_ps[index] = self.now
            out.first_token_step[index] = step
        elif live.token_steps[-1] != step - 1 or not as_decode:
            self.world.gaps.append((index, live.token_steps[-1], step, as_decode))
        live.token_steps.append(step)
        self.world.token_ps[index].append(self.now)
        out.last_token_step[index] = step
        out.generated_tokens[index] += 1
        if len(live.token_steps) < self.world.requests.output_tokens[index]:
            return 0
        out.status[index] = FINISHED
        out.finish_ps[index] = self.now
        self.running.remove(live)
        return 1


def _joined(rows: list[Row], options: Options) -> list[Row]:
    """Join consecutive steps of one unchanged decode batch into one row."""
    joined: list[Row] = []
    for row in rows:
        if joined and _continues(joined[-1], row, options):
            joined[-1]["steps"] += 1
            joined[-1] |= {name: row[name] for name in ("finished", "free_blocks_end")}
        else:
            joined.append(dict(row))
    for row in joined:
        if row["steps"] > 1:
            row["duration_growth_ps"] = options.per_context_ps * row["decode_seqs"]
    return joined


def _continues(last: Row, row: Row, options: Options) -> bool:
    steps, growth = last["steps"], options.per_context_ps * last["decode_seqs"]
    length = steps * last["duration_ps"] + growth * (steps * (steps - 1) // 2)
    return (
        not any(last[name] or row[name] for name in ("admitted", "preempted", "prefill_seqs"))
        and last["finished"] == 0
        and all(last[name] == row[name] for name in ("decode_seqs", "running", "waiting"))
        and row["decode_context_tokens"]
        == last["decode_context_tokens"] + steps * last["decode_seqs"]
        and row["start_ps"] == last["start_ps"] + length
    )
