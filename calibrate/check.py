"""Does every kernel compute what it should? Each against float64, also inside a CUDA graph.

A kernel that raises is a row that failed. After a fault that took the device along, nothing more
can be asked of a process.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch

from calibrate.kernels import registry
from calibrate.kernels.trials import Trial, attention_trials, latent_trials
from calibrate.kernels.trials_dense import experts_trials, gemm_trials
from calibrate.kernels.trials_small import pointwise_trials

# A table's kernels, and how to try one: a function of the kernel and the device. What every
# model needs comes first: a check may be stopped.
FAMILIES: Final[dict[str, tuple[dict[str, Any], Any]]] = {
    "gemm": (registry.GEMM, gemm_trials),
    "ops": (registry.OPS, pointwise_trials),
    "attention": (registry.ATTENTION, attention_trials),
    "moe": (registry.MOE, experts_trials),
    "mla": (registry.MLA, latent_trials),
}
NOTE_CHARACTERS: Final = 300
COLUMNS: Final = 80
HEADER: Final = f"{'kernel':<28} {'case':<29} {'error':>7} {'':5} result"


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
    All in this process: ``check_apart`` gives kernels one that they may take with them.
    """
    labels, rows = choose(device, names or ())
    for label in labels:
        trials = KernelTrials(label, device, seed)
        for number in itertools.count():
            found = trials.check(number)
            if found is None:
                break
            rows += found
            if not alive(device):
                return [*rows, not_run("everything else", f"device lost in {label}")]
    return rows


def choose(device: torch.device, names: Collection[str]) -> tuple[list[str], list[CheckRow]]:
    """Return the kernels to check, as family/name, and rows of what was asked for and is not."""
    labels, rows = list[str](), list[CheckRow]()
    asked, found = set(names), set[str]()
    for family, (table, _) in FAMILIES.items():
        # One that is not asked for is not even loaded.
        wanted = [name for name in table if not asked or asked & {family, name, f"{family}/{name}"}]
        for listed in registry.survey({name: table[name] for name in wanted}, device):
            label = f"{family}/{listed.name}"
            found |= asked & {family, listed.name, label}
            if listed.kernel is not None:
                labels.append(label)
            elif asked & {listed.name, label}:
                rows.append(not_run(label, f"missing: {listed.missing}"))
    rows += [not_run(name, "no such kernel here") for name in sorted(asked - found)]
    return labels, rows


def not_run(kernel: str, note: str, case: str = "") -> CheckRow:
    """Return a failed row of what gave no result."""
    return CheckRow(kernel, case, None, math.nan, graph=False, passed=False, note=note)


class KernelTrials:
    """The trials of one kernel, by number; each draws from a seed of its own."""

    def __init__(self, label: str, device: torch.device, seed: int) -> None:
        self.label, self._device, self._seed = label, device, seed
        family, name = label.split("/", 1)
        table, build = FAMILIES[family]
        self._captured = bool(table[name].captured)
        self._trials: Iterator[Trial] = build(table[name](), device)
        self._next = 0

    def check(self, number: int) -> list[CheckRow] | None:
        """Return the rows of trial ``number``; None if there is none. Those before it are over."""
        trial = None
        try:
            while self._next <= number:
                trial = next(self._trials)
                self._next += 1
        except StopIteration:
            return None
        except Exception as error:  # noqa: BLE001 - whatever a kernel raises is its result
            self._trials, self._next = iter(()), number + 1
            return [not_run(self.label, said(error), f"case {number}")]
        if trial is None:
            return None
        seed = self._seed + number
        return list(_check_trial(self.label, trial, self._device, seed, self._captured))


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
            note = said(raised)
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


def alive(device: torch.device) -> bool:
    """Tell whether the device still answers; an illegal access ends it for this process."""
    if device.type != "cuda":
        return True
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True


def said(error: Exception) -> str:
    """Return the kind of an error and the first line of what it says."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:NOTE_CHARACTERS]


def check_table(rows: list[CheckRow]) -> str:
    """Return the rows as text of 80 columns, then how many passed; a note is on its own line."""
    return "\n".join([HEADER, *map(row_text, rows), tally(rows)])


def row_text(row: CheckRow) -> str:
    """Return the line of a row, and under it what there is to say."""
    error = "-" if row.error is None else f"{row.error:.1e}"
    result = "FAILED" if not row.passed else "refused" if row.error is None else "ok"
    graph = "graph" if row.graph else ""
    line = f"{row.kernel[:28]:<28} {row.case[:29]:<29} {error:>7} {graph:5} {result}"
    lines = [line.rstrip()]
    if row.error is not None and not row.passed:
        lines.append(f"    above the limit of {row.limit:.0e}")
    if row.note:
        lines += [f"    {part}" for part in textwrap.wrap(row.note, COLUMNS - 4)]
    return "\n".join(lines)


def tally(rows: list[CheckRow]) -> str:
    """Return how many passed of those that ran."""
    ran = [row for row in rows if row.error is not None or not row.passed]
    failed = sum(not row.passed for row in rows)
    return f"{len(ran) - failed} of {len(ran)} checks passed, {failed} failed"
