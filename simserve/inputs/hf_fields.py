"""The fields of one ``config.json``: read once each, by any of their names, or complained of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from simserve.errors import InputError, nearest_name

# Above this a count is a typing error, and arithmetic on it a waste.
_LARGEST = 1 << 40
# Kinds of layer that simserve has no bytes for: one of these, neither null nor 0, is refused.
NOT_MODELLED = (
    "num_kv_shared_layers",
    "hidden_size_per_layer_input",
    "use_double_wide_mlp",
    "add_cross_attention",
    "cross_attention_layers",
)


class Fields:
    """A mapping that remembers which of its keys were read; ``prefix`` is for messages."""

    def __init__(self, values: Mapping[str, Any], where: str, prefix: str = "") -> None:
        self.values, self.where, self.prefix = values, where, prefix
        self._read: set[str] = set()

    def refuse(self, key: str, got: object, allowed: str) -> InputError:
        """Return the error for the value of ``key``; a text that looks like a number is quoted."""
        if isinstance(got, str) and got.strip().isdecimal():
            got = f"the text {got!r}"
        return InputError(self.where, f"{self.prefix}{key}", got, allowed)

    def get(self, *names: str) -> Any:
        """Return the value of the first of ``names`` that is there and not null.

        Raises:
            InputError: if two of them are there with different values.
        """
        self._read.update(names)
        there = [name for name in names if self.values.get(name) is not None]
        for name in there[1:]:
            if self.values[name] != self.values[there[0]]:
                allowed = f"the same as {there[0]} ({self.values[there[0]]!r})"
                raise self.refuse(name, self.values[name], allowed)
        return self.values[there[0]] if there else None

    def optional_count(self, *names: str, most: int = _LARGEST) -> int | None:
        """Return an integer from 0 to ``most``, None if there is none."""
        return None if self.get(*names) is None else self._whole(names, 0, most)

    def count(self, *names: str, most: int = _LARGEST) -> int:
        """Return an integer from 1 to ``most``."""
        return self._whole(names, 1, most)

    def _whole(self, names: tuple[str, ...], least: int, most: int) -> int:
        value = self.get(*names)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            got = "nothing" if value is None else value
            upper = f" from {least} to {most}" if most != _LARGEST else f" of at least {least}"
            raise self.refuse(self._first(names), got, f"an integer{upper}")
        return value

    def flag(self, name: str, default: bool | None) -> Any:
        """Return true or false, ``default`` if there is nothing."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(name, value, "true or false")
        return value

    def text(self, *names: str) -> str | None:
        """Return a text, None if there is none."""
        value = self.get(*names)
        if value is not None and not isinstance(value, str):
            raise self.refuse(self._first(names), value, "a text")
        return value

    def texts(self, name: str) -> list[str]:
        """Return a list of texts, empty if there is none."""
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.refuse(name, value, "a list of texts")
        return value

    def numbers(self, name: str) -> list[int]:
        """Return a list of integers, empty if there is none."""
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(type(one) is int for one in value):
            raise self.refuse(name, value, "a list of layer numbers")
        return value

    def refuse_unread(self, ignored: Iterable[str], endings: tuple[str, ...]) -> None:
        """Raise InputError for the first field that nothing has read and that may matter."""
        known = frozenset(ignored)
        for key, value in self.values.items():
            if key in NOT_MODELLED and not value:
                continue
            if key in self._read or key in known or key.endswith(endings):
                continue
            near = nearest_name(key, sorted(self._read))
            hint = f"; did you mean {near}?" if near and near not in self.values else ""
            allowed = "a field whose effect on bytes and work simserve knows" + hint
            raise self.refuse(key, value, allowed)

    def _first(self, names: tuple[str, ...]) -> str:
        there = [name for name in names if self.values.get(name) is not None]
        return there[0] if there else names[0]
