from __future__ import annotations

import numpy as np
import pytest

from simserve.results.engine_use import engine_use, prefix_use
from tests.results.reference_run import Options, random_requests, request_table, run_reference


@pytest.mark.parametrize("replicas", [1, 3])
def test_use_agrees_with_the_expanded_steps(replicas: int) -> None:
    options = Options(num_blocks=50, preempt_chance=0.02)
    record = run_reference(random_requests(60, 2), options, replicas).record
    use = engine_use(record)
    steps = [log.expand() for log in record.steps]
    seqs = np.concatenate([one["decode_seqs"] + one["prefill_seqs"] for one in steps])
    held = np.concatenate([50 - one["free_blocks"] for one in steps])
    spent_ps = np.concatenate([one["end_ps"] - one["start_ps"] for one in steps])
    span_ps = (record.end_ps - int(record.requests.arrival_ps[0])) * replicas
    assert use.steps == len(seqs)
    assert use.batch_mean_seqs == pytest.approx(seqs.mean(), rel=1e-12)
    assert use.kv_peak_frac == held.max() / 50
    # Nothing is held while a replica of the reference loop is idle.
    assert use.kv_mean_frac == pytest.approx(float(held @ spent_ps) / 50 / span_ps, rel=1e-9)
    assert use.busy_frac == pytest.approx(spent_ps.sum() / span_ps, rel=1e-12)
    assert use.preemptions == sum(one["preempted"].sum() for one in steps) > 0


def test_idle_time_counts_against_the_busy_share() -> None:
    # Two requests of one 10 ms step each, 90 ms apart: busy 20 of 100 ms.
    options = Options(per_seq_ps=0, per_context_ps=0)
    record = run_reference(request_table([0, 90], [8, 8], [1, 1]), options).record
    assert engine_use(record).busy_frac == pytest.approx(0.2, rel=1e-12)


def test_blocks_held_through_idle_time_count_in_the_mean() -> None:
    record = run_reference(
        request_table([0, 90], [8, 8], [1, 1]),
        Options(per_seq_ps=0, per_context_ps=0, num_blocks=10),
    ).record
    assert engine_use(record).kv_mean_frac == pytest.approx(0.1 * 0.2, rel=1e-12)
    record.steps[0].free_blocks_end[0] = 5
    assert engine_use(record).kv_mean_frac == pytest.approx(0.1 * 0.2 + 0.5 * 0.8, rel=1e-12)


def test_a_run_without_steps_has_no_fractions() -> None:
    record = run_reference(request_table([0], [9], [1]), Options(longest=1)).record
    use = engine_use(record)
    assert (use.steps, use.kv_peak_frac, use.batch_mean_seqs) == (0, None, None)
    assert prefix_use(record, 16).token_hit_frac is None


def test_prefix_hits_are_a_share_of_the_admitted_prompts() -> None:
    # Prompts of 40 hit 32 tokens, the one of 20 none, the one of 900 is rejected.
    requests = request_table([0, 1, 2, 3], [40, 40, 20, 900], [1] * 4)
    use = prefix_use(run_reference(requests, Options(cached_tokens=32, longest=500)).record, 16)
    assert (use.cached_tokens, use.prompt_tokens) == (64, 100)
    assert use.token_hit_frac == 0.64
    # Whole blocks: 2 + 2 + 0 of 2 + 2 + 1.
    assert use.block_hit_frac == 0.8


def test_a_preempted_request_counts_its_hits_once() -> None:
    options = Options(cached_tokens=16, preempt_chance=0.1)
    record = run_reference(request_table([0], [40], [60]), options).record
    assert record.outcomes.preemptions[0] > 0
    assert prefix_use(record, 16).cached_tokens == 16
