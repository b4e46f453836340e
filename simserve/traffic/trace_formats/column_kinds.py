"""What a column of a table may hold: read value by value, or all at once where that is safe.

``one`` reads a single value and says what is wrong with it. ``many`` reads a whole Arrow
column, a hundred times faster, and gives up (None) at the slightest doubt; then every value
goes through ``one``, which decides. So both always agree.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from simserve.records.clock import PS_PER_NS
from simserve.traffic.limits import MOST_TOKENS
from simserve.traffic.trace_formats.columns import TOKENS_ALLOWED

_INT64 = np.iinfo(np.int64)
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_NUMBER_ARROW = r"^[0-9]+(\.[0-9]+)?$"
_TIME_TEXT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2})"
    r"(?:\.([0-9]{1,12}))?(?:Z|\+00:00)?"
)
_TIME_ARROW = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|\+00:00)?$"
)
_PS_DIGITS = 12  # decimals of a second in a picosecond
_NS_PER_S = 1_000_000_000


class Kind(Protocol):
    """What a column may hold."""

    @property
    def allowed(self) -> str:
        """What ``one`` takes, in words."""
        ...

    def one(self, value: object) -> Any:
        """Return a value that the column holds; raise ValueError for another."""
        ...

    def many(self, column: Any) -> npt.NDArray[Any] | None:
        """Return an Arrow column as an array, or None if that is not certain."""
        ...

    def array(self, values: Sequence[Any]) -> npt.NDArray[Any]:
        """Return what ``one`` gave for every row as the array that ``many`` gives."""
        ...


@dataclass(frozen=True, slots=True)
class WholeNumbers:
    """Whole numbers within bounds."""

    lowest: int
    highest: int
    allowed: str

    def one(self, value: object) -> int:
        """Return a whole number, written as one: not ``1.0``, ``1_000`` or ``+5``."""
        if isinstance(value, str):
            digits = value.removeprefix("-")
            # isdecimal alone takes other scripts' digits; int() alone takes "1_000". The length
            # is looked at first because int() refuses very long numbers with its own error.
            if not digits.isascii() or not digits.isdecimal():
                raise ValueError
            if len(digits.lstrip("0")) > len(str(_INT64.max)):
                raise ValueError
            value = int(digits) * (-1 if value.startswith("-") else 1)
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ValueError
        if not self.lowest <= value <= self.highest:
            raise ValueError
        return int(value)

    def many(self, column: Any) -> npt.NDArray[Any] | None:
        """Return digits or integers as ``int64[rows]``."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if column.null_count:
            return None
        if pa.types.is_string(column.type):
            if not _all_match(column, r"^[0-9]{1,18}$"):
                return None
        elif not pa.types.is_integer(column.type):
            return None
        try:
            values = np.asarray(pc.cast(column, pa.int64()).to_numpy())
        except pa.ArrowException:
            return None
        if len(values) and (values.min() < self.lowest or values.max() > self.highest):
            return None
        return values

    def array(self, values: Sequence[Any]) -> npt.NDArray[Any]:
        """Return ``int64[rows]``."""
        return np.array(values, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Numbers:
    """Finite numbers of at least 0, as float64."""

    allowed: str

    def one(self, value: object) -> float:
        """Return a finite number of at least 0."""
        if isinstance(value, str):
            if not value.isascii() or not _NUMBER.fullmatch(value):
                raise ValueError
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        try:
            number = float(value)
        except OverflowError:
            raise ValueError from None
        if not math.isfinite(number) or number < 0:
            raise ValueError
        return number

    def many(self, column: Any) -> npt.NDArray[Any] | None:
        """Return plain decimals or numbers as ``float64[rows]``."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if column.null_count:
            return None
        if pa.types.is_string(column.type):
            if not _all_match(column, _NUMBER_ARROW):
                return None
        elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            return None
        try:
            values = np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy())
        except pa.ArrowException:
            return None
        if not np.isfinite(values).all() or (values < 0).any():
            return None
        return values

    def array(self, values: Sequence[Any]) -> npt.NDArray[Any]:
        """Return ``float64[rows]``."""
        return np.array(values, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class CalendarTimes:
    """Dates with a time of day and no time zone but UTC, as (whole seconds, ps): ``[rows, 2]``."""

    allowed: str = "a time like 2023-11-16 18:15:46.6805900"

    def one(self, value: object) -> tuple[int, int]:
        """Return seconds since 1970 and picoseconds after them."""
        if isinstance(value, dt.datetime):
            offset = value.utcoffset()
            if offset:
                raise ValueError
            nanoseconds = getattr(value, "nanosecond", 0)
            plain = value.replace(tzinfo=None).isoformat(timespec="microseconds")
            value = f"{plain}{nanoseconds:03}"
        found = _TIME_TEXT.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise ValueError
        seconds = np.datetime64(found[1], "s").astype(np.int64)  # refuses 30 February
        return int(seconds), int(found[2].ljust(_PS_DIGITS, "0")) if found[2] else 0

    def many(self, column: Any) -> npt.NDArray[Any] | None:
        """Return times of at most nine decimals."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if column.null_count:
            return None
        if pa.types.is_string(column.type):
            if not _all_match(column, _TIME_ARROW):
                return None
            column = pc.replace_substring_regex(column, r"(Z|\+00:00)$", "")
        elif not pa.types.is_timestamp(column.type) or column.type.tz not in (None, "UTC"):
            return None
        try:
            stamps = pc.cast(column, pa.timestamp("ns", getattr(column.type, "tz", None)))
            ns = np.asarray(pc.cast(stamps, pa.int64()).to_numpy())
        except pa.ArrowException:
            return None
        return np.stack((ns // _NS_PER_S, ns % _NS_PER_S * PS_PER_NS), axis=1)

    def array(self, values: Sequence[Any]) -> npt.NDArray[Any]:
        """Return ``int64[rows, 2]``."""
        return np.array(values, dtype=np.int64).reshape(-1, 2)


@dataclass(frozen=True, slots=True)
class Texts:
    """Any text."""

    allowed: str = "a text"

    def one(self, value: object) -> str:
        """Return a text; a number is taken as it is written."""
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError
        return str(value)

    def many(self, column: Any) -> npt.NDArray[Any] | None:
        """Return texts without blanks around them as ``object[rows]``."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if column.null_count or not pa.types.is_string(column.type):
            return None
        if pc.any(pc.not_equal(pc.utf8_trim_whitespace(column), column)).as_py():
            return None
        return self.array(column.to_pylist())

    def array(self, values: Sequence[Any]) -> npt.NDArray[Any]:
        """Return ``object[rows]``."""
        return np.array(values, dtype=object)


TOKENS = WholeNumbers(1, MOST_TOKENS, TOKENS_ALLOWED)
TOKENS_OR_NONE = WholeNumbers(0, MOST_TOKENS, f"a whole number of tokens, from 0 to {MOST_TOKENS}")
INTEGERS = WholeNumbers(int(_INT64.min), int(_INT64.max), "an integer")
SECONDS = Numbers("a time in seconds, 0 or later")
MILLISECONDS = Numbers("a time in milliseconds, 0 or later")
CALENDAR = CalendarTimes()
TEXT = Texts()


def _all_match(column: Any, pattern: str) -> bool:
    import pyarrow.compute as pc

    return bool(pc.all(pc.match_substring_regex(column, pattern)).as_py())
