"""A plan has what the simulator is going to ask for, once each, the most valuable first."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrate.plans import batches, h200
from calibrate.plans.choose import PLANS, make_plan
from calibrate.plans.dry_run import dry_run_text
from calibrate.plans.plan import BLOCKS, Plan, in_order
from calibrate.plans.point import CEILING, LAUNCH
from simserve.errors import InputError
from simserve.inputs.model_catalogue import load_model
from simserve.inputs.model_matrices import layer_matrices, padded_vocab
from simserve.latency.tables.schema import KEYS


@functools.cache
def plan_named(name: str) -> Plan:
    return make_plan(name)


def test_the_plan_of_ten_minutes_has_its_points_and_takes_less() -> None:
    plan = plan_named(h200.NAME)
    assert 6_000 <= len(plan.points) <= 7_200
    assert plan.seconds() * (1 + plan.protocol.repeat_frac) < 600
    assert plan_named("cpu-smoke").seconds() < 15


@pytest.mark.parametrize("name", PLANS)
def test_every_point_stands_once_and_its_keys_are_the_tables_columns(name: str) -> None:
    plan = plan_named(name)
    names = Counter(point.name for point in plan.points)
    assert max(names.values()) == 1
    for point in plan.points:
        if point.table not in (CEILING, LAUNCH):
            assert set(point.keys) <= set(KEYS[point.table]), point.name
            required = {key for key, one in KEYS[point.table].items() if one.default is None}
            assert required <= set(point.keys), point.name


@pytest.mark.parametrize(
    ("model", "tps"),
    [
        ("llama-3.1-8b", (1, 2, 4, 8)),
        ("llama-3.1-70b", (2, 4, 8)),
        ("qwen3-32b", (1, 2, 4, 8)),
        ("qwen3-30b-a3b", (1, 2, 4)),
        ("deepseek-v3", (8,)),
    ],
)
def test_every_matrix_and_head_of_a_model_is_measured(model: str, tps: tuple[int, ...]) -> None:
    spec = load_model(model)
    points = plan_named(h200.NAME).points
    shapes = {(p.keys["n"], p.keys["k"]) for p in points if p.block == "gemm-bf16"}
    heads = {(p.keys["hq"], p.keys["hkv"]) for p in points if p.block == "decode"}
    latent = {p.keys["heads"] for p in points if p.block == "mla"}
    for tp in tps:
        wanted = {
            (one.outputs, one.inputs) for one in layer_matrices(spec, tp) if one.part != "experts"
        }
        wanted.add((-(-padded_vocab(spec) // tp), spec.hidden_size))
        assert wanted <= shapes
        if spec.mla is not None:
            assert spec.attention_heads // tp in latent
        else:
            own = spec.attention_heads // tp, max(1, spec.kv_heads // tp)
            assert own in heads


def test_value_only_falls_and_order_within_a_block_says_nothing() -> None:
    points = plan_named(h200.NAME).points
    places = [(point.tier, BLOCKS.index(point.block)) for point in points]
    assert places == sorted(places)
    rows = [p.keys["m"] for p in points if p.block == "gemm-bf16" and p.tier == 1]
    assert rows != sorted(rows) and rows != sorted(rows, reverse=True)
    assert in_order(reversed(points), 0) == in_order(points, 0)


def test_a_selection_keeps_the_order_and_the_session() -> None:
    whole = plan_named(h200.NAME)
    some = make_plan(h200.NAME, blocks=("decode", "steps"), models=("llama-3.1-8b",))
    kept = {point.name for point in some.points}
    assert {point.block for point in some.points} == {"decode", "steps"}
    assert [p.name for p in whole.points if p.name in kept] == [p.name for p in some.points]
    assert some.session == whole.session


def test_another_model_of_the_catalogue_is_planned_too() -> None:
    plan = make_plan(h200.NAME, models=("qwen3-8b",), blocks=("gemm-bf16",))
    shapes = {(point.keys["n"], point.keys["k"]) for point in plan.points}
    assert (24576, 4096) in shapes


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"name": "h100"}, "--plan"),
        ({"name": h200.NAME, "blocks": ("gem",)}, "--only"),
        ({"name": h200.NAME, "models": ("llama-8",)}, "--model"),
        ({"name": "cpu-smoke", "models": ("llama-3.1-8b",)}, "--model"),
    ],
)
def test_names_that_are_not_known_are_refused(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        make_plan(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PLANS)
def test_a_dry_run_fits_a_terminal_and_counts_every_point(name: str) -> None:
    plan = plan_named(name)
    lines = dry_run_text(plan).splitlines()
    assert max(map(len, lines)) <= 80
    counted = [line.split() for line in lines if line.split()[:1] and line.split()[0] in BLOCKS]
    assert sum(int(words[1].replace(",", "")) for words in counted) == len(plan.points)


def test_plans_and_help_need_no_torch() -> None:
    program = (
        "import sys; from calibrate.cli import click_command; click_command();"
        "from calibrate.plans.choose import make_plan; make_plan('cpu-smoke');"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@given(
    shape=st.sampled_from((batches.UNIFORM, batches.BIMODAL, batches.TRACE)),
    batch=st.integers(1, 300),
    mean=st.integers(16, 5000),
    seed=st.integers(0, 99),
)
def test_uneven_contexts_have_the_mean_asked_for(
    shape: str, batch: int, mean: int, seed: int
) -> None:
    contexts = batches.uneven_contexts(shape, batch, mean, seed)
    assert contexts == batches.uneven_contexts(shape, batch, mean, seed)
    assert len(contexts) == batch and min(contexts) >= 1
    # Each is rounded to a whole token, and none is below one.
    assert abs(np.mean(contexts) - mean) <= 1


@given(
    routing=st.sampled_from(batches.ROUTINGS),
    tokens=st.integers(1, 200),
    experts=st.sampled_from((8, 64, 128)),
    per_token=st.integers(1, 8),
)
def test_a_token_goes_to_different_experts_and_all_tokens_are_counted(
    routing: str, tokens: int, experts: int, per_token: int
) -> None:
    chosen = batches.routed(routing, tokens, experts, per_token, 0)
    assert chosen.shape == (tokens, per_token)
    assert all(len(set(row)) == per_token for row in chosen.tolist())
    active, most = batches.load(routing, tokens, experts, per_token, 0)
    assert per_token <= active <= min(experts, tokens * per_token)
    if routing == batches.BALANCED:
        assert most * tokens * per_token / experts <= -(-tokens * per_token // experts) + 1e-9


def test_kernels_of_a_plan_are_told_apart_by_kind_name_and_dtype() -> None:
    kernels = {point.kernel for point in make_plan("h200-10min").points}
    assert {
        "attention fa3 bf16", "attention fa3 fp8", "attention triton bf16", "mla flashmla",
        "gemm cublaslt-bf16 bf16", "gemm scaled-mm-row-fp8 fp8", "moe grouped-mm bf16",
        "pointwise triton bf16", "step fa3 bf16", "ceiling", "launch",
    } <= kernels  # fmt: skip
    cpu = {point.kernel for point in make_plan("cpu-smoke").points}
    assert {"attention torch fp32", "pointwise torch fp32", "step torch fp32"} <= cpu


def test_every_kernel_of_a_plan_has_the_name_that_the_check_gives_it() -> None:
    pytest.importorskip("torch")
    from calibrate.check import FAMILIES

    known = {f"{family}/{name}" for family, (table, _) in FAMILIES.items() for name in table}
    for name in PLANS:
        points = make_plan(name).points
        used = {label for point in points for label in point.labels}
        assert used <= known
        assert all(point.labels or point.table in (CEILING, LAUNCH) for point in points)
    step = next(point for point in make_plan("h200-10min").points if point.table == "step")
    assert step.labels == ("attention/fa3", "gemm/cublaslt-bf16", "ops/triton")
