"""A small run as a timing diagram on a page: a row per request, and a row per slot of the batch."""

from __future__ import annotations

import numpy as np

from simserve.errors import InputError
from simserve.report.charts.slots import (
    Bars,
    rows_by_request,
    rows_by_slot,
    timing_diagram,
    utilisation_frac,
)
from simserve.report.page.markup import Child, element, paragraphs
from simserve.report.page.parts import Page, Section, Shown, count, percent
from simserve.results.phases import Phase, request_phases
from simserve.results.result import Result

MOST_REQUESTS = 200
"""More rows than this are not a picture any more."""

_KINDS = (
    "The wait in the queue is thin and grey. Prefill is the time until the first token, decode "
    "from there to the last one. Preempted is the time from the last token before to the first "
    "one after, recomputation included; paused, steps that left a decoding request out. Rest the "
    "mouse on a bar for its numbers."
)


def gantt_page(result: Result) -> Page:
    """Return the page of a run.

    Raises:
        InputError: if it has more than ``MOST_REQUESTS`` requests.
    """
    requests = result.record.requests
    if len(requests) > MOST_REQUESTS:
        allowed = f"a run of at most {MOST_REQUESTS} requests (--timeline shows any number)"
        raise InputError("--gantt", None, f"{len(requests):,} requests", allowed)
    replicas = range(len(result.record.steps))
    facts = result.facts
    sections = [Section("How to read it", [paragraphs([_KINDS])])]
    sections += [_section(result, replica, several=len(replicas) > 1) for replica in replicas]
    return Page(
        title=facts.name,
        kind="Timing diagram of a simulated run",
        subtitle=f"{facts.model} on {facts.tp * facts.replicas} × {facts.gpu}, {facts.engine}, "
        f"{facts.scheduler}: {facts.traffic}",
        badges=[("plain", count(len(requests), "request"))],
        sections=sections,
    )


def lives_of(result: Result, replica: int) -> dict[str, list[Phase]]:
    """Return the phases of a replica's requests by their names, in order of arrival."""
    record = result.record
    chosen = np.flatnonzero(record.outcomes.replica == replica)
    return {
        record.requests.id_of(request): phases
        for request, phases in request_phases(record, chosen)
        if phases
    }


def _section(result: Result, replica: int, *, several: bool) -> Section:
    lives = lives_of(result, replica)
    slots = rows_by_slot(lives)
    used = utilisation_frac(slots)
    said = f"{count(len(slots), 'slot')} of the batch were used at the same time. "
    said += f"From the first step to the last they were computing {percent(used)} of the time."
    body: list[Child | Shown] = [element("p", said)] if slots else []
    for name, rows, title in (
        ("slots", slots, "A row per slot of the batch"),
        ("requests", rows_by_request(lives), "A row per request, in order of arrival"),
    ):
        if rows:
            body.append(_shown(f"{name}-{replica}", rows, title))
    return Section(f"Replica {replica}" if several else "The batch over time", body)


def _shown(name: str, rows: list[Bars], title: str) -> Shown:
    bars = sum(len(row.phases) for row in rows)
    return Shown(
        name=name,
        figure=timing_diagram(rows),
        title=title,
        alt=f"Timing diagram, {title.lower()}: {len(rows)} rows, {bars} bars.",
        caption="White between bars is time in which nobody was there.",
    )
