"""A stand-in for ``calibrate`` on a host: writes a file, then does what it is told."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

folder, how = Path(sys.argv[1]), sys.argv[2]
earlier = sorted(path.name for path in folder.iterdir())
sys.stdout.write(f"earlier: {' '.join(earlier)}\n")
sys.stdout.write(f"kit: {os.environ.get('CALIBRATE_KIT')}\n")
(folder / f"{how}.bin").write_bytes(os.urandom(60_000))
if how == "hang":
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        (folder / "journal").write_text("whole")
        sys.stdout.write("interrupted\n")
if how == "slow":
    time.sleep(1.0)
    (folder / "last").write_text("whole")
sys.exit(3 if how == "fail" else 0)
