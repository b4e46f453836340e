"""The page of an answer in JSON: of ``capacity``, ``cost``, ``explain`` or ``plan``.

Which it is shows in its keys. An answer holds numbers and the digest of its scenario, not the
scenario itself, so the page cannot give the file to run it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from simserve.errors import InputError
from simserve.report.page.capacity import capacity_page
from simserve.report.page.cost import cost_page
from simserve.report.page.explain import explain_page
from simserve.report.page.parts import Page
from simserve.report.page.plan import plan_page

Answer = Mapping[str, Any]

_PAGES: Mapping[tuple[str, ...], Callable[[Answer], Page]] = {
    ("frontier", "capacity", "knee"): capacity_page,
    ("apis", "now", "swings"): cost_page,
    ("bands", "counterfactuals", "sensitivity"): explain_page,
    ("winner", "plans", "front_price_ttft"): plan_page,
}
"""The page of an answer, by keys that only it has."""
_ALLOWED = "the JSON that 'simserve capacity', 'cost', 'explain' or 'plan' printed"


def answer_page(entry: Answer, source: Path) -> Page:
    """Return the page of an answer read from ``source``.

    Raises:
        InputError: if it is none.
        LookupError, TypeError, ValueError, AttributeError: if it is damaged.
    """
    for keys, page in _PAGES.items():
        if all(key in entry for key in keys):
            return page(entry)
    raise InputError(str(source), None, "JSON of another kind", _ALLOWED)
