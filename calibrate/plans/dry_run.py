"""A plan as text: points and seconds by block, and when each model has all that it needs."""

from __future__ import annotations

from itertools import accumulate

from calibrate.plans.plan import BLOCKS, Plan

_NAME, _COUNT, _SECONDS = 14, 9, 10
COLUMNS = 80


def dry_run_text(plan: Plan) -> str:
    """Return what a run of ``plan`` would measure, at most 80 columns wide."""
    served_by = {name for point in plan.points for name in point.models}
    models = [name for name in plan.models if name in served_by]
    numbers = {name: number for number, name in enumerate(models, start=1)}
    lines = [
        f"{plan.name}: {len(plan.points):,} points, {plan.seconds():.0f} s on {plan.device}"
        f"{f' ({plan.gpu})' if plan.gpu else ''}",
        "",
        f"{'block':<{_NAME}}{'points':>{_COUNT}}{'seconds':>{_SECONDS}}  for models",
    ]
    for block in BLOCKS:
        own = [point for point in plan.points if point.block == block]
        if own:
            served = {numbers[name] for point in own for name in point.models if name in numbers}
            told = " ".join(map(str, sorted(served))) or "all"
            seconds = plan.seconds(own)
            lines.append(f"{block:<{_NAME}}{len(own):>{_COUNT},}{seconds:>{_SECONDS}.1f}  {told}")
    again_s = plan.protocol.repeat_frac * plan.seconds()
    lines += [
        f"{'again':<{_NAME}}{'':>{_COUNT}}{again_s:>{_SECONDS}.1f}  "
        f"{plan.protocol.repeat_frac:.0%} of the points, for repeatability",
        "",
        f"{'model':<20}{'points':>{_COUNT}}  complete after",
    ]
    ends = list(accumulate(plan.rates.point_s(point, plan.protocol) for point in plan.points))
    for name in models:
        own_ends = [
            end for point, end in zip(plan.points, ends, strict=True) if name in point.models
        ]
        lines.append(f"{numbers[name]} {name:<18}{len(own_ends):>{_COUNT},}  {own_ends[-1]:.0f} s")
    lines += [
        "",
        f"Seconds are assumed: {plan.rates.source}",
        f"and {plan.rates.setup_s * 1e3:g} ms to set up a point.",
    ]
    if plan.absent:
        lines.append(f"Not in the plan: {', '.join(plan.absent)}.")
    return "\n".join(lines)
