"""Run a scenario once for every point of a grid of settings; one row per point.

Points share the seed, hence the same requests wherever the workload is the same: what
differs between two rows is what was varied. A point that does not fit on the GPUs is a row
with its reason. Rows do not depend on how many processes computed them. With replications, every
point meets the same ones, and its row has their intervals beside the numbers of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import simserve
from simserve.errors import DoesNotFitError, InputError
from simserve.inputs.scenario import Scenario, load_scenario
from simserve.planning.processes import as_finished, check_workers
from simserve.planning.replications import check_count, check_random, replicate
from simserve.planning.run_scenario import run
from simserve.planning.sweep_files import Row, SweepFiles
from simserve.planning.sweep_grid import Axis, Point, Setting, grid, settings_of
from simserve.results.attainment import attainments
from simserve.results.result import Result
from simserve.results.samples import MS_PER_S
from simserve.results.steady_state import steady_state
from simserve.traffic.generate import generate

if TYPE_CHECKING:
    import pandas as pd

DOES_NOT_FIT = "does-not-fit"
"""The verdict of a point whose GPUs cannot hold the model."""

ScenarioLoader = Callable[[Sequence[str]], Scenario]
"""Returns the scenario with further ``key=value`` settings applied."""


@dataclass(frozen=True, slots=True)
class SweepTable:
    """The rows of a sweep, in grid order."""

    rows: tuple[Row, ...]

    def frame(self) -> pd.DataFrame:
        """Return the rows as a table, one column per key."""
        import pandas as pd

        return pd.DataFrame(list(self.rows))


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One point, loaded: a scenario to run, or the reason why there is none."""

    values: Point
    scenario: Scenario | None
    replications: int = 1
    reason: str | None = None

    def key(self) -> tuple[str, str, int] | None:
        """Return what identifies the finished row of this point."""
        if self.scenario is None:
            return None
        return self.scenario.digest(), simserve.__version__, self.replications


def sweep(
    scenario: str | Path | None = None,
    vary: Mapping[str, Sequence[Setting]] | None = None,
    *,
    link: Iterable[Sequence[str]] = (),
    replications: int = 1,
    workers: int = 1,
    out: str | Path | None = None,
    resume: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    settings: Sequence[str] = (),
    **options: Any,
) -> SweepTable:
    """Run ``scenario`` for every combination of the values in ``vary``.

    Keys are those of ``--set``: ``sweep("chat.yaml", {"max_num_seqs": [16, 64, 256]})``.
    ``options`` are further arguments of ``load_scenario``. ``out`` names a ``.csv`` or
    ``.parquet`` file or a directory; with ``resume``, points whose row it holds are not run.
    ``replications`` of every point add its steady-state numbers with their intervals.

    Raises:
        InputError: before anything is run, if a key, a value or ``out`` cannot be used.
    """
    axes = [Axis(key, tuple(values)) for key, values in (vary or {}).items()]

    def load(extra: Sequence[str]) -> Scenario:
        return load_scenario(scenario, settings=[*settings, *extra], **options)

    files = SweepFiles(Path(out), [scenario]) if out is not None else None
    points = load_points(load, grid(axes, link), replications)
    return run_points(points, files=files, workers=workers, resume=resume, on_progress=on_progress)


def load_points(
    load: ScenarioLoader, points: Iterable[Point], replications: int = 1
) -> list[SweepPoint]:
    """Return every point with its scenario; one that does not fit keeps the reason."""
    check_count(replications)
    loaded = []
    for point in points:
        try:
            loaded.append(SweepPoint(point, load(settings_of(point)), replications))
        except DoesNotFitError as error:
            loaded.append(SweepPoint(point, None, replications, str(_of_axis(error, point))))
        except InputError as error:
            raise _of_axis(error, point) from None
    return loaded


def _of_axis(error: InputError, point: Point) -> InputError:
    """Return an error about a varied setting as one about --vary, which is what was typed."""
    for setting in settings_of(point):
        if error.where == f"--set {setting}":
            allowed = error.allowed and error.allowed.replace(error.where, f"--vary {setting}")
            return InputError(f"--vary {setting}", error.which, error.got, allowed)
    return error


def run_points(
    points: Sequence[SweepPoint],
    *,
    files: SweepFiles | None = None,
    workers: int = 1,
    resume: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> SweepTable:
    """Run the points that ``files`` does not hold yet and return the rows of all."""
    if resume and files is None:
        raise InputError("--resume", None, None, "only together with --out")
    check_workers(workers)
    kept = []
    if files is not None:
        files.check(resume=resume)
        kept = files.finished_rows() if resume else []
    rows, others = _match(points, kept)
    _check_inputs([point for at, point in enumerate(points) if at not in rows])
    if files is not None:
        files.open_journal([*rows.values(), *others])
    todo = [at for at in range(len(points)) if at not in rows]
    try:
        for at, (row, bench) in _results(points, todo, workers):
            rows[at] = row
            if files is not None:
                if bench is not None:
                    files.save_run(row, bench)
                files.append(row)
            if on_progress is not None:
                on_progress(len(rows), len(points))
    finally:
        if files is not None:
            files.close()
    ordered = tuple(rows[at] for at in range(len(points)))
    if files is not None:
        files.finish([*ordered, *others])
    return SweepTable(ordered)


def run_point(point: SweepPoint) -> tuple[Row, dict[str, Any] | None]:
    """Return the row of one point and its result in the format of ``vllm bench serve``."""
    if point.scenario is None:
        return _infeasible(point, point.reason), None
    try:
        result = run(point.scenario)
    except DoesNotFitError as error:
        return _infeasible(point, str(error)), None
    bench = result.bench_dict()
    row: Row = dict(point.values)
    row["verdict"] = result.verdict.name
    if result.slo_report is not None:
        row["slo_met"] = result.slo_report.met
    row |= metrics_of(bench)
    if point.replications > 1:
        row |= _over_replications(result, point)
    row["scenario_digest"] = point.scenario.digest()
    row["simserve_version"] = simserve.__version__
    return row, bench


def _over_replications(result: Result, point: SweepPoint) -> Row:
    """Return the columns of all replications, of which ``result`` is the first.

    ``steady_p99_ttft_ms`` and its ends ``…_low`` and ``…_high``; left out where there is no
    interval.
    """
    runs = [result.sample]
    if point.scenario is not None:
        runs += replicate(point.scenario, range(1, point.replications))
    state = steady_state(runs)
    row: Row = {REPLICATIONS: point.replications}
    if runs[0].promises:
        kept = attainments(runs, good_share=1.0)  # as 'run' asks of its replications
        row["slo_met"] = state.reason is None and all(one.met for one in kept)
    for metric, statistics in state.latencies.items():
        for name, one in statistics.items():
            ends = {"": one.value, "_low": one.low, "_high": one.high}
            row |= {
                f"{STEADY}{BENCH_NAMES.get(name, name)}_{metric}_ms{end}": number * MS_PER_S
                for end, number in ends.items()
                if one.low is not None and number is not None
            }
    return row


STEADY, REPLICATIONS = "steady_", "replications"
"""How columns of all replications begin, and the column of how many there were."""
BENCH_NAMES = {"p50": "median"}
"""Statistics that ``vllm bench serve`` calls otherwise."""

_SETTINGS = frozenset({"request_rate", "burstiness", "rtfx", "seed"})
"""Numbers in a result file that say what was asked, not what came out."""


def metrics_of(bench: Mapping[str, Any]) -> Row:
    """Return the single numbers of a result, those of simserve's own section last."""
    numbers = {**bench, **bench["simserve"]}
    return {
        key: value
        for key, value in numbers.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and key not in _SETTINGS
    }


def _infeasible(point: SweepPoint, reason: str | None) -> Row:
    return {
        **point.values,
        "verdict": DOES_NOT_FIT,
        "reason": reason,
        "simserve_version": simserve.__version__,
    }


def _check_inputs(points: Iterable[SweepPoint]) -> None:
    """Make every distinct workload once, so that a bad trace is refused before anything runs."""
    seen = set()
    for point in points:
        if point.scenario is None:
            continue
        key = (point.scenario.workload.model_dump_json(), point.scenario.seed)
        if key not in seen:
            seen.add(key)
            generate(point.scenario.workload, point.scenario.seed)
            if point.replications > 1:
                check_random(point.scenario, "--replications")


def _match(points: Sequence[SweepPoint], kept: Iterable[Row]) -> tuple[dict[int, Row], list[Row]]:
    """Return the kept rows by the point they belong to, and those that belong to none.

    A kept row takes the point's own values, so that a table reads the same whether or not
    it was resumed. Rows without a digest (nothing was run) are made again.
    """
    places: dict[tuple[str, str, int], list[int]] = {}
    for at, point in enumerate(points):
        key = point.key()
        if key is not None:
            places.setdefault(key, []).append(at)
    digests = {digest for digest, *_ in places}
    rows: dict[int, Row] = {}
    others: dict[str, Row] = {}
    for row in kept:
        digest = row.get("scenario_digest")
        if digest is None:
            continue
        key = digest, row.get("simserve_version", ""), row.get(REPLICATIONS, 1)
        found = places.get(key, [])
        for at in found:
            rows[at] = points[at].values | _measured(row)
        if digest not in digests:
            others[digest] = row
    return rows, list(others.values())


def _measured(row: Row) -> Row:
    """Return the row from its verdict on: without the keys that were varied then."""
    names = list(row)
    return {name: row[name] for name in names[names.index("verdict") :]}


def _results(
    points: Sequence[SweepPoint], todo: Sequence[int], workers: int
) -> Iterator[tuple[int, tuple[Row, dict[str, Any] | None]]]:
    """Yield the results of the points numbered in ``todo`` as they finish."""
    for at, result in as_finished(run_point, [points[at] for at in todo], workers):
        yield todo[at], result
