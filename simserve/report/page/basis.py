"""What a page's numbers rest on: assumptions with their sources, and the way to run it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from simserve.inputs.sourced import KINDS
from simserve.report.charts import style
from simserve.report.charts.bars import Look, Stack, stacked_bars
from simserve.report.page.markup import Child, Markup, element, joined, table
from simserve.report.page.parts import Section, Shown, code, count, details
from simserve.report.page.reproduce import recipe
from simserve.results.run_facts import is_used

_GIB = 1 << 30
_DERIVED = "derived"
_ROOFLINE = "roofline"
_ESTIMATE = ": an estimate, not a measurement."
_UNITS = (
    ("flops_per_s", 1e-12, "TFLOP/s"),
    ("bytes_per_s", 1e-12, "TB/s"),
    ("_bytes", 1 / _GIB, "GiB"),
    ("_s", 1e6, "µs"),
)
# As in results.run_facts: one term stands in both lists.
_IN_BOTH = ("cuda_reserved",)
SOURCE_WORDS = {
    "exact": "at a measured point",
    "interp": "between measured points",
    "extrap": "beyond the measured range",
    "transfer": "from a table of another shape",
    "roofline": "roofline estimate",
    "host": "host time",
}
"""Where the time of a step comes from, in words."""
_LOOKS: Mapping[str, Look] = {
    "exact": (style.ACCENT, 1.0),
    "interp": (style.ACCENT, 0.6),
    "extrap": (style.BAD, 0.75),
    "transfer": (style.SERIES[1], 0.9),
    "roofline": (style.SERIES[1], 0.5),
    "host": (style.MUTED, 0.4),
}


class BasisNumber(NamedTuple):
    """A number behind the answer, as text, and where it comes from."""

    name: str
    value: str
    kind: str
    source: str


def basis_numbers(deployment: Mapping[str, Any]) -> list[BasisNumber]:
    """Return the numbers of the GPU, its memory and the model that a deployment rests on."""
    return sorted(_numbers(deployment), key=lambda one: (_rank(one.kind), one.name))


def _numbers(deployment: Mapping[str, Any]) -> Iterator[BasisNumber]:
    model = deployment["model"]
    experts, latent = model.get("experts") is not None, model.get("mla") is not None
    for name, one in deployment["gpu"]["numbers"].items():
        if is_used(name, tp=deployment["tp"], experts=experts, latent=latent):
            source = f"{one['source']} ({one['date']})"
            yield BasisNumber(_plain(name), _quantity(name, one["value"]), one["kind"], source)
    for one in deployment["kv"]["terms"]:
        if one["kind"] != _DERIVED and one["name"] not in _IN_BOTH:
            value = f"{one['bytes'] / _GIB:.2f} GiB"
            name = f"{_plain(one['name'])}, GPU memory"
            yield BasisNumber(name, value, one["kind"], one["source"])
    source = f"{model['source']} ({model['date']})"
    yield BasisNumber("model shape", model["name"], model["kind"], source)


def _plain(name: str) -> str:
    """Return the name of a number in words, without its unit."""
    bare = name.removeprefix("efficiency.")
    for unit in ("_bytes_per_s", "_bytes", "_s"):
        bare = bare.removesuffix(unit)
    return bare.replace("flops_per_s.", "peak ").replace("_", " ")


def _quantity(name: str, value: float) -> str:
    """Return a number of a GPU's profile with the unit that its name says."""
    for ending, factor, unit in _UNITS:
        if ending in name and (ending != "_s" or name.endswith(ending)):
            return f"{value * factor:,.4g} {unit}"
    return f"{value:,.4g}"


def _rank(kind: str) -> int:
    """Return the order of kinds on the page: what is least sure comes first."""
    return -KINDS.index(kind) if kind in KINDS else 1


def basis_section(
    resolved: Mapping[str, Any], latency: str, priced_from: Mapping[str, Any] | None
) -> Section:
    """Return the section of assumptions, with the figure of where the simulated time comes from."""
    numbers = basis_numbers(resolved["deployment"])
    said = f"{_counted(numbers)} {_priced_by(latency, priced_from)}"
    body: list[Child | Shown] = [element("p", said)]
    if priced_from is not None:
        body += [*_priced(priced_from)]
    return Section("What this rests on", [*body, *_listed(numbers, resolved["deployment"])])


def numbers_section(resolved: Mapping[str, Any]) -> Section:
    """Return the section of assumptions of an answer that stands on many runs."""
    deployment = resolved["deployment"]
    numbers = basis_numbers(deployment)
    latency = deployment["latency"]
    said = f"{_counted(numbers)} Steps are priced by {latency}"
    said += _ESTIMATE if latency == _ROOFLINE else "."
    return Section("The numbers behind it", [element("p", said), *_listed(numbers, deployment)])


def _listed(numbers: list[BasisNumber], deployment: Mapping[str, Any]) -> Iterator[Child | Shown]:
    assumed = [one for one in numbers if one.kind == "assumed"]
    others = [one for one in numbers if one.kind != "assumed"]
    if assumed:
        yield _number_table(assumed, "Assumed: not measured on this GPU, nor published for it")
    yield details(f"The other {len(others)} numbers", _number_table(others, "By kind"))
    yield details("Engine settings", _settings(deployment["engine"]))
    yield details("Where the GPU's memory goes", _memory(deployment["kv"]))


def _counted(numbers: list[BasisNumber]) -> str:
    kinds = Counter(one.kind for one in numbers)
    parts = ", ".join(f"{kinds[kind]} {kind}" for kind in reversed(KINDS) if kinds[kind])
    share = kinds["assumed"] / len(numbers)
    return (
        f"{len(numbers)} numbers about the GPU, its memory and the model stand behind this "
        f"page: {parts}. So {share:.0%} of them are assumed."
    )


def _priced_by(latency: str, priced_from: Mapping[str, Any] | None) -> str:
    if priced_from is None:
        return f"Steps are priced by {latency}{_ESTIMATE}"
    shares = priced_from["shares"]
    beyond = shares.get("extrap", 0.0) + shares.get("transfer", 0.0)
    return (
        f"Steps are priced by the {priced_from['kind']} profile {priced_from['profile']}; "
        f"{beyond:.1%} of the simulated time is extrapolated, "
        f"{shares.get('roofline', 0.0):.1%} is a roofline estimate."
    )


def _priced(priced_from: Mapping[str, Any]) -> Iterator[Child | Shown]:
    found = priced_from["shares"]
    order = dict.fromkeys((*SOURCE_WORDS, *found))
    shares = {SOURCE_WORDS.get(name, name): share * 100 for name, share in found.items()}
    looks = {SOURCE_WORDS.get(name, name): _LOOKS.get(name, _LOOKS["host"]) for name in order}
    words = [word for word in looks if word in shares]
    said = ", ".join(f"{shares[word]:.1f} % {word}" for word in words)
    yield Shown(
        name="time-sources",
        figure=stacked_bars([Stack("simulated time", shares)], looks, "% of the simulated time"),
        title="Where the simulated time comes from",
        alt=f"A stacked bar: {said}.",
        caption=f"Of all time inside steps: {said}.",
    )
    for warning in priced_from["warnings"]:
        yield element("p", warning, class_="note")


def _number_table(numbers: list[BasisNumber], caption: str) -> Markup:
    rows = [(one.name, one.kind, one.source, one.value) for one in numbers]
    return table(("number", "kind", "source", "value"), rows, caption, texts=3)


def _settings(engine: Mapping[str, Any]) -> Markup:
    rows = [
        (key, one["source"], "–" if one["value"] is None else str(one["value"]))
        for key, one in engine["settings"].items()
    ]
    caption = f"{engine['name']} {engine['version']}"
    return table(("setting", "whose value", "value"), rows, caption, texts=2)


def _memory(kv: Mapping[str, Any]) -> Markup:
    rows = [
        (_plain(one["name"]), one["kind"], one["source"], f"{one['bytes'] / _GIB:.2f}")
        for one in kv["terms"]
    ]
    caption = f"{count(kv['num_blocks'], 'KV block')} of {kv['block_bytes']:,} bytes, per GPU"
    return table(("part", "kind", "source", "GiB"), rows, caption, texts=3)


def reproduce_section(
    resolved: Mapping[str, Any], digest: str, version: str, commands: str
) -> Section:
    """Return how to get the same numbers again: a scenario file and the ``commands``."""
    made = joined(
        element(
            "p",
            f"Made by simserve {version}; scenario digest ",
            element("code", digest),
            ". The same inputs, seed and version give the same bytes.",
            class_="note",
        )
    )
    return Section("Run it again", [*scenario_file(resolved, "the run"), code(commands), made])


def scenario_file(resolved: Mapping[str, Any], what: str) -> list[Child | Shown]:
    """Return the scenario of ``what`` as a file, and whether it resolves to the same."""
    found = recipe(resolved)
    if found.problem is None:
        said = (
            "This file was read back when the page was made, and resolves to the same values as "
            f"{what}. Save it as scenario.yaml:"
        )
    else:
        said = found.problem + " The nearest scenario file is:"
    return [element("p", said), code(found.text)]
