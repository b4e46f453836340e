"""Trials of the small kernels of a layer, and of sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from calibrate.kernels import reference
from calibrate.kernels.pointwise import PointwiseOps, rope_table
from calibrate.kernels.trials import LIMITS, Trial, normal_, relative_error

EPS: Final = 1e-5
TEMPERATURE: Final = 0.7
# A probability computed in float32 may be this much below the largest and still be a tie.
TIE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Small:
    """The tensors of a small kernel, and what is to become of them."""

    draw: Callable[[torch.Generator], None]
    run: Callable[[], None]
    expected: Callable[[], Sequence[torch.Tensor]]  # float64, from the drawn inputs
    outputs: Sequence[torch.Tensor]


class SmallTrial:
    """One small kernel at one size; the error is that of its worst output."""

    def __init__(self, small: Small, case: str, limit: float) -> None:
        self.small, self.case, self.limit = small, case, limit
        self.expected: Sequence[torch.Tensor] = ()

    def refuses(self) -> str | None:
        """Serve every size."""
        return None

    def fill(self, generator: torch.Generator) -> None:
        """Draw the inputs, compute what is expected."""
        self.small.draw(generator)
        self.expected = self.small.expected()

    def run(self) -> None:
        """Launch."""
        self.small.run()

    def error(self) -> float:
        """Return the largest relative error; NaN if any output has one."""
        pairs = zip(self.small.outputs, self.expected, strict=True)
        errors = torch.tensor([relative_error(got, wanted) for got, wanted in pairs])
        return float(errors.max())  # a NaN is the largest


class GreedyTrial:
    """Greedy sampling; the error is the share of rows whose token has not the largest logit."""

    limit = 0.0

    def __init__(self, ops: PointwiseOps, rows: int, vocab: int, device: torch.device) -> None:
        self.ops = ops
        self.logits = torch.empty((rows, vocab), dtype=torch.bfloat16, device=device)
        self.out = torch.empty(rows, dtype=torch.int64, device=device)
        self.case = f"greedy {rows} x {vocab}"

    def refuses(self) -> str | None:
        """Serve every size."""
        return None

    def fill(self, generator: torch.Generator) -> None:
        """Draw logits; poison the tokens."""
        normal_(self.logits, generator)
        self.out.fill_(-1)

    def run(self) -> None:
        """Launch."""
        self.ops.greedy(self.logits, self.out)

    def scores(self) -> torch.Tensor:
        """Return what the chosen token must have the most of."""
        return self.logits.double()

    def error(self) -> float:
        """Return the share of wrong rows; 1 if a token is out of range."""
        scores = self.scores()
        if int(self.out.min()) < 0 or int(self.out.max()) >= scores.shape[1]:
            return 1.0
        chosen = scores.gather(1, self.out[:, None])[:, 0]
        right = chosen >= scores.amax(dim=1) * (1 - TIE)  # a NaN is not
        return float((~right).double().mean())


class SampleTrial(GreedyTrial):
    """Sampling; the noise that the kernel drew decides which token was right."""

    def __init__(self, ops: PointwiseOps, rows: int, vocab: int, device: torch.device) -> None:
        super().__init__(ops, rows, vocab, device)
        self.noise = torch.empty((rows, vocab), device=device)
        self.case = f"sample {rows} x {vocab}"

    def fill(self, generator: torch.Generator) -> None:
        """Draw logits; poison tokens and noise."""
        super().fill(generator)
        self.noise.fill_(torch.nan)

    def run(self) -> None:
        """Launch."""
        self.ops.sample(self.logits, TEMPERATURE, self.noise, self.out)

    def scores(self) -> torch.Tensor:
        """Return probability over noise."""
        return (self.logits.double() / TEMPERATURE).softmax(dim=-1) / self.noise.double()


def _norm(ops: PointwiseOps, tokens: int, width: int, device: torch.device) -> Small:
    x, residual, weight, out = (
        torch.empty(size, dtype=torch.bfloat16, device=device)
        for size in ((tokens, width), (tokens, width), (width,), (tokens, width))
    )

    def draw(generator: torch.Generator) -> None:
        for tensor in (x, residual, weight):
            normal_(tensor, generator)
        out.fill_(torch.nan)

    def expected() -> Sequence[torch.Tensor]:
        total = x.double() + residual.double()
        return total, reference.rms_norm(total, weight, EPS)

    return Small(
        draw, lambda: ops.add_rms_norm(x, residual, weight, EPS, out), expected, (residual, out)
    )


def _plain_norm(ops: PointwiseOps, tokens: int, width: int, device: torch.device) -> Small:
    x, weight, out = (
        torch.empty(size, dtype=torch.bfloat16, device=device)
        for size in ((tokens, width), (width,), (tokens, width))
    )

    def draw(generator: torch.Generator) -> None:
        normal_(x, generator)
        normal_(weight, generator)
        out.fill_(torch.nan)

    return Small(
        draw,
        lambda: ops.rms_norm(x, weight, EPS, out),
        lambda: (reference.rms_norm(x, weight, EPS),),
        (out,),
    )


def _act(ops: PointwiseOps, tokens: int, width: int, device: torch.device) -> Small:
    gate_up = torch.empty((tokens, 2 * width), dtype=torch.bfloat16, device=device)
    out = torch.empty((tokens, width), dtype=torch.bfloat16, device=device)

    def draw(generator: torch.Generator) -> None:
        normal_(gate_up, generator)
        out.fill_(torch.nan)

    return Small(
        draw, lambda: ops.silu_mul(gate_up, out), lambda: (reference.silu_mul(gate_up),), (out,)
    )


def _embed(ops: PointwiseOps, tokens: int, width: int, device: torch.device) -> Small:
    rows = 1000
    table = torch.empty((rows, width), dtype=torch.bfloat16, device=device)
    ids = torch.zeros(tokens, dtype=torch.int64, device=device)
    out = torch.empty((tokens, width), dtype=torch.bfloat16, device=device)

    def draw(generator: torch.Generator) -> None:
        normal_(table, generator)
        ids.copy_(torch.randint(rows, (tokens,), generator=generator, device=device))
        out.fill_(torch.nan)

    return Small(draw, lambda: ops.embed(ids, table, out), lambda: (table.double()[ids],), (out,))


def _quantise(ops: PointwiseOps, tokens: int, width: int, device: torch.device) -> Small:
    x = torch.empty((tokens, width), dtype=torch.bfloat16, device=device)
    values = torch.empty((tokens, width), dtype=torch.float8_e4m3fn, device=device)
    scale = torch.empty((tokens, 1), device=device)
    restored = torch.empty((tokens, width), device=device)

    def draw(generator: torch.Generator) -> None:
        normal_(x, generator)
        values.copy_(torch.full(values.shape, torch.nan, device=device).to(values.dtype))
        scale.fill_(torch.nan)

    def run() -> None:
        ops.quantise_rows(x, values, scale)
        torch.mul(values.float(), scale, out=restored)

    return Small(draw, run, lambda: (x.double(),), (restored,))


@dataclass(frozen=True, slots=True)
class Heads:
    """Query, key and value as views of one product."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor


def _heads(tokens: int, counts: tuple[int, int], size: int, device: torch.device) -> Heads:
    heads, keys = counts
    packed = torch.empty((tokens, heads + 2 * keys, size), dtype=torch.bfloat16, device=device)
    return Heads(packed[:, :heads], packed[:, heads:-keys], packed[:, -keys:])


def _qk_norm(
    ops: PointwiseOps, tokens: int, counts: tuple[int, int], size: int, device: torch.device
) -> Small:
    held = _heads(tokens, counts, size, device)
    weights = torch.empty((2, size), dtype=torch.bfloat16, device=device)

    def draw(generator: torch.Generator) -> None:
        for tensor in (held.query, held.key, weights):
            normal_(tensor, generator)

    def expected() -> Sequence[torch.Tensor]:
        return (
            reference.rms_norm(held.query, weights[0], EPS),
            reference.rms_norm(held.key, weights[1], EPS),
        )

    def run() -> None:
        ops.qk_norm(held.query, held.key, weights[0], weights[1], EPS)

    return Small(draw, run, expected, (held.query, held.key))


def _rope_store(
    ops: PointwiseOps, tokens: int, counts: tuple[int, int], size: int, device: torch.device
) -> Small:
    block_size, longest = 16, 5000
    held = _heads(tokens, counts, size, device)
    cache = (-(-tokens // block_size) + 2, block_size, counts[1], size)
    keys, values = torch.empty((2, *cache), dtype=torch.bfloat16, device=device)
    cos_sin = rope_table(longest, size, 10_000.0, device)
    positions, slots = torch.zeros((2, tokens), dtype=torch.int64, device=device)

    def draw(generator: torch.Generator) -> None:
        for tensor in (held.query, held.key, held.value, keys, values):
            normal_(tensor, generator)
        positions.copy_(torch.randint(longest, (tokens,), generator=generator, device=device))
        places = torch.randperm(cache[0] * block_size, generator=generator, device=device)
        slots.copy_(places[:tokens])

    def expected() -> Sequence[torch.Tensor]:
        stored = keys.double(), values.double()
        stored[0].view(-1, *cache[2:])[slots] = reference.rope(held.key, cos_sin, positions)
        stored[1].view(-1, *cache[2:])[slots] = held.value.double()
        return (reference.rope(held.query, cos_sin, positions), *stored)

    def run() -> None:
        ops.rope_store(held.query, held.key, held.value, cos_sin, positions, slots, keys, values)

    return Small(draw, run, expected, (held.query, keys, values))


BY_WIDTH: Final = {
    "norm": _norm, "plain norm": _plain_norm, "act": _act, "embed": _embed,
    "quantise fp8": _quantise,
}  # fmt: skip
BY_HEADS: Final = {"qk_norm": _qk_norm, "rope_store": _rope_store}


def pointwise_trials(ops: PointwiseOps, device: torch.device) -> Iterator[Trial]:
    """Yield every small kernel at two sizes, one of them with an odd width."""
    limit = LIMITS[torch.bfloat16]
    for tokens, width in ((1, 512), (37, 1184)):
        for op, build in BY_WIDTH.items():
            small = build(ops, tokens, width, device)
            bound = LIMITS[torch.float8_e4m3fn] if op == "quantise fp8" else limit
            yield SmallTrial(small, f"{op} {tokens} x {width}", bound)
    for tokens, counts, size in ((1, (8, 2), 64), (37, (10, 2), 128)):
        for op, build_heads in BY_HEADS.items():
            small = build_heads(ops, tokens, counts, size, device)
            yield SmallTrial(small, f"{op} {tokens} x {counts[0]}/{counts[1]}x{size}", limit)
    yield GreedyTrial(ops, 9, 5003, device)
    yield SampleTrial(ops, 9, 5003, device)
