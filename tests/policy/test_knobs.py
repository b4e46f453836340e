"""Every modelled engine setting, shown at work on a workload of a few requests.

The knob ledger (docs/knob-ledger.md) names these tests: one per setting, by its name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from simserve.engine.cluster import Cluster
from simserve.parity.case import CaseStepTime
from simserve.policy.cohort import CohortScheduler
from simserve.policy.limits import SchedulerLimits
from simserve.policy.router import RoundRobin
from simserve.records.requests import RequestTable, SegmentTable
from simserve.records.run_record import RunRecord

MS = 1_000_000_000  # in picoseconds
STEP = CaseStepTime(10 * MS, 0, 0)  # every step takes 10 ms
BASE = SchedulerLimits(
    max_num_seqs=8, max_num_batched_tokens=64, max_model_len=256, num_blocks=1000
)


def requests(
    *shapes: tuple[float, int, int], same_prompt: bool = False, priority: list[int] | None = None
) -> RequestTable:
    """Return requests given as (arrival in ms, prompt tokens, output tokens)."""
    arrival_ms, prompt, output = (list(column) for column in zip(*shapes, strict=True))
    count = len(shapes)
    segments = None
    if same_prompt:
        segments = SegmentTable(
            offsets=np.arange(count + 1),
            segment=np.zeros(count, dtype=np.int64),
            tokens=np.array(prompt, dtype=np.int64),
        )
    return RequestTable(
        arrival_ps=np.array([round(ms * MS) for ms in arrival_ms], dtype=np.int64),
        prompt_tokens=np.array(prompt, dtype=np.int64),
        output_tokens=np.array(output, dtype=np.int64),
        segments=segments,
        priority=None if priority is None else np.array(priority, dtype=np.int64),
    )


def serve(table: RequestTable, **changes: Any) -> RunRecord:
    """Serve a table with the base settings, some changed."""
    limits = replace(BASE, **changes)
    return Cluster(table, limits, CohortScheduler, STEP, RoundRobin()).run()


def steps(table: RequestTable, **changes: Any) -> dict[str, list[int]]:
    """Return the columns of the step log."""
    columns = serve(table, **changes).steps[0].expand()
    return {name: column.tolist() for name, column in columns.items()}


FOUR = requests(*[(0, 16, 4)] * 4)


def test_max_num_seqs_bounds_how_many_run() -> None:
    assert max(steps(FOUR, max_num_seqs=2)["running"]) == 2
    assert max(steps(FOUR)["running"]) == 4


def test_max_num_active_seqs_bounds_how_many_run_below_max_num_seqs() -> None:
    assert max(steps(FOUR, max_num_active_seqs=3)["running"]) == 3


def test_max_num_batched_tokens_is_the_budget_of_a_step() -> None:
    assert steps(FOUR, max_num_batched_tokens=40)["tokens"][0] == 40
    assert steps(FOUR)["tokens"][0] == 64


def test_max_model_len_ends_generation_and_rejects_prompts() -> None:
    table = requests((0, 16, 40), (0, 32, 4))
    outcomes = serve(table, max_model_len=32).outcomes
    assert outcomes.generated_tokens.tolist() == [16, 0]
    assert outcomes.status.tolist() == [1, 2]


def test_block_size_rounds_what_a_request_holds() -> None:
    for block_size, blocks in ((16, 2), (8, 3), (1, 17)):
        first = steps(requests((0, 17, 2)), block_size=block_size)
        assert first["free_blocks"][0] == BASE.usable_blocks - blocks


def test_num_gpu_blocks_is_what_requests_can_hold() -> None:
    table = requests((0, 30, 60), (0, 30, 60))
    assert serve(table, max_model_len=96).outcomes.preemptions.sum() == 0
    assert serve(table, max_model_len=96, num_blocks=8).outcomes.preemptions.sum() > 0


def test_enable_prefix_caching_shares_blocks_of_equal_prompts() -> None:
    table = requests((0, 40, 3), (50, 40, 3), same_prompt=True)
    assert serve(table).outcomes.cached_tokens.tolist() == [0, 32]
    assert serve(table, enable_prefix_caching=False).outcomes.cached_tokens.tolist() == [0, 0]


def test_enable_chunked_prefill_splits_a_prompt_over_steps() -> None:
    table = requests((0, 40, 2), (0, 60, 2))
    assert steps(table, max_model_len=64)["prefill_tokens"][:2] == [64, 36]
    whole = steps(table, max_model_len=64, enable_chunked_prefill=False)["prefill_tokens"]
    assert whole[:2] == [40, 60]


def test_long_prefill_token_threshold_caps_a_prompt_s_share_of_a_step() -> None:
    table = requests((0, 60, 2), (0, 8, 2))
    capped = steps(table, long_prefill_token_threshold=20)["prefill_tokens"]
    assert capped[:3] == [28, 20, 20]
    alone = requests((0, 60, 2))
    assert steps(alone, long_prefill_token_threshold=20)["prefill_tokens"][0] == 60


def test_long_prefill_token_threshold_adaptive_raises_the_cap_to_a_fair_share() -> None:
    table = requests((0, 60, 2), (0, 8, 2))
    fair = {"long_prefill_token_threshold": 20, "long_prefill_token_threshold_adaptive": True}
    assert steps(table, **fair)["prefill_tokens"][:2] == [40, 28]  # 64 tokens / 2 requests


def test_scheduling_policy_orders_the_queue() -> None:
    table = requests((0, 16, 4), (0, 16, 4), (0, 16, 4), priority=[2, 1, 0])
    in_turn = serve(table, max_num_seqs=1).outcomes.first_scheduled_ps
    ranked = serve(table, max_num_seqs=1, scheduling_policy="priority").outcomes.first_scheduled_ps
    assert np.argsort(in_turn).tolist() == [0, 1, 2]
    assert np.argsort(ranked).tolist() == [2, 1, 0]


def test_scheduler_reserve_full_isl_admits_only_prompts_that_fit_whole() -> None:
    table = requests((0, 60, 30), (0, 90, 2))
    tight = {"num_blocks": 10, "max_model_len": 128}  # 9 blocks; 4 and 6 for the prompts
    waits = serve(table, **tight).outcomes.first_scheduled_ps
    starts = serve(table, scheduler_reserve_full_isl=False, **tight).outcomes.first_scheduled_ps
    assert waits[1] > starts[1] == 0


def test_watermark_keeps_blocks_free_while_others_run() -> None:
    table = requests((0, 30, 8), (0, 30, 8))
    assert steps(table, num_blocks=20)["admitted"][0] == 2
    assert steps(table, num_blocks=20, watermark=0.8)["admitted"][0] == 1


def test_prefill_schedule_interval_spaces_steps_with_prefill() -> None:
    table = requests((0, 8, 30), *[(20 + ms, 8, 2) for ms in (0, 10, 20, 30)])
    every = [i for i, n in enumerate(steps(table)["prefill_tokens"]) if n]
    held = steps(table, prefill_schedule_interval=5)["prefill_tokens"]
    spaced = [i for i, n in enumerate(held) if n]
    assert every == [0, 2, 3, 4, 5]
    assert spaced[:2] == [0, 5]


def test_async_scheduling_plans_a_step_before_the_last_one_ends() -> None:
    table = requests((0, 8, 30), (25, 8, 2))  # the second arrives within the third step
    in_turn = serve(table).outcomes.first_token_ps[1]
    ahead = serve(table, async_scheduling=True).outcomes.first_token_ps[1]
    assert (in_turn, ahead) == (40 * MS, 50 * MS)
