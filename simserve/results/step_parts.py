"""Every step's time in parts: host, decodes, and prefill, each seen from both sides.

Weights are read once for all who share a step, so what a part costs depends on who asks. One
who decodes asks what the prefill *adds* to the step; one who prefills, what the decodes add.
Both are differences of prices by the latency model that priced the run, and both leave sums
that are exact: ``host + decode + added = host + prefill + beside = duration``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simserve.latency.model import LinearDecodeModel, StepLatencyModel
from simserve.records.clock import PsArray, to_ps
from simserve.records.requests import IntArray
from simserve.records.step import PrefillChunk, StepShape
from simserve.records.step_log import StepLog


@dataclass(frozen=True, slots=True, kw_only=True)
class StepParts:
    """The steps of one replica and their parts, in picoseconds: ``int64[steps]`` each.

    * ``host_ps``: what the step would be shorter by if the host took no time.
    * For one who decodes: ``decode_ps``, the GPU's time for the decodes alone, and
      ``added_ps``, the rest, which the prefill adds.
    * For one who prefills: ``beside_ps``, what the decodes beside the prefill add to the GPU's
      time, and ``prefill_ps``, the rest.
    """

    start_ps: PsArray
    end_ps: PsArray
    host_ps: IntArray
    decode_ps: IntArray
    added_ps: IntArray
    prefill_ps: IntArray
    beside_ps: IntArray

    @property
    def duration_ps(self) -> IntArray:
        """How long each step takes."""
        return self.end_ps - self.start_ps


def step_parts(log: StepLog, model: StepLatencyModel, without_host: StepLatencyModel) -> StepParts:
    """Return the steps of ``log``; ``without_host`` prices them with a host that takes no time.

    The log keeps sums, so the chunks of one step are taken to be alike, and decodes to be even.
    What that errs by falls on the prefill in a step with prefill, else on the decodes.
    """
    end_ps, duration_ps = log.end_per_step_ps(), log.duration_per_step_ps()
    row, place = log.row_of_step(), log.step_in_row()
    seqs = log.decode_seqs[row]
    context = log.decode_context_tokens[row] + place * seqs
    mixed = log.prefill_seqs[row] > 0
    bare_ps = decode_prices_ps(without_host, seqs, context)
    host_ps = decode_prices_ps(model, np.where(mixed, 0, seqs), context)
    host_ps = np.where(mixed, 0, host_ps - bare_ps)
    beside_ps = np.zeros_like(host_ps)
    for step in np.flatnonzero(mixed).tolist():
        chunks = alike_chunks(log, int(row[step]))
        shape = StepShape(int(seqs[step]), int(context[step]), chunks)
        gpu_ps = to_ps(without_host.step_s(shape))
        host_ps[step] = to_ps(model.step_s(shape)) - gpu_ps
        if shape.decode_seqs:
            beside_ps[step] = gpu_ps - to_ps(without_host.step_s(StepShape(0, 0, chunks)))
    host_ps = np.clip(host_ps, 0, duration_ps)
    gpu_all_ps = duration_ps - host_ps
    beside_ps = np.where(mixed, np.clip(beside_ps, 0, gpu_all_ps), gpu_all_ps)
    decode_ps = np.where(mixed, np.minimum(bare_ps, gpu_all_ps), gpu_all_ps)
    return StepParts(
        start_ps=end_ps - duration_ps,
        end_ps=end_ps,
        host_ps=host_ps,
        decode_ps=decode_ps,
        added_ps=gpu_all_ps - decode_ps,
        prefill_ps=gpu_all_ps - beside_ps,
        beside_ps=beside_ps,
    )


def alike_chunks(log: StepLog, row: int) -> tuple[PrefillChunk, ...]:
    """Return the chunks of a row's step, as alike as whole tokens allow."""
    count, new = int(log.prefill_seqs[row]), int(log.prefill_tokens[row])
    return equal_chunks(count, new, int(log.prefill_context_tokens[row]) - new)


def equal_chunks(count: int, new: int, past: int) -> tuple[PrefillChunk, ...]:
    """Return ``count`` chunks whose tokens sum to ``new``, on ``past`` tokens in all."""
    return tuple(
        PrefillChunk(max(1, new // count + (at < new % count)), past // count + (at < past % count))
        for at in range(count)
    )


def decode_prices_ps(model: StepLatencyModel, seqs: IntArray, context: IntArray) -> IntArray:
    """Return what steps of decodes alone take: ``int64[steps]``, 0 where there are none.

    The engine's own picoseconds: both take them from the model's lines, if it has any.
    """
    prices = np.zeros(len(seqs), dtype=np.int64)
    order = np.lexsort((context, seqs))
    order = order[np.searchsorted(seqs[order], 1) :]
    batch, tokens = seqs[order], context[order]
    at = 0
    while at < len(order):
        size, first = int(batch[at]), int(tokens[at])
        same = at + int(np.searchsorted(batch[at:], size, side="right"))
        if isinstance(model, LinearDecodeModel):
            line = model.decode_line(size, first)
            stop = at + int(np.searchsorted(tokens[at:same], line.context_limit, side="right"))
            priced = line.base_ps + line.per_context_ps * tokens[at:stop]
        else:
            stop = at + int(np.searchsorted(tokens[at:same], first, side="right"))
            priced = np.full(stop - at, to_ps(model.step_s(StepShape(size, first))))
        prices[order[at:stop]] = priced
        at = stop
    return prices
