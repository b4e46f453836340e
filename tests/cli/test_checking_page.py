"""The page on checking names the laws that there are."""

from __future__ import annotations

import re
from pathlib import Path

from simserve.results.folder_laws import ALL_LAWS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "checking.md"


def test_the_page_names_every_law_once() -> None:
    told = re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(told) == sorted(ALL_LAWS)
