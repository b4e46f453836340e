"""One input of the fuzzer by its number: made, loaded, and judged."""

from __future__ import annotations

import random
import resource
import signal
import traceback
import types
from pathlib import Path
from typing import NamedTuple

from simserve.errors import SimserveError
from tests.fuzz.loaders import load
from tests.fuzz.mutate import damaged
from tests.fuzz.seeds import Seed, seeds

LONGEST_MESSAGE = 400
LONGEST_S = 5.0
MOST_BYTES = 10**9
LOADED, REFUSED = "loaded", "refused"


class Outcome(NamedTuple):
    """What became of an input; ``finding`` is None if all is well."""

    kind: str
    word: str
    finding: str | None = None
    place: str = ""  # where it was raised: findings of one place are one bug


class HangError(BaseException):
    """The time is over; no ``except Exception`` stops this."""


def made(master: int, kind: str, number: int) -> tuple[Seed, bytes, random.Random]:
    """Return the input ``number`` of a kind: its good file, and the damaged content."""
    rng = random.Random(f"{master} {kind} {number}")
    pool = seeds(kind)
    seed = rng.choice(pool)
    content = damaged(seed.content, rng, [one.content for one in pool])
    return seed, content, rng


def tried(master: int, kind: str, number: int, folder: Path) -> Outcome:
    """Load an input and return what became of it."""
    seed, content, rng = made(master, kind, number)
    peak_before = peak_bytes()
    before = signal.signal(signal.SIGALRM, _hang)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    try:
        load(seed, content, folder, rng)
        outcome = Outcome(kind, LOADED)
    except SimserveError as error:
        outcome = _judged(kind, error)
    except HangError as error:
        outcome = _finding(kind, "hang", error)
    except Exception as error:  # noqa: BLE001 (any other exception is what is looked for)
        outcome = _finding(kind, "exception", error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if peak_bytes() > max(MOST_BYTES, peak_before):
        return Outcome(kind, "memory", f"peak of {peak_bytes():,} bytes", f"memory {seed.role}")
    return outcome


def peak_bytes() -> int:
    """Return the most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _hang(_signal: int, _frame: types.FrameType | None) -> None:
    raise HangError(f"more than {LONGEST_S:g} s")


def _judged(kind: str, error: SimserveError) -> Outcome:
    message = str(error)
    if len(message) > LONGEST_MESSAGE:
        return _finding(kind, "long message", error)
    if not message.isprintable() or len(message.splitlines()) != 1:
        return _finding(kind, "unprintable message", error)
    return Outcome(kind, REFUSED)


def _finding(kind: str, word: str, error: BaseException) -> Outcome:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/simserve/" in frame.filename] or list(frames)
    place = f"{ours[-1].filename.rpartition('/')[2]}:{ours[-1].lineno}" if ours else "?"
    text = f"{type(error).__name__}: {error}"
    return Outcome(kind, word, text[:2000], f"{word} {type(error).__name__} {place}")
