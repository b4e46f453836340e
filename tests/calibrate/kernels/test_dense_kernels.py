"""Products, experts and small kernels: what they refuse, and laws beyond the check's."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given
from hypothesis import strategies as st

from calibrate.kernels.gemm_fp8 import RowScaledFp8
from calibrate.kernels.gemm_int import IntMmInt8, TinygemmInt4
from calibrate.kernels.moe import GroupedMm, MoeShape, route
from calibrate.kernels.quantise import LARGEST, grouped_4bit, scaled_rows
from calibrate.kernels.sampling import keep_top, sample_exponential
from calibrate.kernels.trials_dense import GemmTrial

rows_of_floats = st.lists(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=4, max_size=4), min_size=1, max_size=5
)


@given(rows_of_floats, st.sampled_from(sorted(LARGEST, key=str)))
def test_a_scaled_row_is_off_by_at_most_half_a_step(
    rows: list[list[float]], dtype: torch.dtype
) -> None:
    x = torch.tensor(rows)
    scaled = scaled_rows(x, dtype)
    error = (scaled.double() - x.double()).abs()
    # int8 steps are equal; an e4m3 value has 3 bits after the first, and 2^-9 is its least step.
    step = scaled.scale.double()
    if dtype.is_floating_point:
        step = torch.maximum(scaled.double().abs() * 2**-3, step * 2**-9)
    assert bool((error <= step * 0.5001 + 1e-12).all())


def test_a_row_of_zeros_stays_zeros() -> None:
    for dtype in LARGEST:
        assert float(scaled_rows(torch.zeros(2, 8), dtype).double().abs().max()) == 0


def test_four_bits_keep_the_ends_of_every_group() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    packed = grouped_4bit(weight, 32)
    groups = packed.double().view(8, 2, 32)
    spread = weight.view(8, 2, 32).double()
    step = packed.scale.double()
    assert int(packed.codes.min()) == 0
    assert int(packed.codes.max()) == 15
    assert bool(((groups.amax(-1) - spread.amax(-1)).abs() <= step).all())
    assert bool(((groups.amin(-1) - spread.amin(-1)).abs() <= step).all())


def test_sizes_that_a_gpu_cannot_serve_are_refused_with_the_rule() -> None:
    assert RowScaledFp8().refuses(3, 32, 64) is None
    assert "multiples of 16" in str(RowScaledFp8().refuses(3, 24, 64))
    assert IntMmInt8().refuses(17, 8, 8) is None
    assert "above 16" in str(IntMmInt8().refuses(16, 8, 8))
    assert "multiples of 8" in str(IntMmInt8().refuses(17, 8, 12))
    assert TinygemmInt4().refuses(1, 16, 128) is None
    assert "of 128" in str(TinygemmInt4().refuses(1, 16, 64))
    assert "multiples of 8" in str(GroupedMm().refuses(MoeShape(4, 2, 12, 16), 1))


def test_routing_takes_the_largest_logits_and_shares_sum_to_one() -> None:
    logits = torch.randn(20, 8, generator=torch.Generator().manual_seed(2))
    ids, shares = route(logits, 3)
    assert torch.equal(ids, logits.argsort(dim=1, descending=True)[:, :3])
    assert torch.allclose(shares.sum(dim=1), torch.ones(20))


def test_sampling_draws_tokens_as_often_as_their_probability() -> None:
    draws = 20_000
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    torch.manual_seed(7)
    out = torch.empty(draws, dtype=torch.int64)
    sample_exponential(logits.expand(draws, 4), 0.8, torch.empty(draws, 4), out)
    expected = (logits / 0.8).softmax(dim=0) * draws
    counts = out.bincount(minlength=4)
    # Chi-square of 3 degrees of freedom: above 16.3 once in a thousand seeds.
    assert float(((counts - expected).square() / expected).sum()) < 16.3


@given(st.integers(0, 6), st.floats(0.05, 1.0), st.integers(0, 1000))
def test_what_is_kept_is_the_shortest_list_that_reaches_top_p(
    top_k: int, top_p: float, seed: int
) -> None:
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(seed))
    kept = keep_top(logits, top_k, top_p)
    chosen = kept > -torch.inf
    assert torch.equal(kept[chosen], logits[chosen])
    probability = logits.softmax(dim=1)
    for row in range(3):
        order = probability[row].sort(descending=True).values
        reach = int((order.cumsum(0) < top_p - 1e-6).sum()) + 1
        limits = {
            min(n, top_k or 6, 6) for n in (reach, reach + 1)
        }  # a tie at top_p goes either way
        assert int(chosen[row].sum()) in limits
        assert bool(chosen[row, probability[row].argmax()])


@pytest.mark.parametrize("size", [(1, 16, 32), (40, 32, 64)])
def test_row_scaled_fp8_equals_float64_where_a_cpu_has_it(size: tuple[int, int, int]) -> None:
    trial = GemmTrial(RowScaledFp8(), size, torch.device("cpu"))
    trial.fill(torch.Generator().manual_seed(3))
    try:
        trial.run()
    except (RuntimeError, ValueError) as error:
        pytest.skip(f"this torch has it on GPUs alone: {str(error).splitlines()[0]}")
    assert trial.error() <= trial.limit
