"""What a server without paging would do with the same KV pool, and the same requests.

Three ways to give out memory, at a queue that is never empty, first come, first served, one
token a step:

* ``contiguous``: every request gets ``max_model_len`` slots in one piece;
* ``buddy``: one piece of the power of two that holds prompt and output, from a buddy allocator
  (a server that knew each output's length in advance; none does);
* ``paged``: blocks as they are needed, the youngest request preempted when there are none.

Slots hold a token (used), or will (reserved), or never will (internal). Free slots are external
fragmentation while they would be enough for the next request, were they in one piece.
Times are in steps: a prompt takes one, so lengths and not speeds decide. Prompts share nothing.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

import numpy as np

from simserve.errors import InputError
from simserve.inputs.sourced import Sourced
from simserve.records.requests import IntArray, RequestTable

LITERATURE_LOW = Sourced(
    0.204,
    "imported",
    "Kwon et al., Efficient Memory Management for LLM Serving with PagedAttention (SOSP 2023), "
    "section 1 and figure 2: 20.4-38.2 % of the KV memory holds tokens, contexts of 2048",
    "2023-10-23",
)
LITERATURE_HIGH = Sourced(0.382, "imported", LITERATURE_LOW.source, LITERATURE_LOW.date)

# So many requests for each one that fits make the start and the end of the run unimportant.
REQUESTS_PER_PLACE = 6
# And no more steps than this, which take a second or two.
MOST_STEPS = 30_000
FEWEST_REQUESTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Where the slots of the pool are, on average over time; they sum to 1."""

    used: float
    reserved: float
    internal: float
    external: float
    free: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUse:
    """How one server used the pool: while requests waited, and over the whole run."""

    name: str
    while_waiting: Shares
    whole_run: Shares
    mean_running: float  # while requests waited
    steps: int
    preemptions: int
    refused: int  # more than the largest piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Contiguous:
    """The servers side by side; ``requests`` went through each, ``too_long`` through none."""

    servers: tuple[ServerUse, ...]
    requests: int
    too_long: int
    pool_tokens: int
    max_model_len: int
    max_num_seqs: int

    def server(self, name: str) -> ServerUse:
        """Return the server of that name."""
        return next(one for one in self.servers if one.name == name)

    @property
    def more_requests(self) -> float:
        """How many times as many requests run at once with paging as without."""
        return self.server("paged").mean_running / self.server("contiguous").mean_running


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The KV pool that all servers have, in tokens, and the limits of the engine."""

    tokens: int
    block_size: int
    max_model_len: int
    max_num_seqs: int


def compare_contiguous(requests: RequestTable, pool: Pool) -> Contiguous:
    """Return what each way of giving out memory makes of the lengths of ``requests``.

    The requests are repeated, or cut short, until the queue is long against the pool.

    Raises:
        InputError: if the pool does not hold one request of ``max_model_len``, or every
            request is longer.
    """
    if pool.tokens < pool.max_model_len:
        allowed = f"at most the {pool.tokens} tokens of the KV pool"
        raise InputError("--contiguous", "max_model_len", pool.max_model_len, allowed)
    fits = requests.prompt_tokens + requests.output_tokens <= pool.max_model_len
    prompt, output = requests.prompt_tokens[fits], requests.output_tokens[fits]
    if not len(prompt):
        allowed = "a workload with requests that are no longer than max_model_len"
        raise InputError("--contiguous", "workload", "only longer requests", allowed)
    count = _how_many(prompt, output, pool)
    at = np.arange(count) % len(prompt)
    prompt, output = prompt[at], output[at]
    whole = np.full(count, pool.max_model_len)
    pieces = 1 << np.ceil(np.log2(prompt + output)).astype(np.int64)
    servers = (
        _in_one_piece("contiguous", prompt, output, whole, pool, _Slots(pool)),
        _in_one_piece("buddy", prompt, output, pieces, pool, _Buddies(pool.tokens)),
        _in_pages(prompt, output, pool),
    )
    return Contiguous(
        servers=servers,
        requests=count,
        too_long=int((~fits).sum()),
        pool_tokens=pool.tokens,
        max_model_len=pool.max_model_len,
        max_num_seqs=pool.max_num_seqs,
    )


def _how_many(prompt: IntArray, output: IntArray, pool: Pool) -> int:
    """Return how many requests to send: many for each place, but no more than time allows."""
    held = float((prompt + output / 2).mean())
    places = max(1.0, min(pool.max_num_seqs, pool.tokens / held))
    wanted = max(len(prompt), REQUESTS_PER_PLACE * places)
    return round(max(FEWEST_REQUESTS, min(wanted, MOST_STEPS * places / float(output.mean()))))


class _Slots:
    """Equal pieces of ``max_model_len``: any free one will do."""

    def __init__(self, pool: Pool) -> None:
        self.free_pieces = pool.tokens // pool.max_model_len
        self.largest = pool.max_model_len

    def take(self, _size: int) -> int | None:
        """Return a piece, None if there is none."""
        if not self.free_pieces:
            return None
        self.free_pieces -= 1
        return 0

    def give_back(self, _place: int, _size: int) -> None:
        """Free a piece."""
        self.free_pieces += 1


class _Buddies:
    """A buddy allocator over the powers of two that make up the pool."""

    def __init__(self, tokens: int) -> None:
        self.free: dict[int, set[int]] = {}
        self.largest = 1 << (tokens.bit_length() - 1)
        place = 0
        for bit in range(tokens.bit_length() - 1, -1, -1):
            self.free[1 << bit] = set()
            if tokens >> bit & 1:  # larger powers first, so that a piece stands at a multiple
                self.free[1 << bit].add(place)
                place += 1 << bit

    def take(self, size: int) -> int | None:
        """Return where a piece of ``size`` (a power of two) begins, None if there is none."""
        have = size
        while have <= self.largest and not self.free[have]:
            have *= 2
        if have > self.largest:
            return None
        place = min(self.free[have])
        self.free[have].remove(place)
        while have > size:
            have //= 2
            self.free[have].add(place + have)
        return place

    def give_back(self, place: int, size: int) -> None:
        """Free a piece and merge it with its buddy as long as that is free too."""
        while place ^ size in self.free[size]:
            self.free[size].remove(place ^ size)
            place &= ~size
            size *= 2
        self.free[size].add(place)


def _in_one_piece(
    name: str,
    prompt: IntArray,
    output: IntArray,
    size: IntArray,
    pool: Pool,
    memory: _Slots | _Buddies,
) -> ServerUse:
    """Serve requests that hold ``size`` slots from admission to their last token."""
    served = np.flatnonzero(size <= memory.largest)
    begin = np.zeros(len(prompt), np.int64)
    running: list[tuple[int, int, int]] = []  # (end, request, place)
    now, held, external = 0, 0, 0
    for request in served.tolist():
        piece = int(size[request])
        while True:
            place = memory.take(piece) if len(running) < pool.max_num_seqs else None
            if place is not None:
                break
            end, done, where = heapq.heappop(running)
            enough = len(running) + 1 < pool.max_num_seqs and pool.tokens - held >= piece
            external += (pool.tokens - held) * (end - now) if enough else 0
            now = end
            memory.give_back(where, int(size[done]))
            held -= int(size[done])
        begin[request] = now
        held += piece
        heapq.heappush(running, (now + int(output[request]), request, place))
    chosen = (prompt[served], output[served], size[served], begin[served])
    end = int((begin[served] + output[served]).max(initial=1))
    waiting = max(now, 1)
    return ServerUse(
        name=name,
        while_waiting=_shares_until(waiting, *chosen, pool.tokens, external),
        whole_run=_shares_until(end, *chosen, pool.tokens, external),
        mean_running=float(np.minimum(output[served], waiting - chosen[3]).clip(0).sum()) / waiting,
        steps=end,
        preemptions=0,
        refused=len(prompt) - len(served),
    )


def _shares_until(
    end: int,
    prompt: IntArray,
    output: IntArray,
    size: IntArray,
    begin: IntArray,
    pool_tokens: int,
    external: int,
) -> Shares:
    """Return the shares up to step ``end``; in its k-th step a request holds prompt + k - 1."""
    steps = np.minimum(output, end - begin).clip(0)
    used = int((steps * prompt + steps * (steps - 1) // 2).sum())
    ever = int((steps * (prompt + output - 1)).sum())
    held, everything = int((steps * size).sum()), end * pool_tokens
    return Shares(
        used=used / everything,
        reserved=(ever - used) / everything,
        internal=(held - ever) / everything,
        external=external / everything,
        free=(everything - held - external) / everything,
    )


def _in_pages(prompt: IntArray, output: IntArray, pool: Pool) -> ServerUse:
    """Serve requests that take a block when they need it; the youngest gives way."""
    size, blocks = pool.block_size, pool.tokens // pool.block_size
    queue = deque(zip(prompt.tolist(), output.tolist(), strict=True))  # (stored tokens, to come)
    stored, left = np.empty(0, np.int64), np.empty(0, np.int64)
    step = preemptions = 0
    used = held = running = 0
    at_last_admission = (1, 0, 0, 0)
    while queue or len(stored):
        need = -(-stored // size)
        before = len(stored)
        while need.sum() > blocks:
            queue.appendleft((int(stored[-1]), int(left[-1])))
            stored, left, need = stored[:-1], left[:-1], need[:-1]
        preemptions += before - len(stored)
        if before == len(stored):
            stored, left = _admit(queue, stored, left, blocks - int(need.sum()), pool)
            if len(stored) > before:
                at_last_admission = (max(step, 1), used, held, running)
        used += int(stored.sum())
        held += int((-(-stored // size)).sum()) * size
        running += len(stored)
        step += 1
        stored, left = stored + 1, left - 1
        stored, left = stored[left > 0], left[left > 0]
    return ServerUse(
        name="paged",
        while_waiting=_paged_shares(*at_last_admission[:3], pool.tokens),
        whole_run=_paged_shares(step, used, held, pool.tokens),
        mean_running=at_last_admission[3] / at_last_admission[0],
        steps=step,
        preemptions=preemptions,
        refused=0,
    )


def _admit(
    queue: deque[tuple[int, int]], stored: IntArray, left: IntArray, free_blocks: int, pool: Pool
) -> tuple[IntArray, IntArray]:
    """Return the running requests with those that now fit, in the order of the queue."""
    new: list[tuple[int, int]] = []
    while queue and len(stored) + len(new) < pool.max_num_seqs:
        need = -(-queue[0][0] // pool.block_size)
        if need > free_blocks:
            break
        free_blocks -= need
        new.append(queue.popleft())
    if not new:
        return stored, left
    more = np.array(new, np.int64)
    return np.append(stored, more[:, 0]), np.append(left, more[:, 1])


def _paged_shares(steps: int, used: int, held: int, pool_tokens: int) -> Shares:
    everything = steps * pool_tokens
    return Shares(
        used=used / everything,
        reserved=0.0,
        internal=(held - used) / everything,
        external=0.0,
        free=(everything - held) / everything,
    )
