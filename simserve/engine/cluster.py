"""The world: arrivals, a router, replicas, on one SimPy clock in picoseconds."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from itertools import repeat

import numpy as np
import simpy

from simserve.engine.closed_loop import Users, in_order_of_arrival
from simserve.engine.ledger import RequestLedger
from simserve.engine.pricing import Pricing
from simserve.engine.replica import Replica
from simserve.engine.world import StepObserver
from simserve.latency.model import StepLatencyModel
from simserve.policy.limits import SchedulerLimits
from simserve.policy.router import Router
from simserve.policy.scheduler import RequestView, Scheduler
from simserve.policy.token_stream import TokenStream
from simserve.records.clock import FAR_PS
from simserve.records.requests import RequestTable, SegmentTable
from simserve.records.run_record import REJECTED, RunMeta, RunRecord

PROGRESS_EVERY = 1024
"""Arrivals between two calls of a progress callback."""


_new = tuple.__new__  # half the price of a NamedTuple's own constructor


class Cluster:
    """Replicas behind a router, fed from a request table."""

    def __init__(
        self,
        requests: RequestTable,
        limits: SchedulerLimits,
        make_scheduler: Callable[[SchedulerLimits], Scheduler],
        latency: StepLatencyModel,
        router: Router,
        replicas: int = 1,
        observer: StepObserver | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.requests = requests
        self.limits = limits
        self.ledger = RequestLedger(requests, limits.max_model_len)
        self._env = simpy.Environment(initial_time=0)
        self._router = router
        self._on_progress = on_progress
        self._arrivals: list[int] = requests.arrival_ps.tolist()
        self._next_ps = 0  # when the next request arrives of those that wait for nobody
        self._users: Users | None = None
        self._views: list[RequestView] = []
        if requests.users is not None and requests.think_ps is not None:
            self._users = Users(requests.users, requests.think_ps, requests.next_turn)
            self._views = list(request_views(requests))
        pricing = Pricing(latency)
        self.replicas = [
            Replica(
                self._env,
                number,
                make_scheduler(limits),
                pricing,
                self.ledger,
                limits.usable_blocks,
                self,
                limits.async_scheduling,
                observer,
            )
            for number in range(replicas)
        ]

    def horizon_ps(self) -> int:
        """Return before when nothing arrives: the next arrival, or now if that is open.

        In a closed loop an answer of one replica may bring a request to any other.
        """
        if self._users is None:
            return self._next_ps
        if len(self.replicas) > 1:
            return int(self._env.now)
        return self._users.next_ps(self._next_ps)

    def on_finish(self, finished: Sequence[int], end_ps: int) -> None:
        """Let those arrive who waited for these answers, when they have read them."""
        if self._users is None:
            return
        for request in finished:
            found = self._users.after(request, end_ps)
            if found is not None:
                self._env.process(self._follow(*found))

    def run(self) -> RunRecord:
        """Serve every request and return what happened."""
        for replica in self.replicas:
            self._env.process(replica.serve())
        self._env.process(self._arrive())
        collecting = gc.isenabled()
        gc.disable()  # nothing in the loop makes cycles; scanning for them costs an eighth
        try:
            self._env.run()
        finally:
            if collecting:
                gc.enable()
        for replica in self.replicas:
            replica.stop()
        if self._on_progress is not None:
            self._on_progress(len(self.requests), len(self.requests))
        record = RunRecord(
            requests=self.requests,
            outcomes=self.ledger.outcomes(),
            steps=tuple(replica.writer.log() for replica in self.replicas),
            gaps=self.ledger.gaps(),
            end_ps=max(replica.now_ps for replica in self.replicas),
        )
        if self._users is None:
            return record
        if self._users.first and self.requests.next_turn is not None:
            last_session_ps = self._arrivals[self._users.first - 1]
            record = replace(record, meta=RunMeta(last_session_ps=last_session_ps))
        return in_order_of_arrival(record, self._users.arrived_ps)

    def _arrive(self) -> Generator[simpy.Event, None, None]:
        """Let all requests arrive that wait for nobody."""
        env, arrivals = self._env, self._arrivals
        views: Iterator[RequestView]
        if self._users is None:
            views = request_views(self.requests)
        else:
            views = iter(self._views[: self._users.first])
        for count, view in enumerate(views):
            arrival_ps = arrivals[view.request]
            self._next_ps = arrival_ps
            if arrival_ps > env.now:
                yield env.timeout(arrival_ps - int(env.now))
            self._submit(view)
            if self._on_progress is not None and not count % PROGRESS_EVERY:
                self._on_progress(sum(r.finished for r in self.replicas), len(self.requests))
        self._next_ps = FAR_PS

    def _follow(self, request: int, arrival_ps: int) -> Generator[simpy.Event, None, None]:
        yield self._env.timeout(arrival_ps - int(self._env.now))
        if self._users is not None:
            self._users.arrive()
        self._submit(self._views[request]._replace(arrival_ps=arrival_ps))

    def _submit(self, view: RequestView) -> None:
        if self.ledger.stop_tokens[view.request] < 1:
            self.ledger.status[view.request] = REJECTED  # no room for a token: vLLM refuses it
            self.on_finish([view.request], int(self._env.now))
        else:
            self._choose(view).submit(view)

    def _choose(self, view: RequestView) -> Replica:
        if len(self.replicas) == 1:
            return self.replicas[0]
        chosen = self._router.choose_replica(view, [r.view() for r in self.replicas])
        return self.replicas[chosen]


def request_views(requests: RequestTable) -> Generator[RequestView, None, None]:
    """Yield what schedulers may know of each request: everything but its output length."""
    prompt_tokens: list[int] = requests.prompt_tokens.tolist()
    arrival_ps: list[int] = requests.arrival_ps.tolist()
    nothing = repeat(0)
    priority = nothing if requests.priority is None else requests.priority.tolist()
    names = repeat("") if requests.request_id is None else requests.request_id
    # Two of the columns may be endless: the first sets the length.
    columns = zip(
        prompt_tokens, _token_streams(requests), priority, arrival_ps, names, strict=False
    )
    for request, (tokens, stream, rank, arrives_ps, name) in enumerate(columns):
        yield _new(RequestView, (request, tokens, stream, rank, arrives_ps, name))


def _token_streams(requests: RequestTable) -> Iterator[TokenStream]:
    if requests.segments is None:
        return map(TokenStream.unshared, range(len(requests)))
    return _segment_streams(requests, requests.segments)


def _segment_streams(requests: RequestTable, table: SegmentTable) -> Iterator[TokenStream]:
    offsets: list[int] = table.offsets.tolist()
    segment: list[int] = table.segment.tolist()
    tokens: list[int] = table.tokens.tolist()
    outputs = requests.output_segment
    unseen = _unseen_outputs(requests)
    for request in range(len(requests)):
        part = slice(offsets[request], offsets[request + 1])
        output = int(outputs[request]) if outputs is not None else -1 - request
        yield TokenStream.of_segments(segment[part], tokens[part], output, unseen[request])


def _unseen_outputs(requests: RequestTable) -> list[bool]:
    """Return, per request, whether no other request contains its generated tokens."""
    outputs = requests.output_segment
    if outputs is None or requests.segments is None:
        return [True] * len(requests)
    names, position, counts = np.unique(outputs, return_inverse=True, return_counts=True)
    repeated = np.isin(names, requests.segments.segment) | (counts > 1)
    unseen: list[bool] = (~repeated[position]).tolist()
    return unseen
