"""A run and everything computed from it: the object that ``run`` returns and files hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simserve.errors import InputError, reason_of
from simserve.records.clock import NEVER_PS
from simserve.records.run_record import RunMeta, RunRecord, TokenGaps
from simserve.results.bench_json import DEFAULT_PERCENTILES, bench_json
from simserve.results.engine_use import EngineUse, PrefixUse, engine_use, prefix_use
from simserve.results.frames import (
    label_of,
    read_requests,
    read_steps,
    request_columns,
    step_frame_columns,
    write_requests,
    write_steps,
)
from simserve.results.metrics import Metrics, measure
from simserve.results.run_facts import RunFacts, facts_of
from simserve.results.run_sample import RunSample
from simserve.results.slo_judge import SloReport, judge_slo
from simserve.results.steady_state import SteadyState, steady_state
from simserve.results.verdict import Verdict, judge_load
from simserve.results.whole_files import (
    directory_for,
    json_text,
    text_writer,
    write_json,
    write_together,
)
from simserve.traffic.segments import reusable_tokens

if TYPE_CHECKING:
    import pandas as pd

    from simserve.inputs.scenario import Scenario

RUN_FILE, REQUESTS_FILE, STEPS_FILE = "run.json", "requests.parquet", "steps.parquet"
FORMAT = 1
"""Version of the three files together."""
_LABEL = "simserve_digest"
_SHOWN_DIGITS = 12
# What files raise that are damaged, or that something else has written.
_UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError),
    *(OverflowError, RecursionError, NotImplementedError, MemoryError),
)
_GAP_TYPES: dict[str, type[np.generic]] = {
    "request": np.int64,
    "previous_step": np.int64,
    "step": np.int64,
    "as_decode": np.bool_,
}


class Result:
    """A finished run; every number is computed from its record when first asked for.

    ``prefix_bound_frac`` is the hit rate of an unlimited cache on the same prompts; computed
    from their shared segments unless given. ``scenario`` is None in a result that was loaded
    from files, which keep only its ``facts``.
    """

    def __init__(
        self,
        scenario: Scenario | None,
        record: RunRecord,
        *,
        facts: RunFacts | None = None,
        prefix_bound_frac: float | None = None,
    ) -> None:
        if facts is None:
            if scenario is None:
                raise TypeError("a result needs a scenario or the facts of one")
            facts = facts_of(scenario)
        self.scenario = scenario
        self.record = record
        self.facts = facts
        self._known_bound_frac = prefix_bound_frac

    @cached_property
    def prefix_bound_frac(self) -> float | None:
        """The hit rate that an unlimited cache has on the same prompts; None if unknown."""
        requests = self.record.requests
        if self._known_bound_frac is not None or requests.segments is None:
            return self._known_bound_frac
        admitted = self.record.outcomes.first_scheduled_ps != NEVER_PS
        reusable = reusable_tokens(requests, self.facts.block_size)[admitted]
        prompt_tokens = int(requests.prompt_tokens[admitted].sum())
        return int(reusable.sum()) / prompt_tokens if prompt_tokens else None

    @cached_property
    def metrics(self) -> Metrics:
        """Latencies and throughput, as ``vllm bench serve`` defines them."""
        return measure(self.record)

    @cached_property
    def verdict(self) -> Verdict:
        """Whether the run shows an operating point; ``str()`` of it is one word."""
        return judge_load(self.record)

    @cached_property
    def slo_report(self) -> SloReport | None:
        """The objectives judged; None without objectives."""
        slo, classes = self.facts.slo(), self.facts.class_slos()
        if slo is None and not any(one.slo for one in classes):
            return None
        return judge_slo(slo, self.record, self.metrics, self.verdict, classes)

    @cached_property
    def sample(self) -> RunSample:
        """What this run contributes to estimates over several."""
        return RunSample.of(self.record, self.verdict, self.facts)

    @cached_property
    def steady_state(self) -> SteadyState:
        """The latencies and rates that this run and others like it have in common."""
        return steady_state([self.sample])

    @cached_property
    def engine_use(self) -> EngineUse:
        """KV blocks, batch and busy time."""
        return engine_use(self.record)

    @cached_property
    def prefix_use(self) -> PrefixUse:
        """Prefix-cache hits at first admission."""
        return prefix_use(self.record, self.facts.block_size)

    def requests_frame(self) -> pd.DataFrame:
        """Return one row per request, times in seconds."""
        import pandas as pd

        return pd.DataFrame(request_columns(self.record))

    def steps_frame(self) -> pd.DataFrame:
        """Return one row per step of every replica, times in seconds."""
        import pandas as pd

        return pd.DataFrame(step_frame_columns(self.record))

    def bench_dict(
        self,
        save_detailed: bool = False,
        metric_percentiles: Sequence[float] = DEFAULT_PERCENTILES,
    ) -> dict[str, Any]:
        """Return the result in the format of ``vllm bench serve --save-result``."""
        return bench_json(
            facts=self.facts,
            record=self.record,
            metrics=self.metrics,
            verdict=self.verdict,
            slo=self.slo_report,
            use=self.engine_use,
            prefix=self.prefix_use,
            prefix_bound_frac=self.prefix_bound_frac,
            metric_percentiles=metric_percentiles,
            save_detailed=save_detailed,
        )

    def save_bench(
        self,
        path: str | Path,
        *,
        save_detailed: bool = False,
        metric_percentiles: Sequence[float] = DEFAULT_PERCENTILES,
    ) -> None:
        """Write ``bench_dict`` to one JSON file, whole or not at all."""
        write_json(Path(path), self.bench_dict(save_detailed, metric_percentiles))

    def save(self, directory: str | Path) -> None:
        """Write run.json, requests.parquet and steps.parquet into ``directory``.

        None appears under its name before all are complete, run.json last. The prompts' shared
        segments are not kept: the scenario and its seed make them again.

        Raises:
            InputError: if the files cannot be written there.
        """
        place = Path(directory)
        labels = {_LABEL: self.facts.digest}
        record = self.record
        files = {
            place / REQUESTS_FILE: lambda path: write_requests(record, path, labels),
            place / STEPS_FILE: lambda path: write_steps(record, path, labels),
            place / RUN_FILE: text_writer(json_text(self._run_file())),
        }
        with directory_for(place):
            write_together(files)

    def _run_file(self) -> dict[str, Any]:
        gaps = self.record.gaps
        return {
            "format": FORMAT,
            "facts": self.facts.as_dict(),
            "prefix_bound_frac": self.prefix_bound_frac,
            "end_ps": self.record.end_ps,
            "num_blocks": [log.num_blocks for log in self.record.steps],
            "requests": len(self.record.requests),
            "steps": [log.total_steps for log in self.record.steps],
            "token_gaps": {name: getattr(gaps, name).tolist() for name in _GAP_TYPES},
            "meta": self.record.meta.as_dict(),
            "bench": self.bench_dict(),
        }

    @classmethod
    def load(cls, directory: str | Path) -> Result:
        """Return the result that ``save`` wrote.

        Raises:
            InputError: if the directory does not hold the three files of one run.
        """
        place = Path(directory)
        try:
            run = _read_json(place / RUN_FILE)
            if run["format"] != FORMAT:
                raise InputError(str(place / RUN_FILE), "format", run["format"], str(FORMAT))
            for name in (REQUESTS_FILE, STEPS_FILE):
                _check_label(place / name, run["facts"]["digest"])
            requests, outcomes = read_requests(place / REQUESTS_FILE)
            steps = read_steps(place / STEPS_FILE, run["num_blocks"])
            gaps = {
                name: np.array(run["token_gaps"][name], kind) for name, kind in _GAP_TYPES.items()
            }
            facts = RunFacts.from_dict(run["facts"])
            meta = RunMeta.from_dict(run["meta"])
            end_ps, bound = run["end_ps"], run["prefix_bound_frac"]
            rows: dict[str, tuple[Any, Any]] = {REQUESTS_FILE: (len(requests), run["requests"])}
            rows[STEPS_FILE] = ([len(log) for log in steps], run["steps"])
            _check_numbers([end_ps, *run["num_blocks"]], int)
            _check_numbers([] if bound is None else [bound], (int, float))
        except _UNREADABLE as error:
            raise InputError(
                str(place), None, reason_of(error), "a folder that 'run --out' wrote"
            ) from error
        _check_sizes(place, rows)
        record = RunRecord(
            requests=requests,
            outcomes=outcomes,
            steps=steps,
            gaps=TokenGaps(**gaps),
            end_ps=end_ps,
            meta=meta,
        )
        return cls(None, record, facts=facts, prefix_bound_frac=bound)


def _read_json(path: Path) -> Any:
    """Return what the JSON file says; if it is none, the error names the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name}, which is not JSON ({error})") from None


def _check_label(path: Path, digest: str) -> None:
    """Refuse a table that another scenario's run has left."""
    found = label_of(path, _LABEL)
    if found != digest:
        got = "no digest" if found is None else f"{found[:_SHOWN_DIGITS]}…"
        allowed = f"{digest[:_SHOWN_DIGITS]}…, as {RUN_FILE} says: files of two runs"
        raise InputError(str(path), "scenario", got, allowed)


def _check_numbers(values: list[Any], kind: type | tuple[type, ...]) -> None:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, kind):
            raise TypeError(f"{value!r:.60} is no number")


def _check_sizes(place: Path, rows: dict[str, tuple[Any, Any]]) -> None:
    """Refuse tables that hold more or less than the run did."""
    for name, (got, expected) in rows.items():
        if got != expected:
            raise InputError(str(place / name), "rows", got, f"{expected}, as {RUN_FILE} says")
