"""A bench without a device: some points crash, hang, raise, refuse, or scatter on purpose.

What a point does stands in its keys; every measurement is noted in the file that the
configuration's ``device`` names, so that a test can count them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FINE, CRASH, HANG, RAISE, LOSE, REFUSE, NOISY, SLOW = range(8)


class FakeBench:
    def __init__(self, notes: Path) -> None:
        self._notes = notes
        self._healthy = True
        self._times: dict[str, int] = {}

    def facts(self) -> dict[str, Any]:
        return {
            "device": {"type": "cpu", "name": "a fake", "uuid_hash": "0"},
            "software": {"python": "3", "torch": "none"},
            "kernels": {"ATTENTION": {"torch": ""}, "MLA": {}},
        }

    def measure(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        size, behaviour = asked["keys"]["m"], asked["keys"]["n"]
        with self._notes.open("a") as file:
            file.write(f"{size}\n")
        if behaviour == CRASH:
            os.abort()
        if behaviour == HANG:
            time.sleep(1000)
        if behaviour in (RAISE, LOSE):
            self._healthy = behaviour != LOSE
            raise RuntimeError("an illegal memory access\nand a second line")
        if behaviour == REFUSE:
            return {"status": "refused", "error": "no such shape"}
        if behaviour == SLOW:
            time.sleep(0.02)
        seen = self._times[str(size)] = self._times.get(str(size), 0) + 1
        spread = 2.0 if behaviour == NOISY and seen < 3 else 1.01
        now = time.time()
        return {
            "status": "ok",
            "us_p50": float(size),
            "us_p10": float(size),
            "us_p90": size * spread,
            "us_min": float(size),
            "us_mean": float(size),
            "n": 5,
            "t_start": now,
            "t_end": now,
        }

    def healthy(self) -> bool:
        return self._healthy


def open_bench(config: Mapping[str, Any]) -> FakeBench:
    return FakeBench(Path(config["notes"]))


def cannot_open(config: Mapping[str, Any]) -> FakeBench:
    raise RuntimeError("no driver")
