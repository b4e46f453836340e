"""Waterfalls on a page: of a run from its log, or as ``simserve explain --json`` wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simserve.errors import InputError
from simserve.planning.changed_deployment import scenario_of_resolved
from simserve.planning.explanation import waterfalls_of
from simserve.report.charts import style
from simserve.report.charts.bars import Look, Stack, stacked_bars
from simserve.report.intervals import SHORT_OF
from simserve.report.page.markup import Child, element, table
from simserve.report.page.parts import Section, Shown, ms
from simserve.report.plain_words import PART_WORDS
from simserve.results.result import Result
from simserve.results.samples import MS_PER_S
from simserve.results.waterfall import COMPONENTS
from simserve.results.waterfall_bands import bands

_PERCENTILE = 99.0
_NAMES = {"all": "all requests", "p49-p51": "the median", "p95-p100": "the slowest 5 %"}
TITLE = "Where the time goes"
LOOKS: Mapping[str, Look] = {
    "slot_queue": (style.MUTED, 0.85),
    "kv_queue": (style.MUTED, 0.5),
    "own_prefill": (style.ACCENT, 1.0),
    "others_prefill": (style.SERIES[1], 0.9),
    "own_decode": (style.ACCENT, 0.6),
    "decode_interference": (style.SERIES[1], 0.5),
    "preemption": (style.BAD, 0.75),
    "host": (style.MUTED, 0.25),
}
"""Blue is the request's own work, amber that of others, grey is waiting, red is work lost."""


def waterfall_section(result: Result) -> Section:
    """Return the waterfalls of TTFT and TPOT; the steps are priced again to divide them."""
    try:
        scenario = scenario_of_resolved(result.facts.resolved)
        found = waterfalls_of(result, scenario)
    except InputError as error:
        said = f"This run cannot be divided into its parts here: {error}."
        return Section(TITLE, [element("p", said, class_="note")])
    body: list[Child | Shown] = []
    for metric in ("ttft", "tpot"):
        parts = {
            _NAMES.get(one.name, one.name): {
                name: value * MS_PER_S for name, value in one.parts_s.items()
            }
            for one in bands(found, metric, _PERCENTILE)
        }
        if parts:
            body += waterfall_parts(metric, parts)
    return Section(TITLE, body)


def waterfall_parts(
    metric: str, parts_ms: Mapping[str, Mapping[str, float]]
) -> Sequence[Child | Shown]:
    """Return figure and table of one latency; ``parts_ms`` are by group of requests, by part."""
    short = SHORT_OF[metric]
    per = ", per token after the first" if metric == "tpot" else ""
    used = [part for part in COMPONENTS if any(one[part] for one in parts_ms.values())]
    stacks = [
        Stack(f"{name}, {ms(sum(one.values()))} ms", {PART_WORDS[part]: one[part] for part in used})
        for name, one in parts_ms.items()
    ]
    rows = [[PART_WORDS[part], *(ms(one[part]) for one in parts_ms.values())] for part in used]
    rows.append([short, *(ms(sum(one.values())) for one in parts_ms.values())])
    said = "; ".join(
        f"{name}: " + ", ".join(f"{PART_WORDS[part]} {ms(one[part])} ms" for part in used)
        for name, one in parts_ms.items()
    )
    figure = Shown(
        name=f"waterfall-{metric}",
        figure=stacked_bars(
            stacks, {PART_WORDS[part]: LOOKS[part] for part in COMPONENTS}, f"ms{per}"
        ),
        title=f"Parts of the {short}{per}",
        alt=f"Stacked bars of the parts of the {short}. {said}.",
        caption=(
            "Means over groups of requests; the parts sum to the latency exactly. Blue is the "
            "request's own work, amber that of others, grey is waiting and the host, red is lost."
        ),
    )
    return [figure, table(["ms", *parts_ms], rows, f"{short}{per}: the numbers")]
