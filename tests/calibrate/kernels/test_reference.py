"""The float64 reference obeys the laws of what it computes."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from calibrate.kernels import reference
from calibrate.kernels.interface import AttentionShape, PagedBatch
from calibrate.kernels.pointwise import rope_table

SHAPE = AttentionShape(4, 2, 8, block_size=4, dtype=torch.float64, kv_dtype=torch.float64)


def drawn(*size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=generator, dtype=torch.float64)


def one_sequence(new: int, context: int, blocks: list[int]) -> PagedBatch:
    return PagedBatch(
        (new,),
        (context,),
        torch.tensor([0, new], dtype=torch.int32),
        torch.tensor([context], dtype=torch.int32),
        torch.tensor([blocks], dtype=torch.int32),
    )


def test_attention_to_one_token_returns_its_value() -> None:
    keys, values = drawn(3, 4, 2, 8), drawn(3, 4, 2, 8, seed=1)
    out = reference.attention(SHAPE, one_sequence(1, 1, [2]), drawn(1, 4, 8), keys, values)
    assert torch.allclose(out[0], values[2, 0].repeat_interleave(2, dim=0))


def test_attention_with_equal_logits_returns_the_mean_of_what_is_visible() -> None:
    values = drawn(3, 4, 2, 8)
    query = torch.zeros(2, 4, 8, dtype=torch.float64)
    out = reference.attention(SHAPE, one_sequence(2, 6, [2, 1]), query, drawn(3, 4, 2, 8), values)
    seen = torch.cat((values[2], values[1]))
    assert torch.allclose(out[0, ::2], seen[:5].mean(dim=0))
    assert torch.allclose(out[1, ::2], seen[:6].mean(dim=0))


def test_attention_does_not_depend_on_where_blocks_lie() -> None:
    keys, values, query = drawn(4, 4, 2, 8), drawn(4, 4, 2, 8, seed=1), drawn(3, 4, 8, seed=2)
    order = torch.tensor([2, 0, 3, 1])
    there = reference.attention(SHAPE, one_sequence(3, 10, [0, 1, 2]), query, keys, values)
    moved = one_sequence(3, 10, order.argsort()[:3].tolist())
    assert torch.allclose(
        there, reference.attention(SHAPE, moved, query, keys[order], values[order])
    )


def test_latent_attention_is_attention_whose_values_are_a_part_of_its_keys() -> None:
    cache, query = drawn(3, 4, 8), drawn(2, 4, 8, seed=1)
    batch = one_sequence(2, 7, [1, 2])
    out = reference.latent_attention(batch, query, cache, 6, SHAPE.scale)
    wide = cache[:, :, None, :].expand(-1, -1, 2, -1)
    assert torch.allclose(out, reference.attention(SHAPE, batch, query, wide, wide)[..., :6])


def test_rotation_keeps_norms_and_makes_products_depend_on_the_distance_alone() -> None:
    table = rope_table(100, 8, 10_000.0, torch.device("cpu")).double()
    query, key = drawn(1, 1, 8), drawn(1, 1, 8, seed=1)

    def product(query_at: int, key_at: int) -> torch.Tensor:
        rotated = reference.rope(query, table, torch.tensor([query_at]))
        assert torch.allclose(rotated.norm(), query.norm(), rtol=1e-6)
        return (rotated * reference.rope(key, table, torch.tensor([key_at]))).sum()

    assert torch.allclose(product(9, 2), product(73, 66), rtol=1e-5)
    assert not torch.allclose(product(9, 2), product(9, 3), rtol=1e-2)


def test_norm_makes_the_mean_square_one_and_activation_follows_torch() -> None:
    x = drawn(5, 16)
    normed = reference.rms_norm(x, torch.ones(16), 0.0)
    assert torch.allclose(normed.square().mean(dim=1), torch.ones(5, dtype=torch.float64))
    gate, up = x.chunk(2, dim=1)
    assert torch.allclose(reference.silu_mul(x), torch.nn.functional.silu(gate) * up)


def test_experts_that_are_all_alike_are_one_expert() -> None:
    gate_up, down, x = drawn(6, 4, seed=1), drawn(4, 3, seed=2), drawn(5, 4)
    ids = torch.tensor([[0, 2], [1, 0], [2, 1], [0, 1], [2, 0]])
    shares = torch.tensor([[0.25, 0.75]]).expand(5, 2)
    mixed = reference.experts(x, gate_up.expand(3, 6, 4), down.expand(3, 4, 3), ids, shares)
    assert torch.allclose(mixed, reference.silu_mul(x @ gate_up.T) @ down.T)
