"""The splitter agrees with a POSIX shell on words, and ends every command where one ends."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.inputs.launch_line.shell_words import split_commands

WORDS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\0")), min_size=1)


@given(WORDS)
def test_quoted_words_come_back_as_they_were(words: list[str]) -> None:
    assert split_commands(shlex.join(words), "here") == [words]


@given(st.text(alphabet="ab -\"'\\=#", max_size=30))
def test_words_are_those_of_shlex_where_both_read_the_text(text: str) -> None:
    try:
        ours = split_commands(text, "here")
        theirs = shlex.split(text, comments=False)
    except (InputError, ValueError):
        return
    if "#" not in text:
        assert [word for command in ours for word in command] == theirs


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("a \\\n  b", [["a", "b"]]),
        ("a \\\r\n  b\r\n", [["a", "b"]]),
        ("# why\na b # rest\nc", [["a", "b"], ["c"]]),
        ("a#b", [["a#b"]]),
        ("cd x && a; b | tee log &", [["cd", "x"], ["a"], ["b"], ["tee", "log"]]),
        ("a > log 2>&1 b", [["a", "b"]]),
        ("a &> log", [["a"]]),
        ('a "$HOME/x" $(nproc --all) ${TP:-2} `id`', [["a", "$HOME/x", "$(nproc --all)"]]),
        ("""a '{"k": "v; w"}' "it's" ''""", [["a", '{"k": "v; w"}', "it's", ""]]),
        ('a "x\\"y\\\\" b\\ c', [["a", 'x"y\\', "b c"]]),
        ("", []),
    ],
)
def test_commands_end_where_the_shell_ends_them(text: str, commands: list[list[str]]) -> None:
    found = split_commands(text, "here")
    assert [command[: len(wanted)] for command, wanted in zip(found, commands, strict=True)] == (
        commands
    )


@pytest.mark.parametrize("text", ["a 'b", 'a "b', "a $(b", "a ${b", "a `b", "a << EOF", "a \\ \nb"])
def test_text_that_no_shell_would_run_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"here: got .*allowed: "):
        split_commands(text, "here")
