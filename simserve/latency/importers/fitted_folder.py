"""A profile's folder written anew with fitted factors; its tables are copied as they are."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simserve.errors import InputError
from simserve.inputs.yaml_reader import read_yaml
from simserve.latency.importers.table_folder import HEAD, HOST, yaml_text


def write_fitted(
    base: Path, folder: Path, head: Mapping[str, Any], host: Mapping[str, Any]
) -> None:
    """Write the profile in ``base`` into ``folder``, with these keys of its head and its host.

    Raises:
        InputError: if ``folder`` exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(str(folder), None, "something else", "a new or an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(base.glob("*.csv")):
        shutil.copyfile(path, folder / path.name)
    if (base / HOST).is_file():
        text = yaml_text({**read_yaml(base / HOST), **host})
        (folder / HOST).write_text(text, encoding="utf-8")
    text = yaml_text({**read_yaml(base / HEAD), **head})
    (folder / HEAD).write_text(text, encoding="utf-8")
