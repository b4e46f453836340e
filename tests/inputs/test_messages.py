"""Complaints are one line that a terminal can show, whatever the file held."""

from __future__ import annotations

import pytest

from simserve.errors import InputError, known_names, one_line, reason_of, shortened, unknown_name

LONGEST = 400


@pytest.mark.parametrize(
    ("got", "shown"),
    [
        ("64", "got 64,"),
        ("64 ", "got '64 ',"),
        (b"\xff\xfe{", "got \\xff\\xfe{,"),
        ("\x1b[31mred", "got \\x1b[31mred,"),
        ("\ud800", "got \\ud800,"),
        ("é٣", "got é٣,"),
        (None, "allowed"),
        (1.5, "got 1.5,"),
    ],
)
def test_got_shows_what_was_there_and_nothing_that_acts(got: object, shown: str) -> None:
    text = str(InputError("f.yaml", "key", got, "a number"))
    assert shown in text and text.isprintable()
    text.encode()


@pytest.mark.parametrize("part", ["where", "which", "got", "allowed"])
def test_no_part_makes_a_message_long(part: str) -> None:
    parts = {"where": "f.yaml", "which": "key", "got": "x", "allowed": "a number"}
    text = str(InputError(**parts | {part: "start " + "long " * 5000 + "end"}))
    assert len(text) <= LONGEST and "start" in text and "…" in text
    assert "\n" not in str(InputError(**parts | {part: "two\nlines\u2028three"}))


def test_all_parts_long_are_still_short_together() -> None:
    assert len(str(InputError("w" * 999, "k" * 999, "g" * 999, "a" * 999))) <= LONGEST


def test_what_is_left_out_is_in_the_middle() -> None:
    assert shortened("abcdefghij", 7) == "abcd…ij"
    assert shortened("abc", 3) == "abc"
    assert one_line(" a\tb \n c ") == "a b c"


def test_a_long_catalogue_is_not_recited() -> None:
    names = [f"model-{i}b" for i in range(60)]
    near = str(unknown_name("--model", "model", "model-7", names))
    assert "did you mean model-7b?" in near and "(60 in all)" in near and len(near) < 160
    assert known_names("x", ["a", "b"]) == "a, b"


def test_reasons_are_words() -> None:
    assert reason_of(KeyError("facts")) == "no facts"
    assert reason_of(FileNotFoundError(2, "No such file", "run.json")) == "run.json: No such file"
    assert reason_of(ValueError("bad")) == "bad" and reason_of(ValueError()) == "ValueError"
