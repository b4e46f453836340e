"""The same scenario again with other random numbers: independent samples of one deployment.

The seeds of replications are named streams of the scenario's seed, and the first is that seed
itself. So replication 3 of two scenarios that differ in a setting meets the same requests:
common random numbers, whose noise cancels where the two are compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from simserve.errors import InputError
from simserve.inputs.scenario import Scenario
from simserve.planning.processes import in_order
from simserve.planning.run_scenario import run
from simserve.records.requests import RequestTable
from simserve.results.run_sample import RunSample
from simserve.traffic.generate import generate
from simserve.traffic.streams import random_stream

# Seeds are printed and typed again; among a thousand, two are the same once in 10,000 times.
_SEEDS = 2**32


def replication_seed(seed: int, number: int) -> int:
    """Return the seed of replication ``number``, from 0; that of the first is ``seed``."""
    if number == 0:
        return seed
    return int(random_stream(seed, f"replication {number}").integers(_SEEDS))


def replication_of(scenario: Scenario, number: int) -> Scenario:
    """Return the scenario of replication ``number``."""
    return dataclasses.replace(scenario, seed=replication_seed(scenario.seed, number))


def replicate(scenario: Scenario, numbers: Sequence[int], *, workers: int = 1) -> list[RunSample]:
    """Run replications ``numbers`` of ``scenario`` and return their samples, in that order."""
    tasks = [replication_of(scenario, number) for number in numbers]
    return in_order(_sample, tasks, workers)


MOST_REPLICATIONS = 10_000


def check_count(replications: int) -> None:
    """Refuse a number of replications that is none, or more than anybody waits for."""
    if not 1 <= replications <= MOST_REPLICATIONS:
        allowed = f"an integer from 1 to {MOST_REPLICATIONS}"
        raise InputError("--replications", None, replications, allowed)


def check_random(scenario: Scenario, where: str) -> None:
    """Refuse a workload in which the seed decides nothing: its replications would be one run.

    Raises:
        InputError: naming the option ``where``.
    """
    if not is_random(scenario):
        allowed = "1: the workload is the same whatever the seed"
        raise InputError(where, None, "several replications", allowed)


def is_random(scenario: Scenario) -> bool:
    """Return whether the seed decides anything about the workload."""
    first, second = (
        generate(scenario.workload, replication_seed(scenario.seed, number)) for number in (0, 1)
    )
    pairs = zip(_drawn(first), _drawn(second), strict=True)
    return any(not np.array_equal(one, other) for one, other in pairs)


def _drawn(requests: RequestTable) -> list[Any]:
    """Return all that can be drawn at random; what a table does not have is None."""
    parts = requests.segments
    shared: list[Any] = (
        [None] * 3 if parts is None else [parts.offsets, parts.segment, parts.tokens]
    )
    names = ("priority", "request_class", "think_ps", "next_turn", "give_up_ps")
    always = [requests.arrival_ps, requests.prompt_tokens, requests.output_tokens]
    return [*always, *shared, *(getattr(requests, name) for name in names)]


def _sample(scenario: Scenario) -> RunSample:
    return run(scenario).sample
