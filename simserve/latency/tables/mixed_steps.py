"""Attention of a whole mixed step: one or several chunks beside decodes, in all layers.

* One chunk: the surface of ``attn_mixed``, never below the decodes alone or the chunk alone.
* Several: each chunk in turn is taken to share the call with the decodes while the others cost
  what they do alone; the longest of these counts. So the order of chunks does not matter, and
  a further chunk, or a larger one, never takes less time.
* Without rows: the longer part, chunks or decodes, and a share of the shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simserve.latency.tables.answers import Answer
from simserve.latency.tables.attention import ChunkAttention, DecodeAttention
from simserve.latency.tables.lines import Lines
from simserve.latency.tables.mixed import ChunkBeside, MixedSurfaces
from simserve.latency.tables.waves import Waves
from simserve.records.step import PrefillChunk

DECODE, PREFILL, MIXED = "attn_decode", "attn_prefill", "attn_mixed"

Seconds = Callable[[float, float], float]


class _Group(NamedTuple):
    """Layers that are alike: their decodes over the summed context, chunks, and both."""

    decodes: Lines
    chunks: ChunkAttention
    chunk_s: Seconds
    beside: ChunkBeside | None


class MixedAttention:
    """The attention of steps with ``decodes`` decodes and at least one chunk."""

    __slots__ = ("_added_frac", "_decodes", "_groups", "_heads", "_one", "_waves")

    def __init__(
        self,
        decodes: int,
        parts: Sequence[tuple[DecodeAttention, ChunkAttention, MixedSurfaces | None]],
        added_frac: float,
        waves: Waves | None = None,
    ) -> None:
        self._decodes, self._added_frac = decodes, added_frac
        surfaces = parts[0][2]
        self._waves = waves if surfaces is not None else None
        self._heads = surfaces.limit.heads.queries if surfaces is not None else 1
        self._groups = [
            _Group(
                one.decode_lines(decodes, decodes),
                chunks,
                chunks.seconds,
                surfaces.beside(decodes) if surfaces is not None else None,
            )
            for one, chunks, surfaces in parts
        ]
        group = self._groups[0]
        self._one = (
            (group.decodes.seconds, group.chunk_s, group.beside.seconds)
            if len(self._groups) == 1 and group.beside is not None
            else None
        )

    def seconds(
        self,
        context_tokens: int,
        prefill: Sequence[PrefillChunk],
        contexts: npt.NDArray[np.int64] | None = None,
    ) -> float:
        """Return the seconds; ``context_tokens`` are those of all decodes together.

        ``contexts`` are those of each, if it is known what uneven ones cost: there one block
        serves one query head.
        """
        even_s = self._even_s(context_tokens, prefill)
        if contexts is None or self._waves is None:
            return even_s
        return even_s * self._waves.mixed(contexts, prefill, self._heads)

    def _even_s(self, context_tokens: int, prefill: Sequence[PrefillChunk]) -> float:
        if self._one is not None and len(prefill) == 1:  # nearly every mixed step
            decodes_s, chunk_s, beside_s = self._one
            new, past = prefill[0]
            return max(
                beside_s(context_tokens / self._decodes, new, past),
                chunk_s(new, past),
                decodes_s(context_tokens),
            )
        return sum(self._group_s(group, context_tokens, prefill) for group in self._groups)

    def answers(
        self, context_tokens: int, prefill: Sequence[PrefillChunk]
    ) -> list[tuple[str, Answer]]:
        """Return the same by operator, with the source of each."""
        found: list[tuple[str, Answer]] = []
        for group in self._groups:
            decodes = group.decodes.answer(context_tokens)
            chunks = [group.chunks.answer(*chunk) for chunk in prefill]
            beside = group.beside
            if beside is None:
                alone_s = sum(one.seconds for one in chunks)
                of_decodes = self._added_frac if decodes.seconds < alone_s else 1.0
                of_chunks = self._added_frac if decodes.seconds >= alone_s else 1.0
                found.append((DECODE, _scaled(decodes, of_decodes)))
                found += [(PREFILL, _scaled(one, of_chunks)) for one in chunks]
                continue
            context = context_tokens / self._decodes
            calls = []
            for chunk, alone in zip(prefill, chunks, strict=True):
                call_s = beside.seconds(context, *chunk)
                call = Answer(call_s, beside.source(context, *chunk))
                calls.append(max((call, alone, decodes), key=lambda one: one.seconds))
            added = [call.seconds - one.seconds for call, one in zip(calls, chunks, strict=True)]
            shared = added.index(max(added))
            found.append((MIXED, calls[shared]))
            found += [(PREFILL, one) for at, one in enumerate(chunks) if at != shared]
        return found

    def _group_s(
        self, group: _Group, context_tokens: int, prefill: Sequence[PrefillChunk]
    ) -> float:
        decodes_s = group.decodes.seconds(context_tokens)
        beside, chunk_s = group.beside, group.chunk_s
        if beside is None:
            chunks_s = sum(chunk_s(new, past) for new, past in prefill)
            return max(chunks_s, decodes_s) + self._added_frac * min(chunks_s, decodes_s)
        context = context_tokens / self._decodes
        total_s = added_s = 0.0
        for new, past in prefill:
            alone_s = chunk_s(new, past)
            total_s += alone_s
            call_s = max(beside.seconds(context, new, past), decodes_s)
            added_s = max(added_s, call_s - alone_s)
        return total_s + added_s


def _scaled(answer: Answer, share: float) -> Answer:
    return Answer(share * answer.seconds, answer.source)
