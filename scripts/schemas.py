"""Writes docs/schema: ``python -m scripts.schemas``, after a key of a YAML file has changed."""

from __future__ import annotations

import json
from pathlib import Path

from simserve.inputs.json_schema import file_schema, schema_names

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schema"


def schema_text(name: str) -> str:
    """Return the text of the file, which ``simserve schema NAME`` prints too."""
    return json.dumps(file_schema(name), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write every schema."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in schema_names():
        (FOLDER / f"{name}.json").write_text(schema_text(name), encoding="utf-8")
        print(FOLDER / f"{name}.json")


if __name__ == "__main__":
    main()
