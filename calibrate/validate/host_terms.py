"""Host time of an engine, fitted to its own steps: what ``host.yaml`` of a profile holds.

    host = step + per_seq · sequences + per_prefill_token · prefill tokens

with no term below zero, by least squares over the steps of calibration replays, never over
those that are reported. Of a synchronous engine all that is not the device's is host time; its
copy of the output cannot be told apart. Of one that plans ahead most host time is hidden, so
it is fitted to the measured host times themselves, and what a step takes beyond the longer of
device and host is the bubble (docs/profile-schema.md, "Host time").

On a CPU host and device are one thread, and a small kernel takes longer between others than
again and again by itself. There, host time is what steps take beyond the sum of the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from calibrate.engine.measured import FloatArray
from calibrate.engine.replay import ReplayResult
from simserve.errors import SimserveError
from simserve.inputs.model_spec import ModelSpec
from simserve.latency.tables.table_model import TableModel
from simserve.records.clock import PS_PER_S

# Launches of a layer, as ``calibrate.engine.model`` makes them: two norms, four products,
# rotation with KV store, attention, activation; and the norms of queries and keys.
_KERNELS_PER_LAYER, _KERNELS_OF_QK_NORM = 9, 1
_MIDDLE, _HIGH = 50, 90


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFit:
    """Fitted seconds, and what they leave: |measured − fitted| of the host time of a step."""

    host_step: float
    host_per_seq: float
    host_per_prefill_token: float
    launch_graph: float
    launch_kernel: float
    kernels_per_layer: int
    bubble: float
    ahead: bool
    steps: int
    residual_p50: float
    residual_p90: float

    def terms(self) -> dict[str, float]:
        """Return the terms as ``host.yaml`` names them."""
        names = ["host_step", "host_per_seq", "host_per_prefill_token", "launch_graph"]
        names += ["launch_kernel", "kernels_per_layer"] + (["bubble"] if self.ahead else [])
        return {name: getattr(self, name) for name in names}


def fit_host(
    replays: Sequence[ReplayResult], model: ModelSpec, tables: TableModel | None = None
) -> HostFit:
    """Fit the terms to the steps of replays that were scheduled alike.

    With ``tables``, to what they leave of a step's duration; else to what the measured device
    time leaves.

    Raises:
        SimserveError: if no step computed anything.
    """
    ahead = replays[0].record.steps[0].scheduled_ahead
    columns = _columns(replays)
    if tables is not None:
        shapes = [shape for one in replays for shape in one.steps.shapes]
        priced = [tables.gpu_s(shape) if shape.tokens else 0.0 for shape in shapes]
        columns["t_gpu"] = np.array(priced)
    busy = columns["t_gpu"] > 0
    if not busy.any():
        raise SimserveError("host terms: no step to fit to")
    of = {name: column[busy] for name, column in columns.items()}
    seqs = of["n_dec"] + of["n_pre"]
    features = np.stack([np.ones_like(seqs), seqs, of["q_tokens"]], axis=1)
    longer = np.maximum(of["t_gpu"], of["t_launch"])
    host = of["t_sched"] + of["t_prep"] + of["t_out"] if ahead else of["wall"] - longer
    terms = non_negative_least_squares(features, host)
    fitted = features @ terms
    graph = of["graph_size"] > 0
    launch = np.where(graph, _mean(of["t_launch"][graph]), _mean(of["t_launch"][~graph]))
    beyond = of["wall"] - np.maximum(of["t_gpu"], fitted + launch)
    left = np.abs(host - fitted)
    kernels = _KERNELS_PER_LAYER + (_KERNELS_OF_QK_NORM if model.qk_norm else 0)
    return HostFit(
        host_step=float(terms[0]),
        host_per_seq=float(terms[1]),
        host_per_prefill_token=float(terms[2]),
        launch_graph=_mean(of["t_launch"][graph]),
        launch_kernel=_mean(of["t_launch"][~graph]) / (model.layers * kernels),
        kernels_per_layer=kernels,
        bubble=max(0.0, _mean(beyond)) if ahead else 0.0,
        ahead=ahead,
        steps=int(busy.sum()),
        residual_p50=float(np.percentile(left, _MIDDLE)),
        residual_p90=float(np.percentile(left, _HIGH)),
    )


def non_negative_least_squares(features: FloatArray, wanted: FloatArray) -> FloatArray:
    """Return the coefficients, none below zero, with the least squared error.

    By trying which are zero: exact, and quick for the three that there are. Features are
    ``float64[rows, terms]``.
    """
    terms = features.shape[1]
    best, best_error = np.zeros(terms), float(wanted @ wanted)
    for count in range(1, terms + 1):
        for chosen in combinations(range(terms), count):
            part = features[:, chosen]
            found, *_ = np.linalg.lstsq(part, wanted, rcond=None)
            if (found < 0).any():
                continue
            error = float(np.sum((part @ found - wanted) ** 2))
            if error < best_error:
                best, best_error = np.zeros(terms), error
                best[list(chosen)] = found
    return best


def host_file(
    fit: HostFit, graph_sizes: Sequence[int], source: str, date: str
) -> dict[str, dict[str, Any]]:
    """Return the content of ``host.yaml``: every term with where it comes from."""
    origin = {"kind": "fitted", "source": source, "date": date}
    content: dict[str, dict[str, Any]] = {
        name: {"value": value, **origin} for name, value in fit.terms().items()
    }
    if graph_sizes:
        content["decode_graph_sizes"] = {
            "value": [*graph_sizes],
            **origin,
            "kind": "measured",
        }
    return content


def _columns(replays: Sequence[ReplayResult]) -> dict[str, FloatArray]:
    names = ("t_sched", "t_prep", "t_launch", "t_gpu", "t_out", "n_dec", "n_pre", "q_tokens")
    found = {
        name: np.concatenate([one.steps.column(name) for one in replays])
        for name in (*names, "graph_size")
    }
    found["wall"] = np.concatenate([wall_s(one) for one in replays])
    return found


def wall_s(replay: ReplayResult) -> npt.NDArray[np.float64]:
    """Return the duration of every step in seconds."""
    return np.asarray(replay.record.steps[0].duration_per_step_ps() / PS_PER_S)


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else 0.0
