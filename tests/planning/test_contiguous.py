"""Without paging: shares that sum, a buddy allocator that loses nothing, and who finishes when."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.planning.contiguous import (
    LITERATURE_HIGH,
    LITERATURE_LOW,
    Contiguous,
    Pool,
    Shares,
    _Buddies,
    compare_contiguous,
)
from simserve.records.requests import RequestTable

BLOCK = 16


def requests_of(prompt: list[int], output: list[int]) -> RequestTable:
    return RequestTable(
        arrival_ps=np.zeros(len(prompt), np.int64),
        prompt_tokens=np.array(prompt, np.int64),
        output_tokens=np.array(output, np.int64),
    )


def compared(
    lengths: list[tuple[int, int]], tokens: int, longest: int, seqs: int = 1000
) -> Contiguous:
    pool = Pool(tokens=tokens, block_size=BLOCK, max_model_len=longest, max_num_seqs=seqs)
    return compare_contiguous(requests_of(*map(list, zip(*lengths, strict=True))), pool)


workloads = st.lists(st.tuples(st.integers(1, 80), st.integers(1, 48)), min_size=1, max_size=40)


@settings(max_examples=60)
@given(lengths=workloads, blocks=st.integers(8, 60), seqs=st.sampled_from([3, 1000]))
def test_shares_of_every_server_sum_to_the_pool(
    lengths: list[tuple[int, int]], blocks: int, seqs: int
) -> None:
    found = compared(lengths, blocks * BLOCK, 128, seqs)
    for one in found.servers:
        for shares in (one.while_waiting, one.whole_run):
            parts = [getattr(shares, name) for name in Shares.__slots__]
            assert sum(parts) == pytest.approx(1.0)
            assert min(parts) >= -1e-12
        assert one.mean_running <= seqs


@settings(max_examples=60)
@given(lengths=workloads, blocks=st.integers(8, 60), seqs=st.sampled_from([3, 1000]))
def test_paging_uses_at_least_as_much_of_the_pool_and_is_done_no_later(
    lengths: list[tuple[int, int]], blocks: int, seqs: int
) -> None:
    found = compared(lengths, blocks * BLOCK, 128, seqs)
    contiguous, paged = found.server("contiguous"), found.server("paged")
    assert paged.steps <= contiguous.steps
    assert paged.whole_run.used >= contiguous.whole_run.used - 1e-12
    assert contiguous.while_waiting.external == 0.0


@settings(max_examples=60)
@given(
    tokens=st.integers(16, 4096),
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=60),
    seed=st.integers(0, 1000),
)
def test_pieces_of_the_buddy_allocator_never_overlap_and_all_come_back(
    tokens: int, sizes: list[int], seed: int
) -> None:
    memory, rng = _Buddies(tokens), np.random.default_rng(seed)
    before = {size: set(places) for size, places in memory.free.items()}
    held: list[tuple[int, int]] = []
    for bit in sizes:
        place = memory.take(1 << bit) if 1 << bit <= memory.largest else None
        if place is not None:
            held.append((place, 1 << bit))
        if held and rng.random() < 0.4:
            memory.give_back(*held.pop(int(rng.integers(len(held)))))
        taken = sorted(held)
        assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(taken))
        assert sum(n for _, n in held) + sum(
            size * len(places) for size, places in memory.free.items()
        ) == tokens  # fmt: skip
    for place, size in held:
        memory.give_back(place, size)
    assert memory.free == before


def test_a_slot_holds_one_request_and_the_rest_of_it_is_wasted() -> None:
    # 64 tokens are four slots of 16; each request stores 8, 9, 10, 11 of them in four steps.
    use = compared([(8, 4)], 64, 16).server("contiguous")
    assert use.mean_running == pytest.approx(4.0)
    assert use.whole_run.used == pytest.approx(9.5 / 16 * use.mean_running / 4, rel=0.1)
    assert use.while_waiting.used == pytest.approx(9.5 / 16)
    assert use.while_waiting.reserved == pytest.approx(1.5 / 16)
    assert use.while_waiting.internal == pytest.approx(5 / 16)


def test_free_pieces_that_do_not_join_are_external_fragmentation() -> None:
    # Pieces of 16 for two short requests between two long ones; when the short ones are done, 32
    # slots are free in two pieces, and the next request needs 32 in one.
    lengths = [(14, 2), (1, 15), (14, 2), (1, 15), (30, 2)]
    assert compared(lengths * 20, 64, 64).server("buddy").while_waiting.external > 0.05


def test_longer_requests_than_a_server_takes_are_counted() -> None:
    found = compared([(10, 10), (200, 10)], 256, 128)
    assert found.too_long == 1
    # 96 slots are pieces of 64 and 32: a request of 65 tokens needs 128.
    assert compared([(60, 5), (10, 10)], 96, 96).server("buddy").refused > 0


def test_pool_smaller_than_one_request_is_refused() -> None:
    with pytest.raises(InputError, match=r"max_model_len: got 128, allowed: at most the 64"):
        compared([(8, 4)], 64, 128)
    with pytest.raises(InputError, match="only longer requests"):
        compared([(100, 100)], 256, 128)


def test_textbook_waste_is_in_the_range_of_the_literature() -> None:
    """The setting of the paper: OPT-13B on 40 GB, contexts of 2048, lengths like ShareGPT's.

    Its figure 11 gives the means, 161 and 338 tokens; that both are exponential is assumed here.
    """
    rng = np.random.default_rng(0)
    prompt, output = (
        np.maximum(1, rng.exponential(mean, 2000)).astype(int).tolist() for mean in (161, 338)
    )
    # 12 GiB of KV memory at 800 KiB a token: the 15.7 K slots of the paper's table 1.
    found = compared(list(zip(prompt, output, strict=True)), 15_728, 2048)
    used = found.server("contiguous").while_waiting.used
    assert LITERATURE_LOW.value <= used <= LITERATURE_HIGH.value
    assert found.server("paged").while_waiting.used > 0.9
    assert 2 < found.more_requests < 6
