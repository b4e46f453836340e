"""A prefix cache that finds just what it is told to, whatever came before and is in memory.

What a prompt is to find becomes a text of its own, and that text is put into the cache before the
request is looked at. So a request finds just this part, and nobody else's work or memory decides
about it. In a *perfect* cache it is every block that an earlier request had
(``reusable_tokens``: what an endless cache would hold, timing aside).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simserve.engine.simulate import simulate
from simserve.inputs.deployment import Deployment
from simserve.inputs.scenario import Scenario
from simserve.latency.load import load_latency_model
from simserve.policy.cohort import CohortScheduler
from simserve.policy.decode_cohort import CohortRequest
from simserve.policy.scheduler import RequestView
from simserve.records.requests import IntArray, RequestTable, SegmentTable
from simserve.traffic.segments import offsets_of, reusable_tokens

COHORT = "chunked-prefill"
"""The scheduler that has such a twin."""
SCHEDULER = "simserve.planning.perfect_cache:PerfectCacheScheduler"
_PARTS = 3  # what is found, the rest of the prompt, and the output


def with_perfect_cache(deployment: Deployment) -> Deployment:
    """Return a deployment, which must have KV for everything, with a scheduler that does so."""
    engine = replace(deployment.engine, enable_prefix_caching=True)
    return replace(deployment, engine=engine, scheduler=SCHEDULER)


class PerfectCacheScheduler(CohortScheduler):
    """The scheduler, with the first of a prompt's two texts in the cache when it comes."""

    def add(self, request: RequestView) -> None:
        """Put an arriving request into the waiting queue, and what it finds into the cache."""
        stream = request.stream
        if len(stream.segments) == _PARTS:
            blocks = stream.ends[0] // self.limits.block_size
            earlier = CohortRequest(request, self.pool.root, True)
            self.pool.take(blocks)
            self.pool.publish(earlier, stream, blocks)
            self.pool.release(earlier, 0)
        super().add(request)


def with_perfect_hits(requests: RequestTable, scenario: Scenario) -> RequestTable:
    """Return the requests with all found that an earlier one had."""
    return _finding(requests, reusable_tokens(requests, scenario.deployment.engine.block_size))


def with_scaled_hits(
    requests: RequestTable, scenario: Scenario, *, deployment: Deployment, factor: float
) -> RequestTable:
    """Return the requests with ``factor`` times as much found as on ``deployment``.

    In whole blocks, and never the whole prompt: its last token is always computed.
    """
    names = tuple(map(str, range(len(requests))))
    named = replace(requests, request_id=names)
    record = simulate(named, deployment, load_latency_model(deployment))
    number = np.array(record.requests.request_id or names).astype(np.int64)
    hits = np.zeros(len(requests), dtype=np.int64)
    hits[number] = record.outcomes.cached_tokens
    size = deployment.engine.block_size
    most = (requests.prompt_tokens - 1) // size
    return _finding(
        requests, np.minimum(np.rint(hits * factor / size).astype(np.int64), most) * size
    )


def _finding(requests: RequestTable, found: IntArray) -> RequestTable:
    """Return the requests with prompts of two texts that nobody else has: found, and not found."""
    counts = 1 + (found > 0)
    offsets = offsets_of(counts)
    tokens = np.empty(offsets[-1], dtype=np.int64)
    tokens[offsets[:-1]] = found
    tokens[offsets[1:] - 1] = requests.prompt_tokens - found
    table = SegmentTable(offsets=offsets, segment=np.arange(offsets[-1]), tokens=tokens)
    return replace(requests, segments=table, output_segment=None)
