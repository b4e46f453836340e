"""Prices steps from a profile: the sum of its kernels, anchored, with host time around it.

A decode-only step replays the CUDA graph of the next larger captured batch: everything by
tokens is priced at that size, LM head and sampling at the real one. Larger batches, and steps
with prefill, run eagerly and unpadded. For one batch a decode-only step is piecewise linear in
the summed context; ``decode_line`` returns the piece asked for.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from math import ceil
from typing import Generic, TypeVar

from simserve.inputs.hardware_profile import GpuSpec
from simserve.inputs.model_spec import ModelSpec
from simserve.latency.model import UNLIMITED_CONTEXT, DecodeLine
from simserve.latency.tables.anchors import Anchor, fit_anchors
from simserve.latency.tables.answers import HOST, Part
from simserve.latency.tables.attention import TabledDecodes
from simserve.latency.tables.composition import compose
from simserve.latency.tables.gemms import Operator
from simserve.latency.tables.host_time import host_time
from simserve.latency.tables.lines import Lines, at_least, total
from simserve.latency.tables.mixed_steps import DECODE, PREFILL, MixedAttention
from simserve.latency.tables.profile import Profile
from simserve.latency.tables.selection import Setting, check_match
from simserve.latency.tables.uneven import Contexts, UnevenStep
from simserve.records.clock import to_ps
from simserve.records.step import StepShape

ValueT = TypeVar("ValueT")
_Pieces = tuple[list[int], list[DecodeLine]]


class TableModel:
    """The steps of ``model`` on ``tp`` GPUs, priced from ``profile``.

    ``anchors`` are the factors of whole steps by regime, ``missing`` what the roofline
    answers, ``warnings`` what the reader of a result should know. ``reads_contexts`` says
    whether the profile tells what uneven decodes cost.

    Raises:
        InputError: if the profile is of another GPU, model or tp, or has not its dtypes.
    """

    __slots__ = (
        "_by_seqs",
        "_by_tokens",
        "_chunk_s",
        "_decode_pieces",
        "_decode_steps",
        "_eager",
        "_graph",
        "_mixed",
        "_mixed_factor",
        "_operators",
        "_prefill_factor",
        "_sizes",
        "_uneven_steps",
        "anchors",
        "missing",
        "model",
        "profile",
        "reads_contexts",
    )

    def __init__(
        self,
        profile: Profile,
        model: ModelSpec,
        gpu: GpuSpec,
        tp: int,
        *,
        async_scheduling: bool = True,
        allow_extrapolation: bool = False,
    ) -> None:
        setting = Setting(profile, model, gpu, tp, allow_extrapolation)
        check_match(setting)
        self.profile, self.model = profile, model
        operators = self._operators = compose(setting)
        self.missing = operators.missing
        self._sizes = profile.host.decode_graph_sizes if profile.host else ()
        self._graph, self._eager = (
            host_time(profile.host, gpu, model.layers, graph=graph, ahead=async_scheduling)
            for graph in (True, False)
        )
        self._by_tokens = _Tabulated(_sum_of(operators.by_tokens))
        self._by_seqs = _Tabulated(_sum_of(operators.by_seqs))
        self._chunk_s = operators.chunks[0].seconds
        if len(operators.chunks) > 1:
            self._chunk_s = self._chunks_s
        groups = list(zip(operators.decodes, operators.chunks, operators.mixed, strict=True))
        added_frac, waves = profile.mixed_added_frac, profile.waves.get("mixed")
        self._mixed = _Tabulated(lambda decodes: MixedAttention(decodes, groups, added_frac, waves))
        self._decode_steps = _Tabulated(self._decode_step)
        self._decode_pieces: dict[int, _Pieces] = {}
        self._uneven_steps = _Tabulated(self._uneven_step)
        self.reads_contexts = bool(profile.waves) and len(groups) == 1
        self.anchors: dict[str, Anchor] = {}
        self._prefill_factor = self._mixed_factor = profile.gpu_time_factor
        self.anchors = fit_anchors(setting, self.gpu_s)
        self._prefill_factor, self._mixed_factor = self._factor("prefill"), self._factor("mixed")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reader of a result should know, one sentence each."""
        raised = (
            f"{name}.csv: {rows} rows are quicker than the datasheet allows (from a cache?) and "
            "count as long as that"
            for name, rows in self._operators.raised.items()
            if rows
        )
        return (*(one.warning for one in self.anchors.values() if one.warning), *raised)

    def step_s(self, shape: StepShape) -> float:
        """Return the duration of a step in seconds, host time included."""
        decodes, context_tokens, prefill, contexts = shape
        if not prefill:
            if contexts is not None and self.reads_contexts:
                return self._uneven_steps[decodes].seconds(contexts)
            return self._decode_steps[decodes].seconds(context_tokens)
        chunk_s = self._chunk_s
        tokens, seqs = decodes, decodes + len(prefill)
        for new, _ in prefill:
            tokens += new
        gpu_s = self._by_tokens[tokens] + self._by_seqs[seqs]
        if decodes:
            gpu_s += self._mixed[decodes].seconds(context_tokens, prefill, contexts)
            gpu_s *= self._mixed_factor
        else:
            for new, past in prefill:
                gpu_s += chunk_s(new, past)
            gpu_s *= self._prefill_factor
        floor_s, floor_seq_s, floor_token_s, added_s, seq_s, token_s = self._eager
        new_tokens = tokens - decodes
        floor_s += floor_seq_s * seqs + floor_token_s * new_tokens
        added_s += seq_s * seqs + token_s * new_tokens
        return (gpu_s if gpu_s > floor_s else floor_s) + added_s

    def decode_line(self, decode_seqs: int, decode_context_tokens: int) -> DecodeLine:
        """Return the piece of a decode-only step's line that holds for this context.

        Within a piece it agrees with ``step_s`` to half a picosecond, and half a one per
        context token after the piece's start.
        """
        pieces = self._decode_pieces.get(decode_seqs)
        if pieces is None:
            lines = self._decode_steps[decode_seqs]
            pieces = self._decode_pieces[decode_seqs] = _rounded(lines)
        starts, rounded = pieces
        return rounded[bisect_right(starts, decode_context_tokens) - 1]

    def uneven_decode_line(self, decode_slots: int, contexts: Contexts) -> DecodeLine:
        """Return the line of decodes of these contexts, for the next ``SPAN_STEPS`` steps.

        Where the profile does not tell what unevenness costs it is ``decode_line``.
        """
        step = self._uneven_steps[decode_slots]
        if step.waves is None:
            return self.decode_line(decode_slots, int(contexts.sum()))
        return step.line(contexts)

    def gpu_s(self, shape: StepShape) -> float:
        """Return the GPU's share of a step, in seconds."""
        return sum(part.seconds for part in self._kernels(shape))

    def parts(self, shape: StepShape) -> list[Part]:
        """Return what the operators of a step take, and host time, with their sources."""
        kernels = self._kernels(shape)
        host_s = self.step_s(shape) - sum(part.seconds for part in kernels)
        return [*kernels, Part(HOST, max(0.0, host_s), HOST)]

    @property
    def by_sequences(self) -> frozenset[str]:
        """The names of the operators whose work goes by sequences, not by tokens."""
        return frozenset(name for name, _ in self._operators.by_seqs)

    def padded_tokens(self, shape: StepShape) -> int:
        """Return the tokens that a step is computed for, the padding of a graph included."""
        return shape.tokens if shape.prefill else self._launched(shape.decode_seqs)[0]

    def _kernels(self, shape: StepShape) -> list[Part]:
        operators, decodes = self._operators, shape.decode_seqs
        tokens, factor = shape.tokens, self._prefill_factor
        padded = decodes
        if not shape.prefill:
            padded, _, factor = self._launched(decodes)
            tokens = padded
        elif decodes:
            factor = self._mixed_factor
        answers = [(name, one(tokens)) for name, one in operators.by_tokens]
        answers += [(name, one(shape.seqs)) for name, one in operators.by_seqs]
        if decodes and shape.prefill:
            mixed = self._mixed[decodes]
            answers += mixed.answers(shape.decode_context_tokens, shape.prefill)
        elif decodes:
            for attention in operators.decodes:
                lines = attention.decode_lines(decodes, padded)
                answers.append((DECODE, lines.answer(shape.decode_context_tokens)))
        else:
            for chunk in shape.prefill:
                answers += [(PREFILL, one.answer(*chunk)) for one in operators.chunks]
        return [Part(name, factor * seconds, source) for name, (seconds, source) in answers]

    def _factor(self, regime: str) -> float:
        anchor = self.anchors.get(regime)
        return self.profile.gpu_time_factor * (anchor.applied if anchor else 1.0)

    def _launched(self, batch: int) -> tuple[int, bool, float]:
        """Return the padded batch, whether a graph is replayed, and the anchors' factor."""
        if not self._sizes:
            return batch, True, self._factor("decode")
        place = bisect_left(self._sizes, batch)
        if place == len(self._sizes):
            return batch, False, self._mixed_factor
        return self._sizes[place], True, self._factor("decode")

    def _attention(self, batch: int, padded_batch: int) -> Lines:
        lines = [one.decode_lines(batch, padded_batch) for one in self._operators.decodes]
        return lines[0] if len(lines) == 1 else total(lines, 0.0, 1.0)

    def _decode_step(self, batch: int) -> Lines:
        padded, graph, factor = self._launched(batch)
        fixed_s = self._by_tokens[padded] + self._by_seqs[batch]
        gpu = total([self._attention(batch, padded)], fixed_s, factor)
        host = self._graph if graph else self._eager
        return at_least(gpu, host.floor(batch, 0), host.added(batch, 0))

    def _uneven_step(self, batch: int) -> UnevenStep:
        padded, graph, factor = self._launched(batch)
        attention = self._attention(batch, padded)
        fixed_s = self._by_tokens[padded] + self._by_seqs[batch]
        host = self._graph if graph else self._eager
        decodes, waves, heads = self._operators.decodes[0], None, 1
        knots: tuple[tuple[float, float], ...] = ()
        if self.reads_contexts and isinstance(decodes, TabledDecodes):
            heads = decodes.heads.keys
            if decodes.is_unsplit(padded):
                waves = self.profile.waves.get("decode")
                knots = decodes.knots(batch, padded)
        return UnevenStep(
            gpu=total([attention], fixed_s, factor),
            attention=total([attention], 0.0, factor),
            floor_s=host.floor(batch, 0),
            added_s=host.added(batch, 0),
            waves=waves,
            heads=heads,
            knots=knots,
        )

    def _chunks_s(self, new: float, past: float) -> float:
        return sum(one.seconds(new, past) for one in self._operators.chunks)


class _Tabulated(dict[int, ValueT], Generic[ValueT]):
    """A function of a count, computed when first asked for: a step then costs one look-up."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[int], ValueT]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, count: int) -> ValueT:
        value = self[count] = self._function(count)
        return value


def _sum_of(operators: tuple[tuple[str, Operator], ...]) -> Callable[[int], float]:
    return lambda count: sum(one(count).seconds for _, one in operators)


def _rounded(lines: Lines) -> _Pieces:
    """Return lines in whole picoseconds between whole context tokens, and their starts.

    A piece is exact at its first token; the rounding of its slope counts from there.
    """
    first = [ceil(start) for start in lines.starts]
    starts: list[int] = []
    rounded: list[DecodeLine] = []
    for piece, slope in enumerate(lines.slopes):
        start = first[piece]
        last = piece + 1 == len(first)
        limit = UNLIMITED_CONTEXT if last else first[piece + 1] - 1
        if limit < start:
            continue  # no whole number lies on it
        slope_ps = to_ps(slope)
        at_start_s = lines.times[piece] + slope * (start - lines.starts[piece])
        starts.append(start)
        rounded.append(DecodeLine(to_ps(at_start_s) - slope_ps * start, slope_ps, limit, start))
    return starts, rounded
