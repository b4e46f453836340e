"""Run every notebook from top to bottom and write its outputs: ``python -m scripts.notebooks``.

What changes from run to run without meaning (times, the kernel's version) is left out, so that
a notebook whose answer has not changed does not change. Names of notebooks run those alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
CELL_TIMEOUT_S = 300
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def notebooks() -> list[Path]:
    """Return the notebooks in reading order."""
    return sorted(FOLDER.glob("[0-9][0-9]-*.ipynb"))


def cleaned(notebook: Any) -> Any:
    """Return the notebook with the same outputs and nothing that only tells of the run."""
    notebook.metadata = METADATA
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = _joined(cell.outputs)
        for output in cell.get("outputs", ()):
            output.pop("execution_count", None)
            output.get("data", {}).pop("text/html", None)
            if "data" in output:
                output.metadata = {}
            if output.output_type == "execute_result":
                output.execution_count = None
    return notebook


def _joined(outputs: Sequence[Any]) -> list[Any]:
    """Return the outputs with prints that came in pieces put together."""
    joined: list[Any] = []
    for output in outputs:
        if output.output_type == "stream" and joined and joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def execute(path: Path) -> None:
    """Run one notebook in its own folder and write it back."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=CELL_TIMEOUT_S, resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute()
    nbformat.write(cleaned(notebook), path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the notebooks that are named, or all, and return the exit status."""
    wanted = sys.argv[1:] if arguments is None else arguments
    known = {path.stem: path for path in notebooks()}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        print(f"notebooks: got {unknown[0]}, allowed: {', '.join(known)}", file=sys.stderr)
        return 2
    for name in wanted or known:
        began = time.monotonic()
        execute(known[name])
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
