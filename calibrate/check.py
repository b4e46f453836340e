"""Does every kernel compute what it should? Each against float64, also inside a CUDA graph.

A kernel that raises is a row that failed. After a fault that took the device along, nothing more
can be asked of this process: the remaining rows say so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch

from calibrate.kernels import registry
from calibrate.kernels.trials import Trial, attention_trials, latent_trials
from calibrate.kernels.trials_dense import experts_trials, gemm_trials
from calibrate.kernels.trials_small import pointwise_trials

# A table's kernels, and how to try one: a function of the kernel and the device.
FAMILIES: Final[dict[str, tuple[dict[str, Any], Any]]] = {
    "attention": (registry.ATTENTION, attention_trials),
    "mla": (registry.MLA, latent_trials),
    "gemm": (registry.GEMM, gemm_trials),
    "moe": (registry.MOE, experts_trials),
    "ops": (registry.OPS, pointwise_trials),
}
NOTE_CHARACTERS: Final = 300
COLUMNS: Final = 80


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One kernel at one size, launched once or replayed from a graph."""

    kernel: str  # family/name
    case: str
    error: float | None  # None if it did not run
    limit: float
    graph: bool
    passed: bool
    note: str = ""


def run_checks(
    device: torch.device, seed: int, names: Collection[str] | None = None
) -> list[CheckRow]:
    """Check every kernel that can run on ``device``, or those whose name is in ``names``.

    A name is a family (``attention``), a kernel (``triton``) or both (``attention/triton``).
    A kernel that a name asks for and that is missing is a failed row, as is a name that is
    nobody's. A size that a kernel refuses is a row without error that passed, with the reason.
    """
    rows: list[CheckRow] = []
    asked, found = set(names or ()), set[str]()
    for family, (table, build) in FAMILIES.items():
        for listed in registry.survey(table, device):
            label = f"{family}/{listed.name}"
            matches = asked & {family, listed.name, label}
            if asked and not matches:
                continue
            found |= matches
            if listed.kernel is None:
                if asked & {listed.name, label}:
                    rows.append(_not_run(label, "", f"missing: {listed.missing}"))
                continue
            trials = build(listed.kernel, device)
            rows += _check_kernel(label, trials, device, seed, table[listed.name].captured)
            if not _alive(device):
                return [*rows, _not_run("everything else", "", f"device lost in {label}")]
    rows += [_not_run(name, "", "no such kernel here") for name in sorted(asked - found)]
    return rows


def _not_run(kernel: str, case: str, note: str) -> CheckRow:
    return CheckRow(kernel, case, None, math.nan, graph=False, passed=False, note=note)


def _check_kernel(
    label: str, trials: Iterator[Trial], device: torch.device, seed: int, captured: bool
) -> Iterator[CheckRow]:
    """Yield the rows of one kernel, until there are no more trials or no more device."""
    for number in itertools.count():
        try:
            trial = next(trials)
        except StopIteration:
            return
        except Exception as error:  # noqa: BLE001 - whatever a kernel raises is its result
            yield _not_run(label, f"case {number}", _said(error))
            return
        yield from _check_trial(label, trial, device, seed + number, captured)
        if not _alive(device):
            return


def _check_trial(
    label: str, trial: Trial, device: torch.device, seed: int, captured: bool
) -> Iterator[CheckRow]:
    """Yield the launched row and, on a GPU, the replayed one, of fresh inputs each."""
    refused = trial.refuses()
    if refused:
        note = f"refuses: {refused}"
        yield CheckRow(label, trial.case, None, trial.limit, graph=False, passed=True, note=note)
        return
    generator = torch.Generator(device).manual_seed(seed)
    for graph in (False, True) if captured and device.type == "cuda" else (False,):
        try:
            error = _replayed(trial, generator) if graph else _launched(trial, generator)
        except Exception as raised:  # noqa: BLE001 - whatever a kernel raises is its result
            note = _said(raised)
            yield CheckRow(label, trial.case, None, trial.limit, graph, passed=False, note=note)
            return
        passed = error <= trial.limit  # NaN does not
        yield CheckRow(label, trial.case, error, trial.limit, graph, passed)


def _launched(trial: Trial, generator: torch.Generator) -> float:
    trial.fill(generator)
    trial.run()
    return trial.error()


def _replayed(trial: Trial, generator: torch.Generator) -> float:
    """Capture a launch, change what its tensors hold, lengths included, and replay it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        trial.run()
    trial.fill(generator)
    graph.replay()
    torch.cuda.synchronize()
    return trial.error()


def _alive(device: torch.device) -> bool:
    """Tell whether the device still answers; an illegal access ends it for this process."""
    if device.type != "cuda":
        return True
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:NOTE_CHARACTERS]


def check_table(rows: list[CheckRow]) -> str:
    """Return the rows as text of 80 columns, then how many passed; a note is on its own line."""
    lines = [f"{'kernel':<28} {'case':<29} {'error':>7} {'':5} result"]
    for row in rows:
        error = "-" if row.error is None else f"{row.error:.1e}"
        result = "FAILED" if not row.passed else "refused" if row.error is None else "ok"
        graph = "graph" if row.graph else ""
        line = f"{row.kernel[:28]:<28} {row.case[:29]:<29} {error:>7} {graph:5} {result}"
        lines.append(line.rstrip())
        if row.error is not None and not row.passed:
            lines.append(f"    above the limit of {row.limit:.0e}")
        if row.note:
            lines += [f"    {part}" for part in _wrapped(row.note, COLUMNS - 4)]
    ran = [row for row in rows if row.error is not None or not row.passed]
    failed = sum(not row.passed for row in rows)
    lines.append(f"{len(ran) - failed} of {len(ran)} checks passed, {failed} failed")
    return "\n".join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width)
