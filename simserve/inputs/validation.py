"""Turns what pydantic has to say into the one line that simserve says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from simserve.errors import InputError, nearest_name

_MOST_KEYS = 10
ModelT = TypeVar("ModelT", bound=BaseModel)


class StrictModel(BaseModel):
    """A part of a scenario file: immutable, no unknown keys, no silent conversions.

    The ``description`` of a field says what is allowed there, with its unit.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class KeyProblem(ValueError):
    """What a model validator raises about one key, or about keys that contradict each other."""

    def __init__(self, which: str, got: object, allowed: str) -> None:
        self.which, self.got, self.allowed = which, got, allowed
        super().__init__(allowed)


class Origins:
    """Remembers where each dotted key was given, to name it in a complaint."""

    def __init__(self, default: str) -> None:
        self.default = default
        self._where: dict[str, str] = {}

    def note(self, path: str, where: str) -> None:
        """Record that ``path`` (and what is below it) comes from ``where``."""
        for below in [key for key in self._where if key.startswith(f"{path}.")]:
            del self._where[below]
        self._where[path] = where

    def where(self, path: str) -> str:
        """Return where ``path``, or else the nearest key around it, was given."""
        parts = path.split(".")
        for length in range(len(parts), 0, -1):
            found = self._where.get(".".join(parts[:length]))
            if found is not None:
                return found
        return self.default

    def given(self, path: str) -> str | None:
        """Return where exactly ``path`` was given, None if nowhere in particular."""
        return self._where.get(path)

    def given_below(self, path: str) -> list[str]:
        """Return where keys below ``path`` were given in particular."""
        return [where for key, where in self._where.items() if key.startswith(f"{path}.")]


def validate(model: type[ModelT], entry: object, origins: Origins, path: str) -> ModelT:
    """Return ``entry``, found under the dotted ``path``, as a ``model``.

    Raises:
        InputError: for the first thing that is wrong with it, unknown keys before others.
    """
    if not isinstance(entry, Mapping):
        got = "nothing" if entry is None else entry
        raise InputError(origins.where(path), path, got, f"a mapping with {_some_keys(model)}")
    try:
        return model.model_validate(dict(entry))
    except ValidationError as failure:
        errors = sorted(failure.errors(), key=lambda one: one["type"] != "extra_forbidden")
        raise _translate(errors[0], model, origins, path) from None


def _translate(
    error: ErrorDetails, model: type[BaseModel], origins: Origins, path: str
) -> InputError:
    keys = [str(part) for part in error["loc"]]
    problem = error.get("ctx", {}).get("error")
    if isinstance(problem, KeyProblem):
        which = ".".join([path, *keys, *filter(None, [problem.which])])
        return InputError(origins.where(which), which, problem.got, problem.allowed)
    which = ".".join([path, *keys])
    got: Any = "nothing" if error["type"] == "missing" else error["input"]
    if error["type"] == "extra_forbidden":
        return _unknown_key(keys, model, origins, which)
    if isinstance(problem, ValueError):
        allowed = str(problem)
    else:
        allowed = _description(model, keys) or error["msg"]
    return InputError(origins.where(which), which, "nothing" if got is None else got, allowed)


def _unknown_key(
    keys: list[str], model: type[BaseModel], origins: Origins, which: str
) -> InputError:
    inner = _model_at(model, keys[:-1]) or model
    known = sorted(inner.model_fields)
    hints: Mapping[str, str] = getattr(inner, "KEY_HINTS", {})
    key = keys[-1].replace("-", "_")
    near = key if key in known else nearest_name(key, known)
    allowed = f"{near}, the nearest of {len(known)} keys" if near else _some_keys(inner)
    allowed = hints.get(key, allowed)
    return InputError(origins.where(which), which, "an unknown key", allowed)


def _some_keys(model: type[BaseModel]) -> str:
    """Return the keys of a mapping; of many, the first."""
    keys = list(model.model_fields)
    if len(keys) <= _MOST_KEYS:
        return f"keys among {', '.join(keys)}"
    return f"keys among {', '.join(keys[:_MOST_KEYS])}, … ({len(keys)} in all)"


def _model_at(model: type[BaseModel], keys: list[str]) -> type[BaseModel] | None:
    """Return the model that stands under ``keys``, None if there is none."""
    for key in keys:
        if key.isdecimal():  # an item of a list, whose model was found with the list
            continue
        field = model.model_fields.get(key)
        inner = field and _item_model(field.annotation)
        if not inner:
            return None
        model = inner
    return model


def _item_model(annotation: Any) -> type[BaseModel] | None:
    """Return the model class anywhere in ``annotation``, lists of it included."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_item_model, get_args(annotation))), None)


def submodel(annotation: Any) -> type[BaseModel] | None:
    """Return the model class in ``annotation`` (itself, or in a union with None)."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def _description(model: type[BaseModel], keys: list[str]) -> str | None:
    inner = _model_at(model, keys[:-1]) if keys else None
    field = inner.model_fields.get(keys[-1]) if inner else None
    return field.description if field else None


def key_paths(model: type[BaseModel], path: str) -> list[str]:
    """Return the dotted paths of all keys of ``model``, sections included."""
    paths: list[str] = []
    for key, field in model.model_fields.items():
        paths.append(f"{path}.{key}")
        inner = submodel(field.annotation)
        if inner is not None:
            paths.extend(key_paths(inner, f"{path}.{key}"))
    return paths
