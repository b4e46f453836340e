"""Profiles as files: what is wrong is told in one line, and nothing is taken on trust."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simserve.errors import InputError
from simserve.latency.tables.profile import read_profile
from simserve.latency.tables.schema import KEYS, TIMES
from tests.latency.tables.profiles import H100, HOST, LLAMA_8B, head, tables_of, write_profile

GEMM: list[dict[str, Any]] = [
    {"dtype": "bf16", "m": m, "n": 64, "k": 64, "us_p50": 2.5} for m in (1, 2)
]


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_profile(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(folder), "P")


def with_row(tmp_path: Path, **changes: Any) -> Path:
    return write_profile(tmp_path, {"gemm": [GEMM[0], GEMM[1] | changes]})


def test_a_made_up_profile_says_that_it_is_assumed(tmp_path: Path) -> None:
    profile = read_profile(write_profile(tmp_path / "mine", tables_of(LLAMA_8B, 1), HOST))
    assert profile.provenance.kind == "assumed"
    assert {one.kind for one in profile.origins.values()} == {"assumed"}
    assert profile.name == "mine"
    assert profile.gpu == H100.name
    assert set(profile.tables) == {"gemm", "attn_decode", "attn_prefill", "attn_mixed"}
    assert profile.host is not None
    assert profile.host.host_step.value == pytest.approx(150e-6)
    assert profile.host.decode_graph_sizes[:4] == (1, 2, 4, 8)


def test_a_table_may_have_a_provenance_of_its_own(tmp_path: Path) -> None:
    own = {"kind": "imported", "source": "a public table", "date": "2026-08-01"}
    folder = write_profile(tmp_path, {"gemm": GEMM}, provenance={"gemm": own})
    assert read_profile(folder).origins["gemm"].kind == "imported"


def test_digest_changes_with_any_file(tmp_path: Path) -> None:
    digests = {
        read_profile(write_profile(tmp_path / name, tables, host)).digest
        for name, tables, host in (
            ("a", {"gemm": GEMM}, None),
            ("b", {"gemm": GEMM[:1]}, None),
            ("c", {"gemm": GEMM}, HOST),
        )
    }
    again = read_profile(write_profile(tmp_path / "d", {"gemm": GEMM}))
    assert len(digests | {again.digest}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"m": "two"}, "P/gemm.csv: row 3, m: got two, allowed: an integer of at least 1"),
        ({"m": 0}, "P/gemm.csv: row 3, m: got 0, allowed: an integer of at least 1"),
        ({"m": 1.5}, "P/gemm.csv: row 3, m: got 1.5, allowed: an integer of at least 1"),
        ({"m": ""}, "P/gemm.csv: row 3, m: got nothing, allowed: an integer of at least 1"),
        ({"us_p50": -1}, "P/gemm.csv: row 3, us_p50: got -1, allowed: a number of at least 0"),
        ({"us_p50": 0}, "P/gemm.csv: row 3, us_p50: got 0, allowed: microseconds above 0"),
        ({"us_p50": ""}, "P/gemm.csv: row 3, us_p50: got nothing, allowed: microseconds above 0"),
        ({"us_p50": "nan"}, "P/gemm.csv: row 3, us_p50: got nan, allowed: a number of at least 0"),
        ({"m": 1}, "P/gemm.csv: row 3: got the keys of row 2, allowed: every key once"),
    ],
)
def test_a_bad_cell_is_told_by_file_row_and_column(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    assert refusal(with_row(tmp_path, **changes)) == message


def edited(name: str, edit: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        path.write_text(edit(path.read_text("utf-8")), "utf-8")

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edited("gemm.csv", lambda t: t.replace("us_p50", "us_p5O", 1)), "did you mean us_p50?"),
        (edited("gemm.csv", lambda t: t.replace("us_p50", "m", 1)), "column m: got twice"),
        (edited("gemm.csv", lambda t: t.replace(",k,", ",us_min,", 1)), "column k: got nothing"),
        (edited("gemm.csv", lambda t: t + "bf16,3\n"), "row 4: got 2 cells, allowed: 5"),
        (edited("gemm.csv", lambda t: t.splitlines()[0]), "got a header alone"),
        (edited("gemm.csv", lambda t: ""), "gemm.csv: got an empty file"),
        (edited("gemm.csv", lambda t: t[: t.rindex("bf16")]), "tables.gemm: got 2, allowed: 1"),
        (lambda f: (f / "gemm.csv").write_bytes(b"\xff\xfe"), "not UTF-8"),
        (lambda f: (f / "gem.csv").write_text("a"), "table: got gem, allowed"),
        (lambda f: (f / "gemm.csv").unlink(), "tables.gemm: got 2, allowed: 0"),
        (edited("profile.yaml", lambda t: t.replace("assumed", "guessed")), "kind: got guessed"),
        (edited("profile.yaml", lambda t: t.replace('"source"', '"sauce"')), "did you mean source"),
        (
            edited("profile.yaml", lambda t: t.replace('"schema": 1', '"schema": 2')),
            "schema: got 2",
        ),
        (edited("profile.yaml", lambda t: t.replace('"gpu"', '"card"')), "device.gpu: got nothing"),
        (lambda f: (f / "profile.yaml").unlink(), "no such file"),
        (lambda f: (f / "host.yaml").write_text("host_step: 1"), "host.yaml: host_step: got 1"),
    ],
)
def test_a_bad_file_is_told_by_what_is_wrong_with_it(
    tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    change(write_profile(tmp_path, {"gemm": GEMM}))
    assert message in refusal(tmp_path)


@pytest.mark.parametrize("key", ["kind", "source", "date", "device"])
def test_a_profile_without_provenance_is_refused(tmp_path: Path, key: str) -> None:
    import json

    document = {name: value for name, value in head().items() if name != key}
    write_profile(tmp_path, {"gemm": GEMM})
    (tmp_path / "profile.yaml").write_text(json.dumps(document), "utf-8")
    assert f"P/profile.yaml: {key}" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host_step": None}, "host_step: got nothing"),
        ({"host_stop": 1}, "host_stop: got an unknown key"),
        ({"bubble": {"value": "60us"}}, "bubble.kind: got nothing"),
        ({"decode_graph_sizes": [1, 2]}, "decode_graph_sizes: got [1, 2]"),
    ],
)
def test_host_terms_need_a_source_each(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    host = {key: value for key, value in (HOST | changes).items() if value is not None}
    assert message in refusal(write_profile(tmp_path, {"gemm": GEMM}, host))


def test_graph_sizes_must_rise(tmp_path: Path) -> None:
    sizes = HOST["decode_graph_sizes"] | {"value": [1, 4, 4]}
    folder = write_profile(tmp_path, {"gemm": GEMM}, HOST | {"decode_graph_sizes": sizes})
    assert "decode_graph_sizes.value: got 4" in refusal(folder)


def test_every_table_of_the_schema_is_on_its_reference_page() -> None:
    page = (Path(__file__).parents[3] / "docs" / "profile-schema.md").read_text("utf-8")
    for name, columns in KEYS.items():
        assert f"`{name}.csv`" in page
        for column in (*columns, TIMES[name]):
            assert f"`{column}`" in page
