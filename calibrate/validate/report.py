"""The outcome of the loop for people: a Markdown page, and the same in 80 columns of text.

An error never stands without the load it was found at, nor a simulation without the repeat of
the real run: what a real engine does not repeat no simulator can predict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from textwrap import fill

from calibrate.validate.errors_of import LATENCIES, STATISTICS, LatencyErrors
from calibrate.validate.outcome import Compared, Validation

_WIDTH, _PAGE_WIDTH = 80, 100
_US_PER_S, _MS_PER_S = 1e6, 1e3

_FITTED = "Fitted to a burst and a replay at rising load, which are not among the replays above."
_HOST_OF_GPU = f"{_FITTED} Host time is what a step takes beside the device's."
_HOST_OF_CPU = (
    f"{_FITTED} Host and device are one thread here, and a small kernel takes longer between "
    "others than again and again by itself: host time is all that steps take beyond the tables. "
    "So the device's column shows the tables alone, the step's column what is simulated."
)

Row = Sequence[str]


def markdown(found: Validation, title: str, command: str) -> str:
    """Return the page; ``command`` is what makes it again."""
    parts = [
        f"# {title}",
        f"Written by `{command}`. Errors are (simulated − real) / real. A *repeat* is the same "
        "replay for real once more: the noise floor.",
        "## What ran",
        _markdown_table(("", ""), _facts(found)),
        "## Result",
        *_verdict(found),
        *_runs(found, _markdown_table),
        "## Replays",
        "Load is the share of the capacity; busy the share of time inside a step; drift is that "
        "of a decode step, timed before and after each replay, since the calibration replay.",
        _markdown_table(_REPLAY_HEAD, _replay_rows(found)),
        "## Structure",
        "Fed the recorded step times, the simulator must reproduce every step of the engine: "
        "start, end, batch, tokens, admissions, preemptions, finishes, queue and free blocks.",
        _markdown_table(("replay", "steps", "preemptions", "differences"), _structure(found)),
        "## Steps",
        "Device: the kernels of a step, from the profile's tables. Step: host time too. The "
        "total is signed, p50 and p90 are of the absolute error of a step.",
        _markdown_table(_STEP_HEAD, _step_rows(found)),
        "## Requests",
        "Signed errors of the mean and of percentiles; *each* is the median absolute error of "
        "single requests; real is the mean in ms, *sim* the simulator.",
        _markdown_table(_LATENCY_HEAD, _latency_rows(found)),
        "## Host terms",
        _HOST_OF_CPU if found.plan.beyond_tables else _HOST_OF_GPU,
        _markdown_table(("term", "value"), _host_rows(found)),
        *_anchors(found, _markdown_table),
        *(f"* {warning}" for warning in found.profile_warnings),
    ]
    return "\n\n".join(_folded(part, _PAGE_WIDTH) for part in parts) + "\n"


def text(found: Validation) -> str:
    """Return the outcome in 80 columns."""
    parts = [
        _text_table(("", ""), _facts(found)),
        *_verdict(found),
        *_runs(found, _text_table),
        _text_table(("replay", "steps", "preempt", "differences"), _structure(found)),
        _text_table(_REPLAY_HEAD, _replay_rows(found)),
        "Steps: errors by replay and regime",
        _text_table(_STEP_HEAD, _step_rows(found)),
        "Requests: signed errors of simulation and repeat; real is the mean in ms",
        _text_table(_LATENCY_HEAD, _latency_rows(found)),
        "Host terms",
        _text_table(("term", "value"), _host_rows(found)),
        *_anchors(found, _text_table),
        *found.profile_warnings,
    ]
    return "\n\n".join(_folded(part, _WIDTH) for part in parts) + "\n"


def _folded(part: str, width: int) -> str:
    """Return a paragraph in lines of some width; a table as it is."""
    return part if "\n" in part else fill(part, width, break_long_words=False)


def _facts(found: Validation) -> list[Row]:
    plan, limits = found.plan, found.plan.limits
    setup = plan.setup
    mode = "ahead, while the one before runs" if limits.async_scheduling else "in turn"
    sizes = ", ".join(map(str, _shortened(setup.graph_sizes)))
    return [
        ("plan", f"{plan.name}, attempt {found.attempt} of {plan.attempts}"),
        ("machine", f"{found.machine} ({found.date})"),
        ("model", f"{setup.model.name}, {str(setup.dtype).removeprefix('torch.')}"),
        ("kernels", f"{setup.attention}, {setup.gemm}, {setup.ops} ({setup.device})"),
        ("profile", found.profile_name),
        ("steps", f"planned {mode}"),
        ("decodes", f"padded to {sizes} sequences"),
        ("limits", f"{limits.max_num_seqs} sequences, {limits.max_num_batched_tokens} tokens"),
        ("blocks", f"{limits.usable_blocks:,} of {limits.block_size} tokens"),
        ("capacity", f"{found.capacity_per_s:.3g} requests/s ({plan.shape.name})"),
        ("time", f"{found.seconds:.0f} s"),
    ]


def _shortened(sizes: tuple[int, ...]) -> tuple[object, ...]:
    return (*sizes[:5], "…", sizes[-1]) if len(sizes) > 6 else sizes


def _verdict(found: Validation) -> list[str]:
    plan = found.plan
    asked = ", ".join(f"{one.layer} {one.statistic} {one.most:.0%}" for one in plan.strict)
    which = " and ".join(plan.strict_on) or f"replays up to {plan.strict_load:.0%} of capacity"
    drift = f"; and a replay's own drift, up to {plan.most_drift:.0%}" if plan.most_drift else ""
    lines = [f"Tolerances, for {which}: {asked}{drift}."]
    if found.missed:
        lines += [f"Not met: {one}." for one in found.missed]
        if found.restless:
            lines.append(f"This machine cannot tell: {found.restless}.")
    else:
        drifted = found.as_attempt(1).by_drift
        only = f", {drifted} of them only with the allowance for drift" if drifted else ""
        lines.append(f"All met{only}, and the structure is the same in every replay.")
    if found.left_out:
        why = "after that" if found.broken else "for lack of time"
        lines.append(f"Left out {why}: {', '.join(found.left_out)}.")
    return lines


def _runs(found: Validation, table: Callable[[Row, Iterable[Row]], str]) -> list[str]:
    """Return every run and attempt that was made, whatever came of it."""
    runs, attempts = len({one.run for one in found.history}), found.plan.attempts
    if not runs:
        return []
    told = f"{runs} runs were made in a row; shown is the first." if runs > 1 else "One run."
    if attempts > 1:
        told += (
            f" A run that misses a tolerance calibrates and replays anew, up to {attempts} times."
        )
    errors = list(found.history[0].largest)
    rows = [
        (
            *(str(one.run), str(one.attempt), f"{one.seconds:.0f}"),
            *map(_plain, one.largest.values()),
            *(str(len(one.missed)), str(one.by_drift)),
        )
        for one in found.history
    ]
    return [
        f"{told} Errors are the largest of the replays that are judged, whatever their sign. The "
        "last columns count what was missed, and what only the allowance for drift let pass.",
        table(("run", "try", "s", *errors, "missed", "drift"), rows),
        *(
            f"Not met in run {one.run}, attempt {one.attempt}: {missed}."
            for one in found.history
            if (one.run, one.attempt) != (1, found.attempt)
            for missed in one.missed
        ),
    ]


def _structure(found: Validation) -> list[Row]:
    return [
        (
            one.spec.name,
            f"{one.identity.steps:,}",
            f"{one.identity.preemptions:,}",
            f"{len(one.identity.differences)}" if one.identity.differences else "none",
        )
        for one in found.compared
    ]


_STEP_HEAD = ("replay", "steps of", "n", "device", "p50", "p90", "step", "p50", "p90")


def _step_rows(found: Validation) -> list[Row]:
    rows: list[Row] = []
    for one in found.compared:
        device, step = one.steps["device"], one.steps["step"]
        for regime, errors in device.items():
            wall = step[regime]
            rows.append(
                (
                    one.spec.name if regime == "all" else "",
                    regime,
                    f"{errors.steps:,}",
                    _signed(errors.total),
                    _plain(errors.p50),
                    _plain(errors.p90),
                    _signed(wall.total),
                    _plain(wall.p50),
                    _plain(wall.p90),
                )
            )
    return rows


_LATENCY_HEAD = ("replay", "load", "of", "real", "", *STATISTICS, "each")


def _latency_rows(found: Validation) -> list[Row]:
    rows: list[Row] = []
    for one in found.compared:
        for latency in LATENCIES:
            named = latency == LATENCIES[0]
            head = (one.spec.name, f"{one.spec.load:.0%}") if named else ("", "")
            mean_ms = one.latencies[latency].real_s["mean"] * _MS_PER_S
            simulated = _errors(one.latencies[latency])
            rows.append((*head, latency, f"{mean_ms:.4g}", "sim", *simulated))
            if one.repeat is not None:
                rows.append(("", "", "", "", "repeat", *_errors(one.repeat[latency])))
    return rows


_REPLAY_HEAD = ("replay", "load", "req/s", "requests", "s", "batch", "busy", "blocks", "drift")


def _replay_rows(found: Validation) -> list[Row]:
    return [
        (
            one.spec.name,
            f"{one.spec.load:.0%}",
            f"{one.rate_per_s:.3g}",
            f"{one.requests:,}",
            f"{one.seconds:.1f}",
            f"{one.use.batch_mean_seqs or 0:.1f}",
            f"{one.use.busy_frac or 0:.0%}",
            f"{one.use.kv_peak_frac or 0:.0%} of {one.usable_blocks:,}",
            _signed(one.drift),
        )
        for one in found.compared
    ]


def _errors(errors: LatencyErrors) -> Row:
    return (*(_signed(errors.signed[name]) for name in STATISTICS), _plain(errors.request_p50))


def _host_rows(found: Validation) -> list[Row]:
    host = found.host
    rows = [
        (name, f"{value:g}" if name == "kernels_per_layer" else f"{value * _US_PER_S:.3f} us")
        for name, value in host.terms().items()
    ]
    rows.append(("left over, p50", f"{host.residual_p50 * _US_PER_S:.1f} us"))
    rows.append(("left over, p90", f"{host.residual_p90 * _US_PER_S:.1f} us"))
    return [*rows, ("steps fitted to", f"{host.steps:,}")]


def _anchors(found: Validation, table: object) -> list[str]:
    if not found.anchors or not callable(table):
        return []
    rows = [
        (regime, f"{factor:.3f}", _plain(p50), _plain(p90))
        for regime, (factor, p50, p90) in found.anchors.items()
    ]
    made: str = table(("regime", "whole step / sum of kernels", "left p50", "left p90"), rows)
    return [made]


def _signed(value: float) -> str:
    return f"{value:+.{_decimals(value)}%}"


def _plain(value: float) -> str:
    return f"{value:.{_decimals(value)}%}"


def _decimals(value: float) -> int:
    """Return how many: none from 100 % on, where they say nothing and cost columns."""
    return int(abs(value) < 1)


def _markdown_table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text_table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, *rows] if any(head) else [*rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def as_mapping(found: Validation) -> Mapping[str, object]:
    """Return the numbers as JSON-able objects."""
    return {
        "plan": found.plan.name,
        "machine": found.machine,
        "date": found.date,
        "attempt": found.attempt,
        "history": [asdict(one) for one in found.history],
        "profile": found.profile_name,
        "capacity_per_s": found.capacity_per_s,
        "host_us": {k: v * _US_PER_S for k, v in found.host.terms().items()},
        "missed": list(found.missed),
        "left_out": list(found.left_out),
        "seconds": round(found.seconds, 1),
        "replays": [_replay(one) for one in found.compared],
    }


def _replay(one: Compared) -> dict[str, object]:
    def errors(of: Mapping[str, LatencyErrors]) -> dict[str, object]:
        return {
            name: {
                "real_s": error.real_s,
                "signed": error.signed,
                "request_p50": error.request_p50,
                "request_p90": error.request_p90,
            }
            for name, error in of.items()
        }

    return {
        "name": one.spec.name,
        "load": one.spec.load,
        "rate_per_s": one.rate_per_s,
        "requests": one.requests,
        "usable_blocks": one.usable_blocks,
        "busy_frac": one.use.busy_frac,
        "batch_mean_seqs": one.use.batch_mean_seqs,
        "preemptions": one.use.preemptions,
        "drift": one.drift,
        "differences": list(one.identity.differences),
        "steps": {
            layer: {
                regime: {"steps": e.steps, "total": e.total, "p50": e.p50, "p90": e.p90}
                for regime, e in of.items()
            }
            for layer, of in one.steps.items()
        },
        "latencies": errors(one.latencies),
        "repeat": None if one.repeat is None else errors(one.repeat),
    }
