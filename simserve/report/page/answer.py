"""The page of an answer in JSON: of ``capacity``, ``cost``, ``explain`` or ``plan``.

Which it is shows in its keys. An answer holds the resolved scenario and the command that was
asked, so the page ends with the numbers behind it and the way to ask again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from simserve.errors import InputError
from simserve.report.page.basis import numbers_section, scenario_file
from simserve.report.page.capacity import capacity_page
from simserve.report.page.cost import cost_page
from simserve.report.page.explain import explain_page
from simserve.report.page.markup import Child, element
from simserve.report.page.parts import Page, Section, Shown, code
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
            made = page(entry)
            return dataclasses.replace(made, sections=[*made.sections, *_ends(entry)])
    raise InputError(str(source), None, "JSON of another kind", _ALLOWED)


def _ends(entry: Answer) -> Iterator[Section]:
    """Yield what every answer ends with, as far as it is in ``entry``."""
    resolved, command = entry.get("resolved"), entry.get("again")
    if resolved is not None:
        yield numbers_section(resolved)
    if command is None:
        return
    if "winner" in entry:  # a plan looks for the scenario that it ends with
        body: list[Child | Shown] = [element("p", "What was asked:"), code(command)]
        if resolved is not None:
            body += [*scenario_file(resolved, "the winner"), code("simserve run scenario.yaml")]
        yield Section("Run it again", body)
    elif resolved is not None:
        body = [*scenario_file(resolved, "the answer's"), code(command)]
        yield Section("Run it again", body)
