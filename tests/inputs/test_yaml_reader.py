"""The YAML reader accepts plain data, and answers everything else with one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.inputs.yaml_reader import MAX_FILE_BYTES, parse_yaml, read_yaml

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.text(st.characters(codec="ascii", categories=("L", "N", "P", "Zs"))),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("abcxyz_", min_size=1), inner, max_size=4)
    ),
    max_leaves=20,
)


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "case.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def complaint(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_yaml(text, "case.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@given(PLAIN)
def test_json_reads_back_as_what_was_written(value: object) -> None:
    assert parse_yaml(json.dumps(value), "case.yaml") == value


@settings(max_examples=300)
@given(st.text(alphabet="ab:-[]{}*&!|>'\"#%@,? \n\t09.e~<\x00é", max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        parse_yaml(text, "case.yaml")
    except InputError as error:
        assert "\n" not in str(error)


@settings(max_examples=200)
@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = write(tmp_path_factory.mktemp("fuzz"), content)
    try:
        assert isinstance(read_yaml(path), dict)
    except InputError as error:
        assert str(path) in str(error)


def test_yes_and_on_stay_text_and_exponents_are_numbers() -> None:
    text = "a: yes\nb: on\nc: 2.9e12\nd: 012\ne: 1_000\nf: true\ng: 0x10\nh: '5'\ni: .5"
    expected = {"a": "yes", "b": "on", "c": 2.9e12, "d": 12, "e": "1_000", "f": True, "g": 16}
    assert parse_yaml(text, "case.yaml") == expected | {"h": "5", "i": 0.5}


def test_dates_stay_text() -> None:
    assert parse_yaml("a: 2026-11-20", "case.yaml") == {"a": "2026-11-20"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: got the key a twice"),
        ("a: &x [1]\nb: *x", "line 2: got *x, allowed: no aliases"),
        ("a: !!python/object:os.system x", "no tags"),
        ("a: 1\n---\nb: 2", "one document"),
        ("1: a", "text as a key"),
        ("? [a]\n: b", "text as a key"),
        ("a: [1, 2", "line"),
        ("a: b: c", "line 1"),
        ("rate: .nan", "rate: got .nan, allowed: a finite number"),
        ("rate: -.inf", "a finite number"),
        ("rate: 1e999", "a finite number"),
        ("a: " + "9" * 5000, "at most 30 digits"),
        ("a: \x01", "printable text"),
    ],
)
def test_what_is_not_plain_data_is_refused(text: str, expected: str) -> None:
    assert expected in complaint(text)


@pytest.mark.parametrize("text", ["[" * 100_000, "a: " + "{a: " * 5000, "- " * 5000])
def test_deep_nesting_is_refused_before_it_costs_anything(text: str) -> None:
    assert "32 levels at most" in complaint(text)


def test_exponential_aliases_are_never_expanded() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    assert "no aliases" in complaint("\n".join(lines))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "an empty file"),
        ("# only a comment\n", "an empty file"),
        ("- 1\n", "a YAML mapping"),
        ("a: é".encode("latin-1"), "got byte 0xe9 at offset 3, allowed: UTF-8 text"),
        ("a: 1".encode("utf-16"), "UTF-8"),
        (b"a: " + b"x" * MAX_FILE_BYTES, "JSONL or CSV trace"),
        ("workload:\n  arrivals: {process: poi", "line"),
    ],
)
def test_unusable_files_are_refused_by_name(
    tmp_path: Path, content: str | bytes, expected: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InputError) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path: Path) -> None:
    assert read_yaml(write(tmp_path, b"\xef\xbb\xbfa: 1")) == {"a": 1}


def test_folders_pipes_and_missing_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "chat.yaml").write_text("a: 1")
    for name, expected in {
        "": "got a folder",
        "pipe": "not a regular file",
        "chta.yaml": "did you mean",
        "a\0b": "null byte",
    }.items():
        with pytest.raises(InputError, match=expected):
            read_yaml(tmp_path / name)
