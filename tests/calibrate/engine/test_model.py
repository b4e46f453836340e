"""The engine's model computes what a plain transformer does, however its tokens are batched."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")

import numpy as np
import torch

from calibrate.engine.inputs import token_ids
from calibrate.engine.model import Transformer
from calibrate.engine.runner import Runner, load_kernels
from calibrate.engine.warm_up import tables_of
from calibrate.kernels import reference
from simserve.errors import InputError
from simserve.inputs.model_catalogue import load_model
from simserve.inputs.model_spec import ModelSpec
from simserve.policy.scheduler import Scheduled
from tests.calibrate.engine.small import LIMITS, MODEL, setup_of, small_runner

_EPS = 1e-5


def dense_logits(model: Transformer, ids: np.ndarray) -> torch.Tensor:
    """Return float64 logits of every token of one sequence: no cache, no pages, no batch."""
    spec = model.model
    hidden = model.embedding.double()[torch.from_numpy(ids)]
    tokens, group = len(ids), spec.attention_heads // spec.kv_heads
    positions, seen = torch.arange(tokens), torch.ones(tokens, tokens).tril().bool()
    for layer in model.layers:
        normed = reference.rms_norm(hidden, layer.attention_norm, _EPS)
        heads = (normed @ layer.qkv.double().T).view(tokens, -1, spec.head_size)
        q, k, v = heads.split([spec.attention_heads, spec.kv_heads, spec.kv_heads], dim=1)
        if spec.qk_norm:
            q = reference.rms_norm(q, layer.query_norm, _EPS)
            k = reference.rms_norm(k, layer.key_norm, _EPS)
        q, k = (reference.rope(one, model.cos_sin, positions) for one in (q, k))
        k, v = (one.repeat_interleave(group, dim=1) for one in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) * spec.head_size**-0.5
        weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
        mixed = torch.einsum("hqk,khd->qhd", weights, v).reshape(tokens, -1)
        hidden = hidden + mixed @ layer.o.double().T
        normed = reference.rms_norm(hidden, layer.ffn_norm, _EPS)
        gated = reference.silu_mul(normed @ layer.gate_up.double().T)
        hidden = hidden + gated @ layer.down.double().T
    return reference.rms_norm(hidden, model.last_norm, _EPS) @ model.head.double().T


def logits_of(runner: Runner, steps: list[list[Scheduled]], contexts: list[int]) -> torch.Tensor:
    """Return the logits of the sequences of the last of some steps."""
    tables = tables_of(runner.limits, contexts)
    with torch.inference_mode():
        for step in steps:
            prepared = runner.prepare(step, tables)
            prepared.work()
            prepared.copy_out()
    assert prepared.sampled.tolist() == [
        int(row[: runner.setup.model.vocab_size].argmax())
        for row in runner.work.logits[: len(steps[-1])]
    ]
    return runner.work.logits[: len(steps[-1])].double()


def check(runner: Runner, steps: list[list[Scheduled]], contexts: list[int]) -> None:
    got = logits_of(runner, steps, contexts)
    order = sorted(steps[-1], key=lambda entry: not entry.decode)
    for row, entry in enumerate(order):
        tokens = entry.past_tokens + entry.new_tokens
        ids = token_ids(np.full(tokens, entry.request), np.arange(tokens), MODEL.vocab_size)
        wanted = dense_logits(runner.model, ids)[-1]
        torch.testing.assert_close(got[row], wanted, rtol=1e-3, atol=1e-3)


def chunk(request: int, new: int, past: int) -> Scheduled:
    return Scheduled(request, new, past, False)


def decode(request: int, past: int) -> Scheduled:
    return Scheduled(request, 1, past, True)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_mixed_steps_equal_a_plain_transformer(qk_norm: bool) -> None:
    runner = small_runner(model=replace(MODEL, qk_norm=qk_norm))
    steps = [
        [chunk(0, 30, 0), chunk(1, 11, 0)],
        [decode(0, 30), chunk(1, 20, 11), chunk(2, 3, 0)],
        [chunk(2, 9, 3), decode(1, 31), decode(0, 31)],
    ]
    check(runner, steps, [40, 40, 40])


def test_padded_decodes_equal_a_plain_transformer() -> None:
    runner = small_runner()
    steps = [[chunk(i, 13 + i, 0) for i in range(3)], [decode(i, 13 + i) for i in range(3)]]
    assert runner.graph_size(3) == 4
    check(runner, steps, [40, 40, 40])


def test_a_recomputed_request_goes_on_as_if_nothing_had_been() -> None:
    runner = small_runner()
    before = [[chunk(0, 20, 0), chunk(1, 20, 0)], [decode(0, 20), decode(1, 20)]]
    again = [chunk(0, 22, 0), decode(1, 21)]  # preempted after a token, computed anew
    check(runner, [*before, again], [40, 40])


def test_a_tied_head_is_the_embedding() -> None:
    runner = small_runner(model=replace(MODEL, tied_embeddings=True))
    assert torch.equal(runner.model.head, runner.model.embedding)
    check(runner, [[chunk(0, 17, 0)]], [40])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_stay_finite_and_near_one_over_eighty_layers(dtype: torch.dtype) -> None:
    gemm = "torch-cpu-fp32" if dtype == torch.float32 else "torch-cpu-bf16"
    setup = setup_of(replace(MODEL, layers=80), dtype=dtype, gemm=gemm)
    runner = Runner(setup, LIMITS)
    logits = logits_of(runner, [[chunk(0, 40, 0)]], [40])
    assert torch.isfinite(logits).all()
    assert 0.1 < float(runner.work.residual[:40].float().pow(2).mean().sqrt()) < 10
    assert 0.1 < float(logits.std()) < 10


def test_one_seed_gives_the_same_weights() -> None:
    first, again = (Runner(setup_of(), LIMITS).model.layers[1].down for _ in range(2))
    other = Runner(setup_of(seed=1), LIMITS).model.layers[1].down
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("deepseek-v3", "experts"),
        ("qwen2.5-7b", "attention biases"),
        ("opt-13b", "biases|without gate"),
    ],
)
def test_models_of_another_shape_are_refused_by_name(name: str, what: str) -> None:
    model: ModelSpec = load_model(name)
    with pytest.raises(InputError, match=what):
        Transformer(model, load_kernels(setup_of()), torch.float32, torch.device("cpu"), 64)


def test_unknown_and_missing_kernels_are_refused_with_those_that_fit() -> None:
    with pytest.raises(InputError, match=r"attention: got fa4, allowed: torch, triton"):
        load_kernels(setup_of(attention="fa4"))
    with pytest.raises(InputError, match="attention: got fa3"):
        load_kernels(setup_of(attention="fa3"))
