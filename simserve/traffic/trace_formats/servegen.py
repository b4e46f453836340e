"""ServeGen's pools of clients: windows with a rate and a shape of gaps, and length histograms.

One JSON object a line: ``client``; ``windows``, a list of [start_s, rate_per_s, cv, pattern, p1,
p2] of 600 s each; ``length_pdfs``, which maps the start of a stretch of time to
{input_tokens: {tokens: probability}, output_tokens: {...}}. No requests are recorded: they are
drawn, client by client and window by window, from a stream of the client's own.

The pattern's first parameter is the shape of Gamma or Weibull gaps. Their mean is 1 / rate
rather than what the second parameter says, so that every window has the requests that its rate
promises; and the first gap of a window is the rest of one that began before it (an equilibrium
renewal process: Cox, Renewal Theory, 1962, section 2.2), without which bursty windows would
get far too many. Prompt and output lengths are drawn independently, as ServeGen does.
Source: https://github.com/alibaba/ServeGen (Xiang et al., 2025).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simserve.errors import InputError, one_line
from simserve.records.clock import PS_PER_S
from simserve.records.requests import IntArray
from simserve.traffic.limits import MOST_REQUESTS, MOST_TOKENS
from simserve.traffic.streams import random_stream
from simserve.traffic.trace_formats import json_rows
from simserve.traffic.trace_formats.columns import (
    EVERYTHING,
    Part,
    TraceFile,
    missing_column,
    no_rows,
    plain_requests,
    request_table,
    times_of,
)
from simserve.traffic.trace_formats.text_lines import numbered_lines

CLIENT, WINDOWS, LENGTHS = "client", "windows", "length_pdfs"
COLUMNS = (CLIENT, WINDOWS, LENGTHS)
WINDOW_S = 600.0
_INPUT, _OUTPUT = _SIZES = ("input_tokens", "output_tokens")
# Drawing stops where so many times the wanted requests are expected, and so many more.
_MORE, _MORE_AT_LEAST = 1.5, 100.0
_WINDOW_ALLOWED = "[start_s, rate_per_s, cv, Gamma or Weibull, shape, scale], numbers above 0"
_PDF_ALLOWED = "a mapping from whole tokens to probabilities of at least 0"

# Shapes below this make gamma functions overflow; the published ones are above 0.02.
_LOWEST_SHAPE, _HIGHEST_SHAPE = 0.006, 1e6
_LATEST_S = 1e9  # 30 years

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Window:
    start_s: float
    rate_per_s: float
    pattern: str
    shape: float


@dataclass(frozen=True, slots=True)
class _Pdf:
    tokens: IntArray
    shares: _Floats  # summed up


@dataclass(frozen=True, slots=True)
class _Client:
    name: str
    windows: list[_Window]
    lengths: dict[float, dict[str, _Pdf]]

    def requests(self) -> float:
        """Return how many requests the windows promise."""
        return sum(one.rate_per_s for one in self.windows) * WINDOW_S


def read_servegen(
    path: Path, part: Part = EVERYTHING, *, rate_per_s: float | None = None, seed: int = 0
) -> TraceFile:
    """Return requests drawn from a pool of clients.

    ``rate_per_s`` scales the rates of all clients so that the part's mean is that. Times count
    from the pool's second 0. Clients without lengths cannot be drawn from; they are named.

    Raises:
        InputError: naming the row and what is wrong in it, or if there are too many requests.
    """
    clients = [_client(path, row, line) for row, line in numbered_lines(path)]
    if not clients:
        raise no_rows(path)
    if len({one.name for one in clients}) < len(clients):
        raise InputError(str(path), CLIENT, "a client twice", "every client once")
    inside = [_only(one, part) for one in clients]
    drawn = [one for one in inside if one.lengths and one.windows]
    expected = sum(one.requests() for one in drawn)
    span_s = _span_s(drawn, part)
    if not expected:
        raise InputError(str(path), WINDOWS, "no request in the part", "a longer part")
    scale = 1.0 if rate_per_s is None else rate_per_s * span_s / expected
    if min(expected * scale, part.head or math.inf) > MOST_REQUESTS:
        got = f"about {expected * scale:.3g} requests"
        allowed = f"at most {MOST_REQUESTS}; head, from_s and to_s, or rate_per_s choose fewer"
        raise InputError(str(path), None, got, allowed)
    times_s, prompts, outputs = _first(path, drawn, part, scale, seed)
    if not len(times_s):
        raise InputError(str(path), WINDOWS, "no request in the part", "a longer part")
    requests = plain_requests(prompts, outputs)
    times = times_of(path, WINDOWS, times_s, PS_PER_S)
    first = Part(head=part.head, to_s=math.inf)  # of all that were drawn
    table = request_table(path, WINDOWS, times, requests, first)
    return TraceFile(
        requests=table, format="servegen", notes=_notes(inside), rescaled=rate_per_s is not None
    )


def _notes(clients: list[_Client]) -> tuple[str, ...]:
    """Return which clients have traffic in the part but cannot be drawn from."""
    left_out = [one for one in clients if not one.lengths and one.windows]
    if not left_out:
        return ()
    names = ", ".join(one_line(one.name) for one in left_out)
    share = sum(map(_Client.requests, left_out)) / sum(map(_Client.requests, clients))
    return (f"clients without length_pdfs left out: {names} ({share:.1%} of the requests)",)


def _only(client: _Client, part: Part) -> _Client:
    stop_s = math.inf if part.to_s is None else part.to_s
    windows = [
        one
        for one in client.windows
        if one.start_s < stop_s and one.start_s + WINDOW_S > part.from_s
    ]
    return _Client(client.name, windows, client.lengths)


def _span_s(clients: list[_Client], part: Part) -> float:
    starts = [one.start_s for client in clients for one in client.windows] or [0.0]
    return max(starts) + WINDOW_S - min(starts)


def _first(
    path: Path, clients: list[_Client], part: Part, scale: float, seed: int
) -> tuple[_Floats, IntArray, IntArray]:
    """Return times and lengths of the requests in the part, at least the first ``head`` of them.

    Of a long pool only as much time is drawn as holds these; they are the same as if all of it
    were, because that ends the last window of every client.
    """
    stop_s = math.inf if part.to_s is None else part.to_s
    edges_s, expected = _expected(clients, part.from_s)
    enough = math.inf if part.head is None else float(part.head)
    while True:
        # Counts of bursty clients vary: more time than is expected to do, and if need be again.
        enough = _MORE * enough + _MORE_AT_LEAST
        until_s = min(stop_s, float(np.interp(enough / scale, expected, edges_s, right=math.inf)))
        times_s, prompts, outputs = _draw(path, clients, scale, seed, until_s)
        kept = (times_s >= part.from_s) & (times_s < stop_s)
        if until_s == stop_s or kept.sum() >= (part.head or 0):
            return times_s[kept], prompts[kept], outputs[kept]


def _expected(clients: list[_Client], from_s: float) -> tuple[_Floats, _Floats]:
    """Return times, and how many requests are expected from ``from_s`` until each."""
    windows = [window for client in clients for window in client.windows]
    begin_s = np.array([max(one.start_s, from_s) for one in windows])
    end_s = np.array([one.start_s + WINDOW_S for one in windows])
    rates = np.array([one.rate_per_s for one in windows])
    at_s = np.concatenate([begin_s, end_s])
    order = np.argsort(at_s, kind="stable")
    rate = np.cumsum(np.concatenate([rates, -rates])[order])
    requests = np.cumsum(rate[:-1] * np.diff(at_s[order]))
    return at_s[order], np.concatenate([[0.0], np.maximum.accumulate(requests)])


def _draw(
    path: Path, clients: list[_Client], scale: float, seed: int, until_s: float
) -> tuple[_Floats, IntArray, IntArray]:
    times: list[_Floats] = [np.zeros(0)]
    lengths: dict[str, list[IntArray]] = {name: [np.zeros(0, np.int64)] for name in _SIZES}
    for client in clients:
        gaps = random_stream(seed, f"client {client.name} gaps")
        sizes = {which: random_stream(seed, f"client {client.name} {which}") for which in lengths}
        for window in client.windows:
            stop_s = min(WINDOW_S, until_s - window.start_s)
            if stop_s <= 0:
                break
            within_s = _window_times_s(window, window.rate_per_s * scale, stop_s, gaps)
            times.append(window.start_s + within_s)
            pdfs = _lengths_at(path, client, window.start_s)
            for which, rng in sizes.items():
                places = rng.random(len(within_s)) * pdfs[which].shares[-1]
                found = np.searchsorted(pdfs[which].shares, places, side="right")
                lengths[which].append(
                    pdfs[which].tokens[np.minimum(found, len(pdfs[which].tokens) - 1)]
                )
    return (
        np.concatenate(times),
        np.concatenate(lengths[_INPUT]),
        np.concatenate(lengths[_OUTPUT]),
    )


def _window_times_s(
    window: _Window, rate_per_s: float, stop_s: float, rng: np.random.Generator
) -> _Floats:
    """Return the times in a window: gaps of mean ``1 / rate``, the first one under way.

    Times from ``stop_s`` on are not drawn.
    """
    shape, weibull = window.shape, window.pattern == "Weibull"
    mean = math.gamma(1 + 1 / shape) if weibull else shape  # of a gap with scale 1
    # A gap that a given instant falls into is longer than others: its density has a factor x
    # more. For Weibull gaps E^(1/shape), E exponential, that makes E gamma of 1 + 1/shape.
    around = rng.standard_gamma(1 + 1 / shape if weibull else shape + 1)
    around = around ** (1 / shape) if weibull else around
    times = [np.array([rng.random() * around])]
    stop = stop_s * rate_per_s * mean
    last = float(times[0][0])
    while last < stop:
        count = int((stop - last) / mean) + 16  # a few more than are missing
        gaps = rng.weibull(shape, count) if weibull else rng.standard_gamma(shape, count)
        gaps[0] += last
        times.append(np.cumsum(gaps))
        last = float(times[-1][-1])
    sums = np.concatenate(times)
    return np.asarray(sums[sums < stop] / (rate_per_s * mean))


def _lengths_at(path: Path, client: _Client, start_s: float) -> dict[str, _Pdf]:
    starts = [at for at in client.lengths if at <= start_s]
    if not starts:
        which = f"client {client.name}: {LENGTHS}"
        raise InputError(str(path), which, f"nothing for {start_s:g} s", "an earlier stretch")
    return client.lengths[max(starts)]


def _client(path: Path, row: int, line: bytes) -> _Client:
    value = json_rows.as_object(path, row, line)
    for column in COLUMNS:
        if column not in value:
            raise missing_column(path, row, column, list(value))
    name, windows, pdfs = value[CLIENT], value[WINDOWS], value[LENGTHS] or {}
    if isinstance(name, bool) or not isinstance(name, int | str):
        raise InputError(str(path), f"row {row}: {CLIENT}", _shown(name), "a number or a name")
    if not isinstance(windows, list):
        raise InputError(str(path), f"row {row}: {WINDOWS}", _shown(windows), "a list")
    if not isinstance(pdfs, dict):
        raise InputError(str(path), f"row {row}: {LENGTHS}", _shown(pdfs), "a mapping")
    return _Client(
        str(name),
        sorted((_window(path, row, one) for one in windows), key=lambda one: one.start_s),
        {_start(path, row, at): _pdfs(path, row, at, one) for at, one in pdfs.items()},
    )


def _window(path: Path, row: int, value: Any) -> _Window:
    try:
        start_s, rate, _, pattern, shape, _ = value
        numbers = [start_s, rate, shape]
        good = pattern in ("Gamma", "Weibull") and all(map(_is_number, numbers))
    except (TypeError, ValueError):
        good = False
    if not good or start_s < 0 or rate <= 0 or not _LOWEST_SHAPE <= shape <= _HIGHEST_SHAPE:
        raise InputError(str(path), f"row {row}: {WINDOWS}", _shown(value), _WINDOW_ALLOWED)
    if rate * WINDOW_S > MOST_REQUESTS or start_s > _LATEST_S:
        raise InputError(str(path), f"row {row}: {WINDOWS}", _shown(value), _WINDOW_ALLOWED)
    return _Window(float(start_s), float(rate), pattern, float(shape))


def _start(path: Path, row: int, text: str) -> float:
    try:
        start_s = float(text)
    except ValueError:
        start_s = math.nan
    if not 0 <= start_s <= _LATEST_S:
        raise InputError(str(path), f"row {row}: {LENGTHS}", text, "a start in seconds")
    return start_s


def _pdfs(path: Path, row: int, at: str, value: Any) -> dict[str, _Pdf]:
    which = f"row {row}: {LENGTHS}.{at}"
    if not isinstance(value, dict):
        raise InputError(str(path), which, _shown(value), f"{_INPUT} and {_OUTPUT}")
    found = {}
    for name in (_INPUT, _OUTPUT):
        entries = value.get(name)
        if not isinstance(entries, dict) or not entries:
            raise InputError(str(path), f"{which}.{name}", _shown(entries), _PDF_ALLOWED)
        found[name] = _pdf(path, f"{which}.{name}", entries)
    return found


def _pdf(path: Path, which: str, entries: dict[str, Any]) -> _Pdf:
    """Return a histogram of lengths; the share of 0 tokens, which vLLM refuses, is left out."""
    tokens: list[int] = []
    shares: list[float] = []
    for text, share in entries.items():
        length = _whole(text)
        if length is None or not _is_number(share) or share < 0:
            raise InputError(str(path), which, f"{text}: {_shown(share)}", _PDF_ALLOWED)
        if length:
            tokens.append(length)
            shares.append(float(share))
    if not sum(shares) > 0:
        raise InputError(str(path), which, "no probability above 0 tokens", _PDF_ALLOWED)
    return _Pdf(np.array(tokens, dtype=np.int64), np.cumsum(shares))


def _whole(text: str) -> int | None:
    digits = text.removesuffix(".0")
    if not digits.isascii() or not digits.isdecimal() or len(digits) > len(str(MOST_TOKENS)):
        return None
    return int(digits) if int(digits) <= MOST_TOKENS else None


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (math.isfinite(value) if isinstance(value, float) else abs(value) < MOST_REQUESTS**2)
    )


def _shown(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
