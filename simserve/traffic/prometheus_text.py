"""A ``/metrics`` page as counters and histograms, in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from simserve.errors import InputError
from simserve.traffic.trace_formats.text_lines import decoded, numbered_lines

_SAMPLE = re.compile(
    r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?[ \t]+([^ \t]+)(?:[ \t]+-?[0-9]+)?(?:[ \t]*# .*)?"
)
_LABEL = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(,|$)')
_LINE_ALLOWED = "a line such as vllm:request_success_total{model_name=...} 42"


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: a name, its labels, and its value."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts per bucket (not summed up); the last ``upto`` may be infinite."""

    upto: tuple[float, ...]
    counts: tuple[float, ...]
    sum: float

    @property
    def count(self) -> float:
        """All observations."""
        return sum(self.counts)


class Metrics:
    """The samples of one page; engines of one model are added up."""

    def __init__(self, path: Path, samples: Iterable[Sample]) -> None:
        self.path = path
        self._samples = list(samples)

    def models(self) -> list[str]:
        """Return the ``model_name`` labels of vLLM's metrics."""
        ours = (one for one in self._samples if one.name.startswith("vllm:"))
        return sorted({one.labels["model_name"] for one in ours if "model_name" in one.labels})

    def of_model(self, model: str | None) -> Metrics:
        """Return the samples of one model, and those of no model."""
        return Metrics(
            self.path,
            (one for one in self._samples if one.labels.get("model_name", model) == model),
        )

    def total(self, *names: str) -> float | None:
        """Return the sum of the first of these metrics that the page has."""
        for name in names:
            for spelling in (f"{name}_total", name):
                found = [one.value for one in self._samples if one.name == spelling]
                if found:
                    return sum(found)
        return None

    def histogram(self, name: str) -> Histogram | None:
        """Return a histogram, None if the page has no bucket of it."""
        summed: dict[float, float] = {}
        for one in self._samples:
            if one.name == f"{name}_bucket" and "le" in one.labels:
                edge = _number(one.labels["le"])
                if math.isnan(edge):
                    raise self._broken(name, f'le="{one.labels["le"]}"')
                summed[edge] = summed.get(edge, 0.0) + one.value
        if not summed:
            return None
        upto = tuple(sorted(summed))
        steps = [summed[edge] for edge in upto]
        counts = tuple(b - a for a, b in zip([0.0, *steps[:-1]], steps, strict=True))
        total = self.total(f"{name}_sum")
        if min(counts) < 0 or total is None or not math.isfinite(total):
            raise self._broken(name, "buckets that fall, or no sum")
        return Histogram(upto, counts, total)

    def _broken(self, name: str, got: str) -> InputError:
        return InputError(str(self.path), name, got, "rising buckets with le, and a sum")


def read_metrics(path: Path) -> Metrics:
    """Return what a saved ``/metrics`` page says.

    Raises:
        InputError: naming the row that is not in the format.
    """
    samples = []
    for row, line in numbered_lines(path):
        text = decoded(path, row, line)
        if not text.startswith("#"):
            samples.append(_sample(path, row, text))
    if not samples:
        raise InputError(str(path), None, "no metric", "a page of vLLM's /metrics")
    return Metrics(path, samples)


def _sample(path: Path, row: int, text: str) -> Sample:
    found = _SAMPLE.fullmatch(text)
    labels = None if found is None else _labels(found[2] or "")
    value = math.nan if found is None else _number(found[3])
    if found is None or labels is None or (math.isnan(value) and found[3].lower() != "nan"):
        raise InputError(str(path), f"row {row}", text, _LINE_ALLOWED)
    return Sample(found[1], labels, value)


def _labels(text: str) -> dict[str, str] | None:
    labels: dict[str, str] = {}
    at = 0
    while at < len(text):
        found = _LABEL.match(text, at)
        if found is None:
            return None
        labels[found[1]] = found[2]
        at = found.end()
    return labels


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
