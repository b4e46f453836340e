"""Trials of one kernel at one size: fresh inputs in place, a launch, an error against float64.

A trial keeps its tensors where they are, so that the launch can be captured in a CUDA graph and
replayed after ``fill`` has changed what they hold, lengths and block tables included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch

from calibrate.kernels import reference
from calibrate.kernels.interface import (
    AttentionShape,
    PagedAttention,
    PagedBatch,
    replan,
    replayable,
)
from calibrate.kernels.latent import LatentAttention, LatentShape

# Relative Frobenius errors. Rounding alone gives 2e-3 in bfloat16 and under 1e-6 in float32; a
# wrong index, mask or scale gives 1e-1 and more. fp8 keys and values may be multiplied as fp8.
LIMITS: Final[Mapping[torch.dtype, float]] = {
    torch.float32: 1e-4,
    torch.float16: 1e-2,
    torch.bfloat16: 1e-2,
    torch.float8_e4m3fn: 6e-2,
}
# What lies in the cache beyond a context is this much larger than what is in it.
GARBAGE: Final = 20.0


class Trial(Protocol):
    """One kernel at one size."""

    case: str
    limit: float

    def refuses(self) -> str | None:
        """Say why the kernel does not serve this size; None if it does."""
        ...

    def fill(self, generator: torch.Generator) -> None:
        """Draw new inputs into the same tensors, poison the output, compute what is expected."""
        ...

    def run(self) -> None:
        """Launch."""
        ...

    def error(self) -> float:
        """Return how far the output is from what is expected; NaN if any of it is."""
        ...


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the Frobenius norm of the difference over that of what is expected."""
    return float((got.double() - expected).norm() / expected.norm())


def normal_(tensor: torch.Tensor, generator: torch.Generator, scale: float = 1.0) -> None:
    """Fill a tensor of any float dtype with normal values."""
    drawn = torch.randn(tensor.shape, generator=generator, device=tensor.device)
    tensor.copy_((drawn * scale).to(tensor.dtype))


def overwrite(held: Any, new: Any) -> None:
    """Copy the contents of ``new`` into ``held``: a tensor, or a dataclass of tensors."""
    if isinstance(held, torch.Tensor):
        held.copy_(new)
    elif dataclasses.is_dataclass(held):
        for field in dataclasses.fields(held):
            overwrite(getattr(held, field.name), getattr(new, field.name))


def brought_up_to_date(kernel: object, planned: Any, batch: PagedBatch) -> None:
    """Plan anew for what ``fill`` wrote into the tensors, as an engine does before a replay."""
    contexts = tuple(batch.context_lens.tolist())
    replan(kernel, planned, dataclasses.replace(batch, context_tokens=contexts))


@dataclass(frozen=True, slots=True)
class Lengths:
    """Sequences as (new tokens, context tokens)."""

    name: str
    pairs: tuple[tuple[int, int], ...]


LENGTHS: Final = (
    Lengths("decode 1", ((1, 517),)),
    Lengths("decode 7 uneven", tuple((1, c) for c in (1, 16, 17, 700, 33, 64, 5))),
    Lengths("prefill 150", ((150, 150),)),
    Lengths("prefill 2 with past", ((64, 300), (33, 40))),
    Lengths("mixed 4+2", ((1, 90), (40, 40), (1, 1), (1, 260), (17, 129), (1, 48))),
)


# An engine's sizes: many waves of programs, uneven splits, several tiles of queries.
LARGE: Final = (
    Lengths("decode 64 long", tuple((1, 64 * blocks) for blocks in range(1, 65))),
    Lengths("prefill 2048+2048", ((2048, 4096),)),
    Lengths("mixed 16+1 long", (*[(1, 2000)] * 16, (1024, 3000))),
)


class Pages:
    """The sequences of a trial: lengths, block table, and which slots of the cache they fill."""

    def __init__(self, lengths: Lengths, block_size: int, device: torch.device) -> None:
        self.block_size = block_size
        news, self.most = zip(*lengths.pairs, strict=True)
        starts = torch.tensor((0, *news)).cumsum(0).to(torch.int32)
        self.blocks = -(-max(self.most) // block_size)
        self.batch = PagedBatch(
            query_tokens=news,
            context_tokens=self.most,
            query_start=starts.to(device),
            context_lens=torch.tensor(self.most, dtype=torch.int32, device=device),
            block_table=torch.zeros((len(news), self.blocks), dtype=torch.int32, device=device),
        )
        self.num_blocks = len(news) * self.blocks + 1  # with the dummy block 0
        self.full = True

    def fill(self, generator: torch.Generator, moves: bool = True) -> torch.Tensor:
        """Shuffle the table; after the first time shorten the contexts; return the used slots.

        Where nothing ``moves``, table and contexts stay as they were the first time.
        """
        batch, device = self.batch, self.batch.block_table.device
        if not self.full and not moves:
            return self._slots(batch.context_lens)
        ids = torch.randperm(self.num_blocks - 1, generator=generator, device=device) + 1
        batch.block_table.copy_(ids.view(batch.block_table.shape))
        lengths = torch.tensor(self.most, device=device)
        if not self.full:
            news = torch.tensor(batch.query_tokens, device=device)
            share = torch.rand(batch.seqs, generator=generator, device=device)
            lengths = news + ((lengths - news) * share).long()
        self.full = False
        batch.context_lens.copy_(lengths)
        return self._slots(lengths)

    def _slots(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return which slots of the cache the contexts fill."""
        batch, device = self.batch, self.batch.block_table.device
        places = torch.arange(self.blocks * self.block_size, device=device)
        slots = batch.block_table.long()[:, places // self.block_size] * self.block_size
        return (slots + places % self.block_size)[places < lengths[:, None]]

    def fill_cache(
        self, cache: torch.Tensor, used: torch.Tensor, generator: torch.Generator
    ) -> None:
        """Draw a cache ``[num_blocks, block_size, …]``: normal where used, garbage elsewhere."""
        values = torch.randn(cache.shape, generator=generator, device=cache.device)
        rows = values.view(-1, *cache.shape[2:])
        unused = torch.ones(rows.shape[0], dtype=torch.bool, device=cache.device)
        unused[used] = False
        rows[unused] *= GARBAGE
        cache.copy_(values.to(cache.dtype))


class AttentionTrial:
    """Paged attention of some lengths."""

    def __init__(
        self, kernel: PagedAttention, shape: AttentionShape, lengths: Lengths, device: torch.device
    ) -> None:
        self.kernel, self.shape = kernel, shape
        self.pages = Pages(lengths, shape.block_size, device)
        size = (self.pages.num_blocks, shape.block_size, shape.kv_heads, shape.head_size)
        self.keys = torch.empty(size, dtype=shape.kv_dtype, device=device)
        self.values = torch.empty_like(self.keys)
        rows = (self.pages.batch.tokens, shape.heads, shape.head_size)
        self.query = torch.empty(rows, dtype=shape.dtype, device=device)
        self.out = torch.empty_like(self.query)
        self.expected = torch.empty(0)
        self.planned: Any = None
        self.limit = max(LIMITS[shape.dtype], LIMITS[shape.kv_dtype])
        fp8 = " kv8" if shape.kv_dtype.itemsize == 1 else ""
        self.case = f"{lengths.name} {shape.heads}/{shape.kv_heads}x{shape.head_size}{fp8}"

    def refuses(self) -> str | None:
        """Ask the kernel."""
        return self.kernel.refuses(self.shape, self.pages.batch)

    def fill(self, generator: torch.Generator) -> None:
        """Draw tables, lengths, queries, keys and values; plan the first time."""
        used = self.pages.fill(generator, moves=replayable(self.kernel, self.pages.batch))
        normal_(self.query, generator)
        self.pages.fill_cache(self.keys, used, generator)
        self.pages.fill_cache(self.values, used, generator)
        self.out.fill_(torch.nan)
        self.expected = reference.attention(
            self.shape, self.pages.batch, self.query, self.keys, self.values
        )
        if self.planned is None:
            self.planned = self.kernel.plan(self.shape, self.pages.batch)
        else:
            brought_up_to_date(self.kernel, self.planned, self.pages.batch)

    def run(self) -> None:
        """Launch."""
        self.kernel.run(self.planned, self.query, self.keys, self.values, self.out)

    def error(self) -> float:
        """Return the relative error."""
        return relative_error(self.out, self.expected)


class LatentTrial:
    """Absorbed latent attention of some lengths."""

    def __init__(
        self, kernel: LatentAttention, shape: LatentShape, lengths: Lengths, device: torch.device
    ) -> None:
        self.kernel, self.shape = kernel, shape
        self.pages = Pages(lengths, shape.block_size, device)
        size = (self.pages.num_blocks, shape.block_size, shape.row_size)
        self.cache = torch.empty(size, dtype=shape.kv_dtype, device=device)
        rows = (self.pages.batch.tokens, shape.heads)
        self.query = torch.empty((*rows, shape.row_size), dtype=shape.dtype, device=device)
        self.out = torch.empty((*rows, shape.latent_size), dtype=shape.dtype, device=device)
        self.expected = torch.empty(0)
        self.planned: Any = None
        self.limit = max(LIMITS[shape.dtype], LIMITS[shape.kv_dtype])
        self.case = f"{lengths.name} {shape.heads} heads"

    def refuses(self) -> str | None:
        """Ask the kernel."""
        return self.kernel.refuses(self.shape, self.pages.batch)

    def fill(self, generator: torch.Generator) -> None:
        """Draw tables, lengths, queries and latents; plan the first time."""
        used = self.pages.fill(generator, moves=replayable(self.kernel, self.pages.batch))
        normal_(self.query, generator)
        self.pages.fill_cache(self.cache, used, generator)
        self.out.fill_(torch.nan)
        shape = self.shape
        self.expected = reference.latent_attention(
            self.pages.batch, self.query, self.cache, shape.latent_size, shape.scale
        )
        if self.planned is None:
            self.planned = self.kernel.plan(shape, self.pages.batch)
        else:
            brought_up_to_date(self.kernel, self.planned, self.pages.batch)

    def run(self) -> None:
        """Launch."""
        self.kernel.run(self.planned, self.query, self.cache, self.out)

    def error(self) -> float:
        """Return the relative error."""
        return relative_error(self.out, self.expected)


def attention_trials(kernel: PagedAttention, device: torch.device) -> Iterator[Trial]:
    """Yield the cases of paged attention: every mix, then other heads and smaller keys."""
    gpu = device.type == "cuda"
    half = torch.bfloat16
    main = AttentionShape(32, 8, 128) if gpu else AttentionShape(8, 2, 64)
    for lengths in (*LENGTHS, *(LARGE if gpu else ())):
        yield AttentionTrial(kernel, main, lengths, device)
    wide = AttentionShape(16, 2, 128)
    fp8 = dataclasses.replace(main, kv_dtype=torch.float8_e4m3fn)
    for lengths in (LENGTHS[1], LENGTHS[-1]):
        yield AttentionTrial(kernel, wide, lengths, device)
        yield AttentionTrial(kernel, fp8, lengths, device)
    if not gpu:
        full = dataclasses.replace(main, dtype=torch.float32, kv_dtype=torch.float32)
        yield AttentionTrial(kernel, full, LENGTHS[-1], device)
    yield AttentionTrial(kernel, AttentionShape(4, 4, 64, dtype=half), LENGTHS[-1], device)


def latent_trials(kernel: LatentAttention, device: torch.device) -> Iterator[Trial]:
    """Yield the cases of latent attention, at DeepSeek's sizes."""
    gpu = device.type == "cuda"
    for heads in (16, 128) if gpu else (4,):
        for lengths in (*LENGTHS, *(LARGE[:1] if gpu else ())):
            yield LatentTrial(kernel, LatentShape(heads), lengths, device)
