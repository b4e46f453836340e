"""Two saved runs side by side, part by part: in which part of a latency they differ."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simserve.planning.changed_deployment import scenario_of_resolved
from simserve.planning.explanation import waterfalls_of
from simserve.results.result import RUN_FILE, Result
from simserve.results.waterfall_bands import ALL, Band, bands

METRICS = ("ttft", "tpot")
TAIL_PERCENTILE = 99.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The mean waterfalls of the same share of both runs' requests: all of them, or the tail."""

    metric: str
    a: Band
    b: Band

    @property
    def is_all(self) -> bool:
        """Whether it is of all requests, and not of the tail."""
        return (self.a.low, self.a.high) == ALL

    @property
    def change_s(self) -> dict[str, float]:
        """By how much each part is longer in B; they sum to the change of the mean latency."""
        return {name: self.b.parts_s[name] - value for name, value in self.a.parts_s.items()}

    @property
    def latency_change_s(self) -> float:
        """By how much the mean latency is longer in B."""
        return self.b.latency_s - self.a.latency_s


def is_run_folder(where: str | None) -> bool:
    """Return whether an argument is a folder of a saved run."""
    return where is not None and (Path(where) / RUN_FILE).is_file()


def where_it_changed(a: str, b: str) -> tuple[Parts, ...]:
    """Return the parts of two folders of ``run --out``: of each metric, all requests and the tail.

    Raises:
        InputError: if a run's scenario cannot be made again, so that its steps have no prices.
    """
    found = [_bands(where) for where in (a, b)]
    return tuple(
        Parts(metric=metric, a=one, b=other)
        for metric in METRICS
        for one, other in zip(found[0][metric], found[1][metric], strict=False)
    )


def _bands(where: str) -> dict[str, list[Band]]:
    result = Result.load(where)
    found = waterfalls_of(result, scenario_of_resolved(result.facts.resolved))
    of_metric = {metric: bands(found, metric, TAIL_PERCENTILE) for metric in METRICS}
    return {metric: [some[0], some[-1]] if some else [] for metric, some in of_metric.items()}
