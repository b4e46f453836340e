"""A profile with what only an engine can tell: its host time."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simserve.latency.importers.table_folder import HOST, yaml_text


def complete_profile(profile: Path, target: Path, host: Mapping[str, Any]) -> None:
    """Copy a profile to ``target``, with this content of ``host.yaml``."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(profile, target)
    (target / HOST).write_text(yaml_text(host), encoding="utf-8")
