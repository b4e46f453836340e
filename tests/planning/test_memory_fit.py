"""Does it fit: terms that sum to the GPU, vLLM's log lines, and ways out that really fit."""

from __future__ import annotations

from typing import Any

import pytest

from simserve.inputs.deployment import resolve_deployment
from simserve.inputs.kv_capacity import KvCapacity
from simserve.inputs.prices import load_prices
from simserve.inputs.scenario import load_deployment_spec, load_scenario
from simserve.planning.memory_fit import MemoryFit, max_concurrency, memory_fit, vllm_lines

CASES: list[dict[str, Any]] = [
    {},
    {"model": "llama-3.1-70b"},
    {"model": "llama-3.1-70b", "tp": 4, "gpu": "a100-80gb-sxm"},
    {"model": "llama-3.1-405b", "tp": 8},
    {"gpu": "rtx-4090"},
    {"model": "gpt-oss-120b", "gpu": "l40s"},
    {"model": "gemma-3-27b"},
    {"model": "mixtral-8x7b", "gpu": "h100-sxm", "settings": ["max_num_seqs=64"]},
    {"gpu": "l4", "settings": ["num_gpu_blocks=9000"]},
    {"gpu": "l4", "settings": ["kv_cache_memory_bytes=8GB"]},
]


def fit_of(case: dict[str, Any]) -> MemoryFit:
    spec, origins = load_deployment_spec(**case)
    return memory_fit(spec, origins, load_prices())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_terms_sum_to_the_memory_and_what_is_too_much(case: dict[str, Any]) -> None:
    fit = fit_of(case)
    assert sum(term.bytes for term in fit.terms) == fit.gpu.memory_bytes + fit.over_bytes
    assert all(term.bytes >= 0 and term.kind and term.source for term in fit.terms)
    assert fit.over_bytes >= 0
    if fit.fits:
        assert fit.over_bytes == 0 and not fit.changes and fit.reason is None


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_run_would_agree_whether_it_fits(case: dict[str, Any]) -> None:
    fit = fit_of(case)
    if fit.deployment is not None:
        assert load_scenario(**case).deployment.kv == fit.deployment.kv
    else:
        assert fit.reason
        with pytest.raises(Exception, match="allowed"):
            load_scenario(**case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_change_that_is_proposed_fits_as_it_says(case: dict[str, Any]) -> None:
    fit = fit_of(case)
    spec, origins = load_deployment_spec(**case)
    if not fit.fits:
        assert len(fit.changes) == 3
    for change in fit.changes:
        deployment = resolve_deployment(spec.model_copy(update=change.settings), origins)
        assert deployment.kv == change.capacity
        assert deployment.engine.max_model_len == change.max_model_len
        assert max_concurrency(deployment.kv, change.max_model_len) >= 1
        assert change.settings and change.caveats


@pytest.mark.parametrize("case", CASES, ids=str)
def test_changes_are_ranked_by_dollars_and_settings_cost_none(case: dict[str, Any]) -> None:
    fit = fit_of(case)
    extra = [change.extra_usd_per_hour for change in fit.changes]
    known = [one for one in extra if one is not None]
    assert extra == [*sorted(known), *[None] * (len(extra) - len(known))]
    for change in fit.changes:
        if not {"tp", "gpu"} & set(change.settings):
            assert change.extra_usd_per_hour == 0
        elif fit.usd_per_hour is not None and change.usd_per_hour is not None:
            assert change.extra_usd_per_hour == pytest.approx(
                change.usd_per_hour - fit.usd_per_hour
            )


def test_a_cut_context_is_the_longest_that_fits() -> None:
    fit = fit_of({"gpu": "rtx-4090"})
    [change] = [one for one in fit.changes if list(one.settings) == ["max_model_len"]]
    length, size = change.max_model_len, change.capacity.block_size
    assert load_scenario(gpu="rtx-4090", settings=[f"max_model_len={length}"])
    with pytest.raises(Exception, match="at most"):
        load_scenario(gpu="rtx-4090", settings=[f"max_model_len={length + size}"])


def test_quantisation_makes_a_large_model_fit_without_more_dollars() -> None:
    fit = fit_of({"model": "llama-3.1-405b", "tp": 8})
    assert fit.changes[0].settings == {"quantization": "fp8"}
    assert fit.changes[0].extra_usd_per_hour == 0


def test_log_lines_are_those_of_vllm() -> None:
    # As vLLM 0.33 counts: blocks over blocks of one request; 101 blocks of 16, 1000 tokens each.
    kv = KvCapacity(num_blocks=101, block_bytes=1, block_size=16, terms=())
    assert vllm_lines(kv, 1000) == (
        "GPU KV cache size: 1,603 tokens",
        "Maximum concurrency for 1,000 tokens per request: 1.60x",
    )
    assert vllm_lines(kv, 16)[0] == "GPU KV cache size: 1,616 tokens"


def test_reserve_is_what_the_fraction_keeps_back() -> None:
    fit = fit_of({"settings": ["gpu_memory_utilization=0.8"]})
    terms = {term.name: term.bytes for term in fit.terms}
    visible = fit.gpu.memory_bytes - fit.gpu.cuda_reserved_bytes
    assert terms["reserve"] == visible - int(0.8 * visible)
    assert fit.deployment is not None
    assert 0 <= terms["free"] < fit.deployment.kv.block_bytes
