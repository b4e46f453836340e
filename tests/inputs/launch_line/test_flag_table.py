"""Every flag of vLLM 0.33.0 has one meaning, and every meaning is that of a flag."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from simserve.errors import InputError
from simserve.inputs.data_files import CATALOGUE
from simserve.inputs.deployment import DeploymentSpec
from simserve.inputs.launch_line.flag_table import (
    EXPANDED,
    IRRELEVANT,
    MODELLED,
    REFUSED,
    Flag,
    other_table,
    vllm_table,
)
from simserve.inputs.launch_line.other_engines import CONVERSIONS
from simserve.inputs.launch_line.read import read_launch_line
from simserve.inputs.yaml_reader import read_yaml

# Flags of engine/arg_utils.py, counted by hand in its sources: 254 calls of add_argument.
ENGINE_FLAGS = 254
FLAGS = vllm_table().flags


def test_table_has_every_flag_of_the_engine_and_one_class_for_each() -> None:
    counts = Counter(flag.meaning for flag in FLAGS)
    assert set(counts) == {MODELLED, IRRELEVANT, REFUSED, EXPANDED}
    assert sum(counts.values()) == len({flag.name for flag in FLAGS}) > ENGINE_FLAGS


def test_no_flag_is_classed_twice() -> None:
    classes = read_yaml(CATALOGUE / "engines" / "vllm-0.33-flag-classes.yaml")
    groups = [group["flags"].split() for key in ("irrelevant", "refused") for group in classes[key]]
    names = [*classes["modelled"], classes["expanded"], *itertools.chain.from_iterable(groups)]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert not set(names) & set(classes["gone"])


def test_every_modelled_flag_is_a_key_of_a_deployment() -> None:
    for engine in ("vllm", "sglang", "trtllm"):
        table = vllm_table() if engine == "vllm" else other_table(engine)
        settings = {flag.setting for flag in table.flags if flag.meaning == MODELLED}
        assert settings - {""} <= set(DeploymentSpec.model_fields) | set(CONVERSIONS)


def test_every_irrelevant_or_refused_flag_says_why() -> None:
    assert [
        flag.name for flag in FLAGS if flag.meaning in (IRRELEVANT, REFUSED) and not flag.why
    ] == []


def _line(flag: Flag, value: object) -> str:
    if flag.takes_no_value:
        name = flag.name if value else next(iter(flag.negations))
        return f"vllm serve m {name}"
    return f"vllm serve m {flag.name}='{value}'"


@pytest.mark.parametrize(
    "flag",
    [
        flag
        for flag in FLAGS
        if flag.meaning == REFUSED
        and not isinstance(flag.default, (list, dict))
        and flag.default is not None
        and not (flag.kind == "switch" and flag.default is False)
    ],
    ids=lambda flag: flag.name,
)
def test_refused_flag_is_accepted_at_its_default_and_then_noted(flag: Flag) -> None:
    line = read_launch_line(_line(flag, flag.default))
    assert line.deployment == {"model": "m"}
    assert flag.name in line.notes[-1]


@pytest.mark.parametrize(
    "flag", [flag for flag in FLAGS if flag.meaning == REFUSED], ids=lambda flag: flag.name
)
def test_refused_flag_with_another_value_is_refused_by_name(flag: Flag) -> None:
    other = {"int": 12345, "float": 0.4321, "json": '{"a": 1}'}.get(flag.kind, "other")
    if flag.takes_no_value:
        other = not flag.default
    elif flag.kind == "int" and flag.choices:
        other = next(one for one in flag.choices if one != flag.default)
    with pytest.raises(InputError) as caught:
        read_launch_line(_line(flag, other))
    said = str(caught.value)
    assert flag.why in said
    assert any(name in said for name in (flag.name, *flag.negations))


def test_flag_of_an_older_version_is_refused_with_what_to_do() -> None:
    for name, advice in vllm_table().gone.items():
        with pytest.raises(InputError) as caught:
            read_launch_line(f"vllm serve m {name} 1")
        assert name in str(caught.value) and advice in str(caught.value)
