"""Table health: which tables, and which points of them, the recorded runs lean on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from simserve.inputs.hardware_profile import GpuSpec
from simserve.latency.health import (
    PERCENT,
    TableHealth,
    Use,
    next_measurements,
    table_health,
    uses_of_run,
)
from simserve.latency.tables.table_model import TableModel
from simserve.planning.validation.findings import Listing
from simserve.records.run_record import RunRecord

_MOST_USED = 10


def trust_listings(
    name: str, model: TableModel, gpu: GpuSpec, record: RunRecord
) -> Iterator[Listing]:
    """Yield the health of a profile's tables, and what a run on them rests on."""
    health = table_health(model.profile, gpu)
    uses = uses_of_run(model, record.steps, health)
    yield _tables(f"{name}: rows left out one at a time", health)
    used = sorted(uses, key=lambda one: -one.share)[:_MOST_USED]
    yield _points(f"{name}: points used most", used)
    yield _points(f"{name}: the next measurements that would help", next_measurements(uses))


def _tables(title: str, health: Sequence[TableHealth]) -> Listing:
    columns = ("table", "rows", "left out", "median error %", "p90 %")
    return Listing(
        title,
        columns,
        tuple(
            (one.table, str(one.rows), str(one.asked), f"{one.p50_pct:.2f}", f"{one.p90_pct:.1f}")
            for one in health
        ),
    )


def _points(title: str, uses: Sequence[Use]) -> Listing:
    columns = ("operator", "point", "source", "share of time %", "doubt, % of time")
    return Listing(
        title,
        columns,
        tuple(
            (
                one.operator,
                one.point,
                one.source,
                f"{one.share * PERCENT:.1f}",
                f"{one.doubt_pct:.2f}",
            )
            for one in uses
        ),
    )
