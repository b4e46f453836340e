"""A model, limits and requests small enough for a test, and a runner that computes nothing."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from calibrate.engine.blocks import BlockTables
from calibrate.engine.inputs import HostStep, Layout, order_of
from calibrate.engine.runner import EngineSetup, PreparedStep, Runner
from simserve.inputs.model_spec import ModelSpec
from simserve.policy.limits import SchedulerLimits
from simserve.policy.scheduler import Scheduled
from simserve.records.clock import PS_PER_S
from simserve.records.requests import RequestTable

MODEL = ModelSpec(
    name="test-small",
    hf_id="none/test-small",
    layers=2,
    hidden_size=64,
    attention_heads=4,
    kv_heads=2,
    head_size=16,
    ffn_size=96,
    vocab_size=120,
    tied_embeddings=False,
    max_position_embeddings=512,
)
LIMITS = SchedulerLimits(
    max_num_seqs=6,
    max_num_batched_tokens=48,
    max_model_len=160,
    num_blocks=101,
    block_size=8,
    enable_prefix_caching=False,
)


def setup_of(model: ModelSpec = MODEL, **more: Any) -> EngineSetup:
    values: dict[str, Any] = {
        "model": model,
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "attention": "torch",
        "gemm": "torch-cpu-fp32",
        "ops": "torch",
        "graph_sizes": (1, 2, 4, 8),
        **more,
    }
    return EngineSetup(**values)


def small_runner(limits: SchedulerLimits = LIMITS, model: ModelSpec = MODEL) -> Runner:
    torch.set_num_threads(1)
    return Runner(setup_of(model), limits)


def some_requests(count: int, seed: int = 0, gap_s: float = 0.002) -> RequestTable:
    rng = np.random.default_rng(seed)
    return RequestTable(
        arrival_ps=np.round(np.cumsum(rng.exponential(gap_s, count)) * PS_PER_S).astype(np.int64),
        prompt_tokens=rng.integers(1, 90, count),
        output_tokens=rng.integers(1, 30, count),
    )


def table(arrivals_s: list[float], prompts: list[int], outputs: list[int]) -> RequestTable:
    return RequestTable(
        arrival_ps=np.array([round(one * PS_PER_S) for one in arrivals_s], np.int64),
        prompt_tokens=np.array(prompts, np.int64),
        output_tokens=np.array(outputs, np.int64),
    )


class IdleRunner:
    """Stands in for ``Runner``: prepares steps like it, and computes nothing."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self.limits = limits
        self.setup = SimpleNamespace(
            device=torch.device("cpu"), model=SimpleNamespace(vocab_size=MODEL.vocab_size)
        )
        self.prepared: list[list[Scheduled]] = []
        self._sampled = torch.zeros(1024, dtype=torch.int64)
        self._busy = itertools.cycle((10, 400, 3, 90))  # steps of several lengths

    def prepare(self, scheduled: list[Scheduled], blocks: BlockTables) -> PreparedStep:
        entries = order_of(scheduled)
        self.prepared.append(entries)
        tokens = sum(entry.new_tokens for entry in entries)
        host = HostStep((), (), Layout(tokens, len(entries), blocks.width), len(entries))
        turns = next(self._busy)
        return PreparedStep(
            lambda: sum(range(turns)), lambda: None, host, 0, self._sampled[: len(entries)]
        )

    def check_finite(self) -> None:
        """There are no logits."""


def idle_runner(limits: SchedulerLimits) -> Any:
    return IdleRunner(limits)


def with_limits(**more: Any) -> SchedulerLimits:
    return replace(LIMITS, **more)
