"""The same requests with longer or shorter texts: lengths scaled, shared parts kept shared.

A text that several prompts have is scaled alike in all of them, so what was shared still is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simserve.inputs.scenario import Scenario
from simserve.records.requests import IntArray, RequestTable, SegmentTable
from simserve.results.token_times import BoolArray


def with_prompts(requests: RequestTable, _: Scenario, *, factor: float) -> RequestTable:
    """Return the requests with prompts ``factor`` times as long, but for answers in them."""
    table = requests.segments
    if table is None:
        return replace(requests, prompt_tokens=_scaled(requests.prompt_tokens, factor))
    said = ~_is_answer(requests, table)
    return _with_tokens(
        requests, table, np.where(said, _scaled(table.tokens, factor), table.tokens)
    )


def with_outputs(requests: RequestTable, _: Scenario, *, factor: float) -> RequestTable:
    """Return the requests with answers ``factor`` times as long, in later prompts too."""
    table = requests.segments
    longer = replace(requests, output_tokens=_scaled(requests.output_tokens, factor))
    if table is None:
        return longer
    answers = _is_answer(requests, table)
    return _with_tokens(
        longer, table, np.where(answers, _scaled(table.tokens, factor), table.tokens)
    )


def _scaled(tokens: IntArray, factor: float) -> IntArray:
    return np.asarray(np.maximum(np.rint(tokens * factor), 1), dtype=np.int64)


def _is_answer(requests: RequestTable, table: SegmentTable) -> BoolArray:
    """Return which entries are answers that earlier requests generated."""
    if requests.output_segment is None:
        return np.zeros(len(table.segment), dtype=np.bool_)
    return np.isin(table.segment, requests.output_segment)


def _with_tokens(requests: RequestTable, table: SegmentTable, tokens: IntArray) -> RequestTable:
    prompts = np.add.reduceat(tokens, table.offsets[:-1])
    return replace(requests, prompt_tokens=prompts, segments=replace(table, tokens=tokens))
