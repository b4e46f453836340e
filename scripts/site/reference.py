"""The reference: commands, keys of the files, metrics, policies, profiles and the Python API.

Everything is read from the code, so that no page can say what the code does not do.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Schema = Mapping[str, Any]


def reference_pages() -> dict[str, str]:
    """Return the pages by their path on the site."""
    return {
        "reference/cli.md": cli_page(),
        "reference/files.md": files_page(),
        "reference/metrics.md": metrics_page(),
        "reference/policies.md": policies_page(),
        "reference/profiles.md": profiles_page(),
        "reference/python.md": python_page(),
    }


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; a bar within a cell is escaped."""
    lines = [list(head), *(list(row) for row in rows)]
    shown = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([shown[0], "|" + " --- |" * len(lines[0]), *shown[1:]])


def prose(docstring: str | None) -> str:
    """Return a docstring as Markdown: code in backticks, errors as a sentence."""
    text = inspect.cleandoc(docstring or "").replace("``", "`")
    text = re.sub(r"^Raises:\n((?:    .*\n?)+)", _raises, text, flags=re.MULTILINE)
    return text.strip()


def _raises(found: re.Match[str]) -> str:
    return "Raises " + " ".join(found[1].split()) + "\n"


# -- commands


def cli_page() -> str:
    """Return every command with its help, as the shell prints it."""
    from typer.testing import CliRunner

    from simserve.cli import app, click_command

    parts = ["# Commands", "What `--help` prints, 80 columns wide."]
    for words in _commands(click_command(), ()):
        plain = {"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}
        done = CliRunner().invoke(app, [*words, "--help"], prog_name="simserve", env=plain)
        name = " ".join(("simserve", *words))
        parts.append(f"## {name}\n\n```text\n{done.output.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def _commands(command: Any, words: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    yield words
    for name, sub in getattr(command, "commands", {}).items():
        if not sub.hidden:
            yield from _commands(sub, (*words, name))


# -- files


def files_page() -> str:
    """Return the keys of every YAML file, from its JSON Schema."""
    from simserve.inputs.json_schema import file_schema, schema_names

    parts = [
        "# Keys of the files",
        "`simserve schema NAME` prints the JSON Schema that editors read. What depends on two keys,"
        " or on the model, `simserve check` says.",
    ]
    told: set[str] = set()
    for name in schema_names():
        schema = file_schema(name)
        parts.append(f"## {name}\n\n{prose(schema.get('description'))}\n\n{_keys(schema)}")
        for inner, one in schema.get("$defs", {}).items():
            if inner not in told and inner.removesuffix("Spec").lower() not in schema_names():
                told.add(inner)
                parts.append(_definition(inner, one))
    return "\n\n".join(parts) + "\n"


def _definition(name: str, schema: Schema) -> str:
    objects = [one for one in schema.get("anyOf", [schema]) if "properties" in one]
    heading = f"### {name.removesuffix('Spec')}\n\n{prose(schema.get('description'))}"
    return "\n\n".join([heading, *(_keys(one) for one in objects)])


def _keys(schema: Schema) -> str:
    required = schema.get("required", ())
    rows = [
        (
            f"`{key}`",
            prose(one.get("description", "")).replace("\n", " ") or _reference(one),
            "required" if key in required else _default(one),
        )
        for key, one in schema.get("properties", {}).items()
    ]
    return table(("key", "what may stand there", "if left out"), rows)


def _reference(schema: Schema) -> str:
    """Return where the keys of a mapping are told, if only that is known of it."""
    name = schema.get("$ref", "").rpartition("/")[2].removesuffix("Spec")
    return f"a mapping, see [{name}](#{name.lower()})" if name else ""


def _default(schema: Schema) -> str:
    default = schema.get("default")
    return "" if default is None else f"`{default}`"


# -- metrics


def metrics_page() -> str:
    """Return what every number of a result means, from the classes that hold them."""
    from simserve.results import bench_json, engine_use, metrics, steady_state, waterfall

    classes = (
        (metrics.RequestLatencies, "Latencies of a request"),
        (metrics.Metrics, "Metrics of a run"),
        (engine_use.EngineUse, "Engine"),
        (engine_use.PrefixUse, "Prefix cache"),
        (steady_state.SteadyState, "Steady state"),
    )
    parts = ["# Metrics", prose(metrics.__doc__)]
    for cls, title in classes:
        rows = [(f"`{name}`", comment) for name, comment in field_comments(cls)]
        parts.append(f"## {title}\n\n{prose(cls.__doc__)}\n\n{table(('name', ''), rows)}")
    parts.append(f"## The result file\n\n{prose(bench_json.__doc__)}")
    parts.append(f"## Waterfall\n\n{prose(waterfall.__doc__)}")
    return "\n\n".join(parts) + "\n"


def field_comments(cls: type) -> list[tuple[str, str]]:
    """Return the fields of a dataclass, each with the comment behind it."""
    source = inspect.getsource(cls)
    found = []
    for field in dataclasses.fields(cls):
        said = re.search(rf"^    {field.name}: [^#\n]*  # (.*)$", source, re.MULTILINE)
        found.append((field.name, said[1] if said else ""))
    return found


# -- policies and profiles


def policies_page() -> str:
    """Return schedulers and routers by name, with what their classes say."""
    from simserve.policy.registry import SCHEDULERS
    from simserve.policy.router import ROUTERS

    parts = [
        "# Policies",
        "The name of a policy stands in the deployment, as `scheduler:` or `router:`. A class of"
        " your own is named `package.module:Class`: [how](../own-scheduler.md).",
    ]
    groups: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("Schedulers", SCHEDULERS),
        ("Routers", ROUTERS),
    )
    for title, named in groups:
        parts.append(f"## {title}")
        parts += [
            f"### {name}\n\n{prose(one.__doc__)}\n\n{_idea(one)}" for name, one in named.items()
        ]
    return "\n\n".join(parts) + "\n"


def _idea(cls: Any) -> str:
    """Return what the module of a class says, where that is about it."""
    module = importlib.import_module(cls.__module__)
    return prose(module.__doc__) if "see the module" in (cls.__doc__ or "") else ""


def profiles_page() -> str:
    """Return the profiles that ship, and the columns of their tables."""
    from simserve.inputs.hardware_profile import list_gpus
    from simserve.latency.tables.profile import find_profile, list_profiles, read_profile
    from simserve.latency.tables.schema import KEYS, MEASURES, TIMES

    shipped = []
    for gpu in list_gpus():
        for name in list_profiles(gpu):
            folder = find_profile(name, gpu)
            if folder is not None:
                one = read_profile(folder)
                rows = sum(len(table.rows) for table in one.tables.values())
                source = f"{one.provenance.source}, {one.provenance.date}"
                shipped.append((f"`{gpu}`", f"`{name}`", one.provenance.kind, f"{rows:,}", source))
    head = ("GPU", "profile", "kind", "rows", "source")
    parts = [
        "# Profiles",
        "Latency from measured tables: [what a profile is](../profile-schema.md), [how to make"
        " one](../kernel-profiles.md). Without one, steps are priced by the roofline of the"
        " [accelerator](../accelerators.md).",
        "## Shipped\n\n" + (table(head, shipped) if shipped else "None ships with this version."),
        "## Columns\n\nA column whose default is empty must be there.",
    ]
    for name, columns in KEYS.items():
        cells = [(f"`{key}`", one.allowed, _cell(one.default)) for key, one in columns.items()]
        body = table(("column", "what may stand there", "default"), cells)
        parts.append(f"### {name}.csv\n\nPriced from `{TIMES[name]}`.\n\n{body}")
    parts.append("Any table may also have: " + ", ".join(f"`{one}`" for one in MEASURES) + ".")
    return "\n\n".join(parts) + "\n"


def _cell(default: object) -> str:
    if default is None:
        return ""
    return "nothing" if default == "" else f"`{default}`"


# -- Python


def python_page() -> str:
    """Return every public name of ``simserve`` with its signature and its docstring."""
    import simserve

    parts = ["# Python", prose(simserve.__doc__)]
    for name in simserve.__all__:
        one = getattr(simserve, name)
        if name.startswith("__"):
            continue
        parts.append(f"## {name}\n\n{_signature(name, one)}\n\n{prose(one.__doc__)}")
        if inspect.isclass(one):
            parts += [
                _method(key, member) for key, member in vars(one).items() if _public(key, member)
            ]
    return "\n\n".join(parts) + "\n"


def _signature(name: str, one: Callable[..., Any]) -> str:
    if inspect.isclass(one):
        return f"```text\nclass {name}\n```"
    parameters = ",\n    ".join(str(each) for each in inspect.signature(one).parameters.values())
    return f"```text\n{name}(\n    {parameters},\n)\n```"


def _public(key: str, member: Any) -> bool:
    return (
        not key.startswith("_")
        and bool(getattr(member, "__doc__", None))
        and (
            callable(member)
            or isinstance(member, classmethod | property)
            or hasattr(member, "func")
        )
    )


def _method(key: str, member: Any) -> str:
    return f"### {key}\n\n{prose(member.__doc__)}"
