"""How far a simulation is from a real run: per step, and per request, with signs.

Three layers, apart from each other: the device's time of every step, its whole duration, and
the latencies of requests. A signed error is (simulated − real) / real.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibrate.engine.replay import ReplayResult
from calibrate.validate.host_terms import wall_s
from simserve.latency.tables.table_model import TableModel
from simserve.records.run_record import RunRecord
from simserve.records.step import StepShape
from simserve.results.metrics import request_latencies

FloatArray = npt.NDArray[np.float64]
REGIMES = ("decode", "prefill", "mixed")
LATENCIES = ("TTFT", "TPOT", "E2E")
STATISTICS = ("mean", "p50", "p90", "p99")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepErrors:
    """Errors of one layer of times over some steps: fractions."""

    steps: int
    total: float  # of the summed time, signed
    p50: float  # of the absolute error of a step
    p90: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyErrors:
    """Errors of one latency: signed, of its mean and percentiles; and request by request."""

    real_s: dict[str, float]  # by statistic
    signed: dict[str, float]
    request_p50: float  # of the absolute error of a request
    request_p90: float


def regime_of(shape: StepShape) -> str:
    """Return the name of a step's regime, as ``step.csv`` has it."""
    if not shape.prefill:
        return "decode"
    return "mixed" if shape.decode_seqs else "prefill"


def step_errors(
    replay: ReplayResult, model: TableModel, layers: int, *, ahead: bool
) -> dict[str, dict[str, StepErrors]]:
    """Return errors by layer (``device``, ``step``) and regime, ``all`` among them.

    The events around a step that is launched kernel by kernel see the launching too, if that
    takes longer than the kernels: so does the prediction, unless the launch is hidden.
    """
    rows = [row for row, shape in enumerate(replay.steps.shapes) if shape.tokens]
    shapes = [replay.steps.shapes[row] for row in rows]
    names = np.array([regime_of(shape) for shape in shapes])
    least_s = np.zeros(len(rows)) if ahead else _launch_s(model, layers, shapes)
    device = np.maximum([model.gpu_s(shape) for shape in shapes], least_s)
    real = {"device": replay.steps.column("t_gpu")[rows], "step": wall_s(replay)[rows]}
    predicted = {"device": device, "step": np.array([model.step_s(shape) for shape in shapes])}
    found: dict[str, dict[str, StepErrors]] = {}
    for layer, measured in real.items():
        chosen = {"all": np.ones(len(rows), np.bool_)}
        chosen |= {regime: names == regime for regime in REGIMES}
        found[layer] = {
            regime: _errors(predicted[layer][some], measured[some])
            for regime, some in chosen.items()
            if some.any()
        }
    return found


def _launch_s(model: TableModel, layers: int, shapes: Sequence[StepShape]) -> FloatArray:
    """Return the time to launch each step: one graph, or kernel by kernel."""
    host = model.profile.host
    if host is None:
        return np.zeros(len(shapes))
    largest = max(host.decode_graph_sizes, default=0)
    eager_s = host.kernels_per_layer.value * host.launch_kernel.value * layers
    return np.array(
        [
            host.launch_graph.value if not s.prefill and s.decode_seqs <= largest else eager_s
            for s in shapes
        ]
    )


def _errors(predicted: FloatArray, measured: FloatArray) -> StepErrors:
    apart = np.abs(predicted / measured - 1)
    p50, p90, p99 = (float(np.percentile(apart, one)) for one in (50, 90, 99))
    total = float(predicted.sum() / measured.sum() - 1)
    return StepErrors(steps=len(measured), total=total, p50=p50, p90=p90, p99=p99)


def latency_errors(real: RunRecord, other: RunRecord) -> dict[str, LatencyErrors]:
    """Return the errors of ``other``, a simulation or a repeat, by latency."""
    left, right = request_latencies(real), request_latencies(other)
    both = left.finished & right.finished
    columns = {
        "TTFT": (left.ttft_s, right.ttft_s),
        "TPOT": (left.tpot_s, right.tpot_s),
        "E2E": (left.e2el_s, right.e2el_s),
    }
    found = {}
    for name, (have, got) in columns.items():
        some = both & np.isfinite(have) & np.isfinite(got)
        real_s, other_s = _statistics(have[some]), _statistics(got[some])
        apart = np.abs(got[some] / have[some] - 1)
        found[name] = LatencyErrors(
            real_s=real_s,
            signed={key: other_s[key] / real_s[key] - 1 for key in STATISTICS},
            request_p50=float(np.percentile(apart, 50)),
            request_p90=float(np.percentile(apart, 90)),
        )
    return found


def _statistics(values: FloatArray) -> dict[str, float]:
    percentiles = {f"p{q}": float(np.percentile(values, q)) for q in (50, 90, 99)}
    return {"mean": float(values.mean()), **percentiles}
