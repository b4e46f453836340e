"""Run the benchmarks, each in a process of its own, and print one table.

``python -m benchmarks`` runs all, ``python -m benchmarks light heavy`` a subset. The exit
status is 1 if a bar was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.cases import CASES, Case

BY_NAME = {case.name: case for case in CASES}
Figures = dict[str, float]

COLUMNS = (
    ("requests", "requests", "{:,.0f}"),
    ("steps", "steps", "{:,.0f}"),
    ("CPU s", "cpu_s", "{:.2f}"),
    ("requests per CPU s", "requests_per_cpu_s", "{:,.0f}"),
    ("× bare timeouts", "timeouts_ratio", "{:.2f}"),
    ("preempted", "preempted_frac", "{:.1%}"),
    ("peak MiB", "peak_rss_mib", "{:,.0f}"),
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("case", nargs="*", help=f"which to run: {', '.join(BY_NAME)}; default all")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name in options.case:
        if name not in BY_NAME:
            parser.error(f"case: got {name}, allowed: {', '.join(BY_NAME)}")
    return options


def measure_apart(case: Case) -> Figures:
    """Return the figures of ``case``, measured in a fresh process."""
    command = [sys.executable, "-m", "benchmarks", "--measure", case.name]
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # as the command line has it
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env, check=False)
    if done.returncode:
        sys.exit(f"benchmarks: {case.name} did not run; see above")
    figures: Figures = json.loads(done.stdout)
    return figures


def compare(figures: dict[str, Figures]) -> None:
    """Add the CPU time per request in units of another case's, where both were run."""
    for name, row in figures.items():
        unit = figures.get(BY_NAME[name].compared_with or "")
        if unit:
            row["per_request_ratio"] = unit["requests_per_cpu_s"] / row["requests_per_cpu_s"]


def verdict(case: Case, row: Figures) -> tuple[str, bool]:
    """Return what the bars of ``case`` say about ``row``, in words, and whether all are kept."""
    words, all_kept = [], True
    for bar in case.bars:
        if bar.figure not in row:
            words.append(f"{bar}: needs {case.compared_with}")
            continue
        kept = bar.kept(row[bar.figure])
        all_kept &= kept
        words.append(f"{bar}: {'pass' if kept else 'miss'} ({row[bar.figure]:.3g})")
    return "; ".join(words) or "no bar", all_kept


def print_table(figures: dict[str, Figures]) -> None:
    """Print the figures as a Markdown table."""
    heads = ["case", *(head for head, _, _ in COLUMNS), "bar"]
    rows = [heads]
    for name, row in figures.items():
        cells = [form.format(row[key]) for _, key, form in COLUMNS]
        rows.append([BY_NAME[name].title, *cells, verdict(BY_NAME[name], row)[0]])
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    rows.insert(1, ["-" * width for width in widths])
    for row_cells in rows:
        padded = (cell.ljust(width) for cell, width in zip(row_cells, widths, strict=True))
        print("| " + " | ".join(padded) + " |")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for and return the exit status."""
    options = parse(arguments)
    chosen = [BY_NAME[name] for name in options.case or BY_NAME]
    if options.measure:
        from benchmarks.measure import measure  # the parent stays light

        print(json.dumps(measure(chosen[0])))
        return 0
    figures: dict[str, Figures] = {}
    for case in chosen:
        if case.needs and not case.needs.exists():
            print(f"left out: {case.name} ({case.needs.name} is not there)", file=sys.stderr)
            continue
        print(f"running {case.name} …", file=sys.stderr, flush=True)
        figures[case.name] = measure_apart(case)
    compare(figures)
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        print_table(figures)
    return 0 if all(verdict(BY_NAME[name], row)[1] for name, row in figures.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
