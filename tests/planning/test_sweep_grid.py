"""The points of a sweep."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.planning.sweep_grid import Axis, grid, parse_axis, parse_link, settings_of

AXES = st.lists(
    st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True), min_size=1, max_size=4
).map(lambda columns: [Axis(f"k{at}", tuple(values)) for at, values in enumerate(columns)])


@given(AXES)
def test_grid_is_the_product_and_no_point_comes_twice(axes: list[Axis]) -> None:
    points = grid(axes)
    assert len(points) == math.prod(len(axis.values) for axis in axes)
    assert len({tuple(point.items()) for point in points}) == len(points)
    assert all(list(point) == [axis.key for axis in axes] for point in points)


def test_last_axis_varies_fastest() -> None:
    points = grid([Axis("a", (1, 2)), Axis("b", ("x", "y"))])
    assert [(p["a"], p["b"]) for p in points] == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]


def test_linked_axes_move_together() -> None:
    axes = [Axis("a", (1, 2)), Axis("b", (5, 6, 7)), Axis("c", (10, 20))]
    points = grid(axes, [("a", "c")])
    assert len(points) == 6
    assert all(point["c"] == 10 * int(point["a"]) for point in points)


def test_linked_key_without_values_takes_those_of_the_other() -> None:
    assert grid([Axis("a", (1, 2))], [("a", "b")]) == [{"a": 1, "b": 1}, {"a": 2, "b": 2}]
    assert grid([Axis("a", (1, 2))], [("b", "a")]) == [{"a": 1, "b": 1}, {"a": 2, "b": 2}]


def test_links_join_up() -> None:
    axes = [Axis(key, (1, 2)) for key in "abc"]
    assert len(grid(axes, [("a", "b"), ("b", "c")])) == 2


def test_no_axis_gives_one_point_without_settings() -> None:
    assert grid([]) == [{}]


def test_numbers_are_read_as_numbers_and_settings_give_back_their_text() -> None:
    axis = parse_axis("deployment.max_num_seqs=16,0.5,auto,1e3,007,nan")
    assert axis.values == (16, 0.5, "auto", "1e3", "007", "nan")
    assert settings_of({axis.key: 0.5}) == ["deployment.max_num_seqs=0.5"]


def test_comma_inside_brackets_does_not_separate() -> None:
    assert parse_axis("workload.prompt_tokens={median: 5, p95: 9},7").values == (
        "{median: 5, p95: 9}",
        7,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_num_seqs", "--vary: got max_num_seqs, allowed: key=value"),
        ("=1,2", "--vary: got =1,2, allowed: key=value"),
        ("k=1,,2", "--vary: got k=1,,2, allowed: values separated"),
        ("k=", "--vary: got k=, allowed: values separated"),
        ("k=1,1", "--vary: got k=1,1, allowed: every value once"),
    ],
)
def test_axis_that_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_axis(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("links", "message"),
    [
        (["a"], "--link: got a, allowed: key1=key2"),
        (["a=b"], "--link: a=b: got 2 and 3 values"),
        (["aa=z"], "--link: got aa=z, allowed: a key that is varied; did you mean a?"),
    ],
)
def test_link_that_cannot_be_followed_is_refused(links: list[str], message: str) -> None:
    axes = [Axis("a", (1, 2)), Axis("b", (1, 2, 3))]
    with pytest.raises(InputError) as caught:
        grid(axes, [parse_link(text) for text in links])
    assert message in str(caught.value)


def test_key_that_is_varied_twice_is_refused() -> None:
    with pytest.raises(InputError, match="each key once"):
        grid([Axis("a", (1,)), Axis("a", (2,))])
