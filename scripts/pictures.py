"""Write the pictures of the README: ``python -m scripts.pictures``, after the notebooks have run.

They are outputs of notebooks, so that a picture and what is said about it come from one place.
With ``--check`` nothing is written, and the exit status is 1 if one would change.
"""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.site.notebook_pages import read_notebooks, text_of

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "pictures"
PICTURES: Mapping[str, tuple[str, int]] = {
    "throughput-latency.png": ("01-throughput-latency", 1),
}
"""The notebook that a picture is from, and which of its pictures, counted from 0."""


def pictures() -> dict[Path, bytes]:
    """Return the content of every picture by its path."""
    notebooks = {one.name: one for one in read_notebooks(ROOT / "notebooks")}
    found = {}
    for name, (notebook, number) in PICTURES.items():
        drawn = [
            text_of(output["data"]["image/png"])
            for cell in notebooks[notebook].cells
            for output in cell.get("outputs", ())
            if "image/png" in output.get("data", {})
        ]
        found[FOLDER / name] = base64.b64decode(drawn[number])
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pictures, or check them, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on a change")
    check = parser.parse_args(arguments).check
    changed = 0
    for path, content in pictures().items():
        if path.is_file() and path.read_bytes() == content:
            continue
        changed += 1
        print(f"{path.relative_to(ROOT)}: has changed")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return int(check and changed > 0)


if __name__ == "__main__":
    sys.exit(main())
