"""Build the documentation site: ``python -m scripts.build_site [FOLDER]``, into ``site`` if not.

Strict: a link that leads nowhere, or a page without a place in the navigation, ends it with
exit status 1. No network is used.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the site and return the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if len(words) > 1 or any(word.startswith("-") for word in words):
        print("usage: python -m scripts.build_site [FOLDER]", file=sys.stderr)
        return 2
    folder = Path(words[0]).resolve() if words else ROOT / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean"]
    calm = os.environ | {"NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"}
    done = subprocess.run(
        [*command, "--site-dir", str(folder)],
        cwd=ROOT,
        env=calm,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
    else:
        print(folder / "index.html")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
