"""Requests and steps as tables, and as Parquet files that restore the records exactly.

Tables are in seconds. The files hold the same columns, and the clock's own picoseconds
behind them: float64 seconds lose picoseconds after about an hour. Steps are stored one by
one, whatever stretches the engine priced at once, because that is how they are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simserve.records.clock import PS_PER_S, seconds
from simserve.records.requests import IntArray, RequestTable
from simserve.records.run_record import (
    ABORTED,
    FINISHED,
    REJECTED,
    UNFINISHED,
    RequestOutcomes,
    RunRecord,
)
from simserve.records.step_log import StepLog
from simserve.results.metrics import request_latencies, timed_out

Columns = dict[str, Any]

STATUS_WORDS = {
    UNFINISHED: "unfinished",
    FINISHED: "finished",
    REJECTED: "rejected",
    ABORTED: "aborted",
}
# Steps that are expanded at a time when a file is written: bounds memory, not the result.
_STEPS_AT_ONCE = 1_000_000
_PS_OF_REQUESTS = ("first_scheduled_ps", "first_token_ps", "finish_ps")
_COUNTS_OF_STEPS = (
    "decode_seqs",
    "decode_context_tokens",
    "prefill_seqs",
    "prefill_tokens",
    "prefill_context_tokens",
    "admitted",
    "hit_tokens",
    "preempted",
    "finished",
    "running",
    "waiting",
    "free_blocks",
    "free_blocks_end",
)


def request_columns(record: RunRecord) -> Columns:
    """Return one entry per request: what was asked, what became of it, latencies in seconds."""
    requests, out = record.requests, record.outcomes
    latencies = request_latencies(record)
    classes: Columns = {}
    if requests.request_class is not None:
        names = np.array(requests.class_names, dtype=object)
        classes["class"] = names[requests.request_class].tolist()
    return {
        "id": [requests.id_of(request) for request in range(len(requests))],
        **classes,
        "arrival_s": requests.arrival_ps / PS_PER_S,
        "prompt_tokens": requests.prompt_tokens,
        "output_tokens": requests.output_tokens,
        "status": [STATUS_WORDS[int(value)] for value in out.status],
        "replica": out.replica,
        "first_scheduled_s": seconds(out.first_scheduled_ps),
        "ttft_s": latencies.ttft_s,
        "tpot_s": latencies.tpot_s,
        "e2e_s": latencies.e2el_s,
        "finish_s": seconds(out.finish_ps),
        "generated_tokens": out.generated_tokens,
        "preemptions": out.preemptions,
        "cached_tokens": out.cached_tokens,
    }


def step_columns(log: StepLog, replica: int, first_step: int = 0) -> Columns:
    """Return one entry per step of a replica; the times are those of the step itself."""
    columns = log.expand()
    start_ps, end_ps = columns.pop("start_ps"), columns.pop("end_ps")
    return {
        "replica": np.full(len(end_ps), replica),
        "step": np.arange(first_step, first_step + len(end_ps)),
        "start_s": start_ps / PS_PER_S,
        "end_s": end_ps / PS_PER_S,
        **columns,
        "new_blocks": log.new_blocks,
        "start_ps": start_ps,
        "end_ps": end_ps,
    }


def step_frame_columns(record: RunRecord) -> Columns:
    """Return the steps of all replicas as one table, in seconds."""
    parts = [step_columns(log, replica) for replica, log in enumerate(record.steps)]
    names = [name for name in (parts[0] if parts else {}) if not name.endswith("_ps")]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def write_requests(record: RunRecord, path: Path, labels: dict[str, str]) -> None:
    """Write requests.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out, requests = record.outcomes, record.requests
    columns = request_columns(record)
    columns["first_token_step"] = out.first_token_step
    columns["last_token_step"] = out.last_token_step
    if requests.priority is not None:
        columns["priority"] = requests.priority
    if requests.give_up_ps is not None:
        columns["give_up_ps"] = requests.give_up_ps
        columns["timed_out"] = timed_out(record).astype(np.int8)
    columns["arrival_ps"] = requests.arrival_ps
    for name in _PS_OF_REQUESTS:
        columns[name] = getattr(out, name)
    text: Columns = {
        name: pa.array(columns[name], pa.string())
        for name in ("id", "class", "status")
        if name in columns
    }
    table = pa.table({**columns, **text}).replace_schema_metadata(labels)
    pq.write_table(table, path, compression="zstd")


def write_steps(record: RunRecord, path: Path, labels: dict[str, str]) -> None:
    """Write steps.parquet, a stretch of steps at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    empty = pa.table(step_columns(_NO_STEPS, 0))
    with pq.ParquetWriter(
        path,
        empty.schema.with_metadata(labels),
        compression="zstd",
        use_dictionary=False,
        column_encoding={
            name: "BYTE_STREAM_SPLIT" if name.endswith("_s") else "DELTA_BINARY_PACKED"
            for name in empty.schema.names
        },
    ) as writer:
        for replica, log in enumerate(record.steps):
            for first_step, part in _parts(log):
                table = pa.table(step_columns(part, replica, first_step))
                writer.write_table(table.replace_schema_metadata(labels))


def _parts(log: StepLog) -> Iterator[tuple[int, StepLog]]:
    """Yield the log in parts of bounded length, each with the number of its first step."""
    ends = np.cumsum(log.steps)
    row = step = 0
    while row < len(log):
        next_row = int(np.searchsorted(ends, step + _STEPS_AT_ONCE, side="right"))
        next_row = max(next_row, row + 1)
        next_step = int(ends[next_row - 1])
        yield step, _rows_of(log, row, next_row, step, next_step)
        row, step = next_row, next_step


def _rows_of(log: StepLog, row: int, next_row: int, step: int, next_step: int) -> StepLog:
    columns = {field.name: getattr(log, field.name) for field in fields(log)}
    changes: dict[str, Any] = {
        name: column[row:next_row]
        for name, column in columns.items()
        if name != "new_blocks" and isinstance(column, np.ndarray)
    }
    return replace(log, **changes, new_blocks=log.new_blocks[step:next_step])


_NO_COLUMNS: dict[str, Any] = {
    field.name: np.zeros(0, np.int64)
    for field in fields(StepLog)
    if field.default is MISSING and field.name not in ("new_blocks", "num_blocks")
}
_NO_STEPS = StepLog(
    **_NO_COLUMNS,
    new_blocks=np.zeros(0, np.int32),
    num_blocks=0,
)


def read_requests(path: Path) -> tuple[RequestTable, RequestOutcomes]:
    """Return what ``write_requests`` wrote; shared prompt segments are not kept in the file."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    numbers = {word: value for value, word in STATUS_WORDS.items()}
    whole = {name: _whole(table[name]) for name in table.column_names if _is_whole(table, name)}
    classes = table["class"].to_pylist() if "class" in table.column_names else []
    class_names = tuple(dict.fromkeys(classes))
    places = {name: at for at, name in enumerate(class_names)}
    requests = RequestTable(
        arrival_ps=whole["arrival_ps"],
        prompt_tokens=whole["prompt_tokens"],
        output_tokens=whole["output_tokens"],
        priority=whole.get("priority"),
        give_up_ps=whole.get("give_up_ps"),
        is_timeout=whole["timed_out"] != 0 if "timed_out" in whole else None,
        request_id=tuple(table["id"].to_pylist()),
        request_class=np.array([places[name] for name in classes], np.int64) if classes else None,
        class_names=class_names,
    )
    outcomes = RequestOutcomes(
        status=np.array([numbers[word] for word in table["status"].to_pylist()], np.uint8),
        **{field.name: whole[field.name] for field in fields(RequestOutcomes)[1:]},
    )
    return requests, outcomes


def read_steps(path: Path, num_blocks: list[int]) -> tuple[StepLog, ...]:
    """Return what ``write_steps`` wrote, a row for every step; one log per replica."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    replica = _whole(table["replica"])
    bounds = np.searchsorted(replica, np.arange(len(num_blocks) + 1))
    logs = []
    for blocks, begin, end in zip(num_blocks, bounds[:-1], bounds[1:], strict=True):
        part = table.slice(int(begin), int(end - begin))
        start_ps = _whole(part["start_ps"])
        counts: dict[str, Any] = {name: _whole(part[name]) for name in _COUNTS_OF_STEPS}
        logs.append(
            StepLog(
                steps=np.ones(len(start_ps), np.int64),
                start_ps=start_ps,
                duration_ps=_whole(part["end_ps"]) - start_ps,
                duration_growth_ps=np.zeros(len(start_ps), np.int64),
                **counts,
                aborted=_whole(part["aborted"]) if "aborted" in part.column_names else None,
                new_blocks=_whole(part["new_blocks"]).astype(np.int32),
                num_blocks=blocks,
            )
        )
    return tuple(logs)


def label_of(path: Path, name: str) -> str | None:
    """Return one of the ``labels`` that a file was written with."""
    import pyarrow.parquet as pq

    value = (pq.read_schema(path).metadata or {}).get(name.encode())
    return value.decode() if value is not None else None


def _is_whole(table: Any, name: str) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(table.schema.field(name).type))


def _whole(column: Any) -> IntArray:
    values: npt.NDArray[Any] = column.to_numpy()
    return values.astype(np.int64)
