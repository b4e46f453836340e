"""Write the table of vLLM's serving flags from a wheel's sources, without importing vLLM.

The wheel is only parsed (``ast``): names, aliases, kind of value and default are facts that
stand in ``engine/arg_utils.py``, ``entrypoints/common/cli_args.py`` and ``config/*.py``. What a
flag means to simserve is a judgement and stands in a file of its own, ``*-flag-classes.yaml``.

    pip download --no-deps vllm==0.33.0 -d /tmp/vllm-wheel
    python scripts/vllm_flags.py /tmp/vllm-wheel/vllm-*.whl --date 2026-11-20
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ENGINES = Path(__file__).resolve().parent.parent / "simserve/inputs/catalogue/engines"
ENGINE_SOURCE = "vllm/engine/arg_utils.py"
SERVER_SOURCES = ("vllm/entrypoints/common/cli_args.py",)
CONFIG_SOURCES = re.compile(r"vllm/config/\w+\.py|vllm/entrypoints/launchers/utils/constants\.py")
PARSERS = ("make_arg_parser", "add_cli_args")
# FrontendArgs registers every field of itself and its base as a flag.
FRONTEND_CLASSES = ("BaseFrontendArgs", "FrontendArgs")
COMPUTED = "(computed at start-up)"
COLUMNS = ("name", "aliases", "kind", "choices", "optional", "default", "from")


class Sources:
    """The classes, aliases and constants of all parsed files, by name."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.trees = {name: ast.parse(text) for name, text in texts.items()}
        self.classes: dict[str, ast.ClassDef] = {}
        self.names: dict[str, ast.expr] = {}
        for tree in self.trees.values():
            for node in tree.body:
                if isinstance(node, ast.ClassDef):
                    self.classes.setdefault(node.name, node)
                elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    self.names.setdefault(node.targets[0].id, node.value)
                elif (
                    isinstance(node, ast.AnnAssign)
                    and isinstance(node.target, ast.Name)
                    and node.value is not None
                ):
                    self.names.setdefault(node.target.id, node.value)

    def fields(self, class_name: str) -> dict[str, ast.AnnAssign]:
        """Return the annotated fields of a class, those of its bases first."""
        found: dict[str, ast.AnnAssign] = {}
        node = self.classes[class_name]
        for base in node.bases:
            if isinstance(base, ast.Name) and base.id in self.classes:
                found |= self.fields(base.id)
        for one in node.body:
            if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
                found[one.target.id] = one
        return found

    def is_enum(self, name: str) -> bool:
        """Return whether the class ``name`` is an enumeration."""
        node = self.classes.get(name)
        return node is not None and any("Enum" in ast.unparse(base) for base in node.bases)

    def is_mapping(self, name: str) -> bool:
        """Return whether the class ``name`` is a kind of dict."""
        node = self.classes.get(name)
        return node is not None and any("dict" in ast.unparse(base) for base in node.bases)

    def hints(self, annotation: ast.expr) -> list[ast.expr]:
        """Return the alternatives of a type, aliases followed."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            return self.hints(ast.parse(annotation.value, mode="eval").body)
        if isinstance(annotation, ast.BinOp):
            return self.hints(annotation.left) + self.hints(annotation.right)
        if isinstance(annotation, ast.Name) and annotation.id in self.names:
            return self.hints(self.names[annotation.id])
        if isinstance(annotation, ast.Subscript):
            outer = ast.unparse(annotation.value)
            inside = annotation.slice
            parts = inside.elts if isinstance(inside, ast.Tuple) else [inside]
            if outer == "Annotated":
                return self.hints(parts[0])
            if outer in ("Union", "Optional"):
                return [hint for part in parts for hint in self.hints(part)]
        return [annotation]

    def choices(self, literal: ast.expr) -> list[Any]:
        """Return the values of a Literal, those of nested aliases included."""
        if isinstance(literal, ast.Name):
            return self.choices(self.names[literal.id])
        if isinstance(literal, ast.Constant):
            return [literal.value]
        if isinstance(literal, ast.Subscript):
            inside = literal.slice
            parts = inside.elts if isinstance(inside, ast.Tuple) else [inside]
            return [value for part in parts for value in self.choices(part)]
        raise ValueError(f"no choices in {ast.unparse(literal)}")

    def default(self, value: ast.expr | None) -> Any:
        """Return a field's default as a JSON value, ``COMPUTED`` where that cannot be read."""
        if value is None:
            return None
        try:
            return _plain(ast.literal_eval(value))
        except ValueError:
            pass
        if isinstance(value, ast.Name):
            return self.default(self.names[value.id]) if value.id in self.names else COMPUTED
        if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
            return self._attribute(value.value.id, value.attr)
        if isinstance(value, ast.Call):
            return self._called(value)
        return COMPUTED

    def _attribute(self, owner: str, name: str) -> Any:
        if owner not in self.classes:
            return COMPUTED
        for node in self.classes[owner].body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                found = self.default(node.value)
                return found if found != COMPUTED else name
        fields = self.fields(owner)
        return self.default(fields[name].value) if name in fields else COMPUTED

    def _called(self, call: ast.Call) -> Any:
        words = {one.arg: one.value for one in call.keywords}
        if "default" in words:
            return self.default(words["default"])
        if "default_factory" not in words:
            return COMPUTED
        factory = words["default_factory"]
        if isinstance(factory, ast.Lambda):
            return self.default(factory.body)
        name = ast.unparse(factory)
        return [] if name in ("list", "set") else {}


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else value


def value_kind(sources: Sources, name: str, annotation: ast.expr) -> dict[str, Any]:
    """Return kind, choices and optionality, as ``_compute_kwargs`` in arg_utils derives them."""
    hints = sources.hints(annotation)
    texts = {ast.unparse(hint) for hint in hints}
    outer = {text.partition("[")[0] for text in texts}
    row: dict[str, Any] = {"optional": "None" in texts and "bool" not in texts}
    configs = [
        text
        for text in texts
        if text in sources.classes
        and not sources.is_enum(text)
        and any("config" in ast.unparse(one) for one in sources.classes[text].decorator_list)
    ]
    if configs or any(sources.is_mapping(text) for text in texts):
        return row | {"kind": "json"}
    if texts == {"bool", "str", "None"}:
        return row | {"kind": "text-or-bare"}
    if "bool" in texts:
        return row | {"kind": "flag"}
    literals = [hint for hint in hints if ast.unparse(hint).startswith("Literal[")]
    if literals:
        choices = [value for literal in literals for value in sources.choices(literal)]
        if "str" in texts:
            return row | {"kind": "text"}
        kind = "int" if all(isinstance(value, int) for value in choices) else "text"
        return row | {"kind": kind, "choices": choices}
    if outer & {"tuple", "list", "set"}:
        return row | {"kind": "list"}
    if "int" in texts:
        return row | {"kind": _INTEGERS.get(name, "int")}
    if "float" in texts:
        return row | {"kind": "float"}
    if "dict" in outer:
        return row | {"kind": "json" if outer <= {"dict", "None"} else "json-or-text"}
    for text in texts:
        if sources.is_enum(text) and "Int" in ast.unparse(sources.classes[text].bases[0]):
            return row | {"kind": "int"}
    return row | {"kind": "text"}


# The integers that arg_utils reads with human_readable_int: 1k is 1000, 1K is 1024.
_INTEGERS = dict.fromkeys(
    (
        "max_num_batched_tokens",
        "max_num_scheduled_tokens",
        "kv_cache_memory_bytes",
        "safetensors_prefetch_block_size",
        "max_num_queued_tokens",
    ),
    "human-int",
) | {"max_model_len": "human-int-or-auto"}


def registered(sources: Sources, file: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each ``add_argument`` with a flag in the parser functions of ``file``."""
    for function in ast.walk(sources.trees[file]):
        if not isinstance(function, ast.FunctionDef) or function.name not in PARSERS:
            continue
        bound = _bound_fields(function)
        for call in ast.walk(function):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            names = [str(one.value) for one in call.args if isinstance(one, ast.Constant)]
            if call.func.attr == "add_argument" and names and names[0].startswith("-"):
                yield _row(sources, names, call, bound)


def _bound_fields(function: ast.FunctionDef) -> dict[str, tuple[str, str | None]]:
    """Return what each local name stands for: the kwargs of a class, or of one field of it."""
    bound: dict[str, tuple[str, str | None]] = {}
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        value, name = node.value, node.targets[0].id
        if (found := re.fullmatch(r"get_kwargs\((\w+)\)", ast.unparse(value))) is not None:
            bound[name] = (found[1], None)
        elif isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Constant):
            inner = ast.unparse(value.value)
            if (found := re.fullmatch(r"get_kwargs\((\w+)\)", inner)) is not None:
                bound[name] = (found[1], str(value.slice.value))
            elif inner in bound:
                bound[name] = (bound[inner][0], str(value.slice.value))
    return bound


def _row(
    sources: Sources,
    names: list[str],
    call: ast.Call,
    bound: Mapping[str, tuple[str, str | None]],
) -> dict[str, Any]:
    long = [name for name in names if name.startswith("--")]
    row: dict[str, Any] = {
        "name": long[0],
        "aliases": [name for name in names if name != long[0]],
        "kind": "text",
        "default": None,
        "optional": False,
    }
    for word in call.keywords:
        if word.arg is None:
            row |= _from_kwargs(sources, word.value, bound)
    words = {word.arg: word.value for word in call.keywords if word.arg}
    if "default" in words:
        row["default"] = sources.default(words["default"])
        if ast.unparse(words["default"]) == "argparse.SUPPRESS":
            row["default"] = None
    action = ast.unparse(words["action"]) if "action" in words else ""
    if action.endswith("BooleanOptionalAction"):
        row["kind"] = "flag"
    elif action == "'store_true'":
        row |= {"kind": "switch", "default": False}
    elif "type" in words and ast.unparse(words["type"]) == "int":
        row["kind"] = "int"
    if "choices" in words and isinstance(words["choices"], ast.List):
        row["choices"] = ast.literal_eval(words["choices"])
    return row


def _from_kwargs(
    sources: Sources, value: ast.expr, bound: Mapping[str, tuple[str, str | None]]
) -> dict[str, Any]:
    """Return what ``**x_kwargs["field"]``, alone or with overrides in a dict, says."""
    if isinstance(value, ast.Dict):
        row: dict[str, Any] = {}
        for key, inner in zip(value.keys, value.values, strict=True):
            if key is None:
                row |= _from_kwargs(sources, inner, bound)
            elif isinstance(key, ast.Constant) and key.value == "default":
                row["default"] = sources.default(inner)
        return row
    field: str | None
    if isinstance(value, ast.Name) and value.id in bound:
        class_name, field = bound[value.id]
    elif isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Constant):
        class_name, field = bound[ast.unparse(value.value)][0], str(value.slice.value)
    else:  # the loop over FrontendArgs, read from the class instead
        return {}
    if field is None:
        raise ValueError(f"no field named in {ast.unparse(value)}")
    return _field_row(sources, class_name, field)


def _field_row(sources: Sources, class_name: str, field: str) -> dict[str, Any]:
    node = sources.fields(class_name)[field]
    return value_kind(sources, field, node.annotation) | {"default": sources.default(node.value)}


def frontend(sources: Sources) -> Iterator[dict[str, Any]]:
    """Yield a row for each field of the API server's FrontendArgs."""
    for field in sources.fields(FRONTEND_CLASSES[-1]):
        name = "--" + field.replace("_", "-")
        row = {"name": name, "aliases": []} | _field_row(sources, FRONTEND_CLASSES[-1], field)
        if field.startswith("allowed_"):  # _customize_cli_kwargs: json.loads
            row["kind"] = "json"
        elif field == "middleware":  # _customize_cli_kwargs: one value, repeatable
            row["kind"] = "text"
        yield row


def flag_rows(texts: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the rows of all flags, each name once, in the order of the sources."""
    sources = Sources(texts)
    rows: dict[str, dict[str, Any]] = {}
    for row in [*registered(sources, ENGINE_SOURCE)]:
        rows.setdefault(row["name"], row | {"from": "engine"})
    for file in SERVER_SOURCES:
        for row in [*registered(sources, file), *frontend(sources)]:
            rows.setdefault(row["name"], row | {"from": "server"})
    return [
        {key: row[key] for key in COLUMNS if row.get(key) or key == "default"}
        for row in rows.values()
    ]


def read_wheel(wheel: Path) -> tuple[str, dict[str, str]]:
    """Return the version of the wheel and the sources that the table is made from."""
    with zipfile.ZipFile(wheel) as archive:
        names = [
            name
            for name in archive.namelist()
            if name in (ENGINE_SOURCE, *SERVER_SOURCES) or CONFIG_SOURCES.fullmatch(name)
        ]
        texts = {name: archive.read(name).decode() for name in sorted(names)}
    return wheel.name.split("-")[1], texts


def table_text(version: str, date: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table as JSON, one flag per line."""
    head = {
        "engine": "vllm",
        "version": version,
        "date": date,
        "source": f"vllm {version} wheel: {ENGINE_SOURCE}, {', '.join(SERVER_SOURCES)} and "
        "vllm/config/*.py, read by scripts/vllm_flags.py",
    }
    lines = ",\n".join(json.dumps(row) for row in rows)
    return json.dumps(head, indent=1)[:-2] + ',\n "flags": [\n' + lines + "\n]}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table beside the engine's defaults and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--date", required=True, help="when the wheel was read: 2026-11-20")
    options = parser.parse_args(arguments)
    version, texts = read_wheel(options.wheel)
    rows = flag_rows(texts)
    target = ENGINES / f"vllm-{version.rpartition('.')[0]}-flags.json"
    target.write_text(table_text(version, options.date, rows), encoding="utf-8")
    computed = [row["name"] for row in rows if row["default"] == COMPUTED]
    print(f"{target.name}: {len(rows)} flags; defaults not readable: {', '.join(computed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
