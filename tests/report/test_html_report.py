"""A page needs nothing else, can be read by everyone, says what is true, and escapes."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simserve.errors import InputError
from simserve.inputs.scenario import load_scenario
from simserve.planning.run_scenario import run
from simserve.planning.sweep import sweep
from simserve.records.run_record import RunMeta
from simserve.report.html import load_page, write_figures, write_page
from simserve.report.page.parts import Page, style_sheet
from simserve.report.page.run import run_page
from simserve.results.metrics import LATENCY_METRICS
from simserve.results.result import Result
from tests.report.pages import read
from tests.results.reference_run import Options
from tests.results.scenarios import result as made_up

NASTY = "</title><script>alert('x')</script> $a_b^{c}$ & \"q\" <b>\u0000\u202e%s{x}"


def _saved(tmp: Path, *settings: str, slo: str | None = None) -> Path:
    run(load_scenario(settings=list(settings), slo=slo)).save(tmp)
    return tmp


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    slo = "ttft:500 tpot_p95:50"
    return _saved(tmp_path_factory.mktemp("run"), "workload.num_requests=150", slo=slo)


@pytest.fixture(scope="module")
def sweep_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    vary: dict[str, Any] = {"rate_per_s": [4, 60], "max_num_seqs": [8, 64], "tp": [1, 2]}
    few = ["workload.num_requests=40"]
    sweep(vary=vary, out=folder, settings=few, slo="ttft:400 tpot_p99:20")
    return folder


@pytest.fixture(scope="module")
def run_page_of_it(run_folder: Path) -> Page:
    return load_page(run_folder)


@pytest.fixture(scope="module")
def run_text(run_page_of_it: Page) -> str:
    return run_page_of_it.markup()


@pytest.fixture(scope="module")
def sweep_text(sweep_folder: Path) -> str:
    return load_page(sweep_folder).markup()


@pytest.fixture(params=["run_text", "sweep_text"])
def text(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


def test_nothing_is_loaded_from_anywhere(text: str) -> None:
    page = read(text)
    assert all(address.startswith("#") for address in page.addresses)
    assert not page.of("script")
    assert not page.of("link")
    assert not re.search(r"@import|url\((?!#)", text)
    [policy] = [one for one in page.of("meta") if one.get("http-equiv")]
    assert "default-src 'none'" in str(policy["content"])


def test_every_element_is_closed_and_no_id_stands_twice(text: str) -> None:
    page = read(text)
    assert page.problems == []
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    for address in page.addresses:
        assert address[1:] in ids


def test_every_figure_has_a_text_in_its_place_and_a_caption(text: str) -> None:
    page = read(text)
    drawings = [one for one in page.of("svg") if one.get("role") == "img"]
    assert len(page.of("figure")) == len(drawings) == len(page.of("figcaption")) >= 2
    assert all(len(one["aria-label"] or "") > 20 for one in drawings)
    for drawing in re.findall(r"<svg class.*?</svg>", text, re.DOTALL):
        ET.fromstring(drawing)
    assert len(page.of("h1")) == 1
    assert [one["lang"] for one in page.of("html")] == ["en"]


def test_figures_take_their_colours_from_the_page(text: str) -> None:
    drawings = "".join(re.findall(r"<svg class.*?</svg>", text, re.DOTALL))
    named = set(re.findall(r"var\(--([a-z0-9-]+)\)", drawings))
    assert {"accent", "ink", "muted", "grid"} <= named
    assert named <= set(re.findall(r"--([a-z0-9-]+):", style_sheet()))
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawings)) <= {"#000000"}


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_that_of_wcag_aa(scheme: str) -> None:
    light, dark = re.findall(r":root \{(.*?)\}", style_sheet(), re.DOTALL)[:2]
    colours = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", light))
    if scheme == "dark":
        colours |= dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", dark))
    for text_colour in ("ink", "muted", "accent", "good", "bad", "warn"):
        for paper in ("paper", "panel"):
            assert _contrast(colours[text_colour], colours[paper]) >= 4.5, (text_colour, paper)
    for looks in ("good", "bad", "warn"):
        assert _contrast(colours[looks], colours[f"{looks}-paper"]) >= 4.5
    for name, colour in colours.items():
        if name.startswith("series"):
            assert _contrast(colour, colours["paper"]) >= 3.0, name


def test_the_numbers_of_a_run_are_those_of_its_metrics(run_folder: Path, run_text: str) -> None:
    result, page = Result.load(run_folder), read(run_text)
    cells = set(page.texts["td"])
    for name in LATENCY_METRICS:
        for q in (50, 90, 95, 99):
            value = result.metrics.sample(name).percentile(q)
            assert value is not None
            shown = f"{value * 1000:,.1f}" if value * 1000 < 100 else f"{value * 1000:,.0f}"
            assert shown in cells, (name, q)
    assert result.facts.digest in page.text()
    assert result.verdict.reason in page.text()


def test_all_assumed_numbers_are_listed_with_their_sources(run_folder: Path, run_text: str) -> None:
    facts = Result.load(run_folder).facts
    [table] = re.findall(r"<caption>Assumed.*?</table>", run_text, re.DOTALL)
    assert table.count("<td>assumed</td>") == facts.assumed_numbers
    source = facts.resolved["deployment"]["gpu"]["numbers"]["memory_bytes"]["source"]
    assert source in read(table).text()


def test_an_overloaded_run_is_not_shown_as_an_operating_point() -> None:
    run_of_it = made_up("ttft:500", Options(slots=1), requests=300, gap_ms=10, replicas=1)
    assert run_of_it.verdict.name == "overloaded"
    page = read(run_page(run_of_it).markup())
    assert "no operating point" in page.text()
    assert "SLO missed" in page.text()
    values = [cell for cell in page.texts["td"] if re.fullmatch(r"\(?[\d,.]+\)?", cell)]
    assert any(cell.startswith("(") for cell in values)


def test_whatever_a_name_holds_is_shown_as_text() -> None:
    page = read(run_page(made_up("ttft:500", name=NASTY)).markup())
    assert page.problems == []
    assert not page.of("script")
    assert "alert('x')" in page.texts["h1"][0]
    assert "\u0000" not in page.text()


def test_names_with_dollars_and_tags_reach_the_figures_as_text(tmp_path: Path) -> None:
    rows = "tp,note,verdict,output_throughput,p99_ttft_ms,p99_tpot_ms,median_tpot_ms\n"
    rows += "".join(
        f'{tp},"{note}",stable,{100 * tp},{9 * tp},{3 * tp},{2 * tp}\n'
        for tp in (1, 2)
        for note in ("$x_{1}$ <i>&", "</svg><script>1</script>")
    )
    (tmp_path / "table.csv").write_text(rows)
    page = read(load_page(tmp_path / "table.csv").markup())
    assert page.problems == []
    assert not page.of("script")
    assert any("$x_{1}$ <i>&" in text for text in page.texts["text"])


def test_a_sweep_names_every_point_and_the_way_to_them(sweep_text: str) -> None:
    [table] = re.findall(r"<caption>One row per point.*?</table>", sweep_text, re.DOTALL)
    assert table.count("<tr>") == 1 + 8
    text = read(sweep_text).text()
    assert "--vary 'rate_per_s=4,60' --vary 'max_num_seqs=8,64' --vary 'tp=1,2'" in text
    assert re.search(r"\d of 8 meet the SLO", text)


def test_a_point_that_does_not_fit_is_a_row_with_its_reason(tmp_path: Path) -> None:
    few = ["workload.num_requests=10", "model=llama-3.1-70b"]
    sweep(vary={"tp": [1, 4]}, out=tmp_path, settings=few)
    text = read(load_page(tmp_path).markup()).text()
    assert "1 does-not-fit" in text
    assert "tp 1 does not fit:" in text


def test_runs_that_are_hardly_runs_have_a_page(tmp_path: Path) -> None:
    all_at_once = ["workload.arrivals={process: all-at-once}", "workload.num_requests=3"]
    single_tokens = ["workload.num_requests=1", "workload.output_tokens=1"]
    for at, settings in enumerate((all_at_once, single_tokens)):
        folder = _saved(tmp_path / str(at), *settings)
        page = load_page(folder)
        assert read(page.markup()).problems == []
    nothing_served = made_up(None, Options(longest=0), requests=5)
    assert read(run_page(nothing_served).markup()).problems == []


def test_many_requests_stay_a_small_page() -> None:
    few, many = (made_up("ttft:500", Options(slots=8), requests=n, gap_ms=150) for n in (250, 1500))
    sizes = [len(run_page(one).markup().encode()) for one in (few, many)]
    assert sizes[1] < 1_000_000
    assert sizes[1] < 1.5 * sizes[0]
    assert "1,500 requests are drawn at" in run_page(many).markup()


def test_the_same_run_gives_the_same_bytes(run_folder: Path, run_text: str) -> None:
    assert load_page(run_folder).markup() == run_text


def test_figures_are_written_as_svg_and_png_and_always_the_same(
    run_page_of_it: Page, tmp_path: Path
) -> None:
    page = dataclasses.replace(run_page_of_it, sections=run_page_of_it.sections[-3:])
    first, second = (write_figures(page, tmp_path / name) for name in ("first", "second"))
    names = {f"{one.name}.{kind}" for one in page.figures() for kind in ("svg", "png")}
    assert {path.name for path in first} == names != set()
    for path, again in zip(first, second, strict=True):
        assert path.read_bytes() == again.read_bytes(), path.name
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG\r\n")
        else:
            ET.parse(path)
            assert "var(--" not in path.read_text()


WRONG: dict[str, str] = {
    "nothing": r"no such file or folder",
    "empty": r"a folder without run.json or summary.csv",
    "half": r"a sweep that has not ended",
    "torn": r"torn",
    "other.csv": r"no column 'verdict'",
    "words.csv": r"words.csv: .*could not convert",
    "changed": r"changed: got no ",
    "list.json": r"got a list",
    "other.json": r"JSON of another kind",
    "torn.json": r"torn.json",
    "damaged.json": r"damaged.json",
    "picture.png": r"a file of another kind",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_result_is_refused_in_one_line(
    name: str, run_folder: Path, tmp_path: Path
) -> None:
    for folder in ("empty", "half", "torn"):
        (tmp_path / folder).mkdir()
    (tmp_path / "half" / "summary.csv.partial").write_text("{}\n")
    (tmp_path / "torn" / "run.json").write_text((run_folder / "run.json").read_text()[:500])
    rows = "tp,verdict,output_throughput,p99_ttft_ms\n1,stable,7,many\n2,stable,8,9\n"
    (tmp_path / "words.csv").write_text(rows)
    shutil.copytree(run_folder, tmp_path / "changed")
    entry = json.loads((run_folder / "run.json").read_text())
    entry["facts"]["resolved"]["deployment"].pop("kv")
    (tmp_path / "changed" / "run.json").write_text(json.dumps(entry))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "other.json").write_text('{"a": 1}')
    (tmp_path / "torn.json").write_text('{"a": ')
    damaged = {"frontier": 3, "capacity": {}, "knee": [], "scenario": None, "unit": 1}
    (tmp_path / "damaged.json").write_text(json.dumps(damaged))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match=WRONG[name]) as caught:
        load_page(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_page_appears_whole_or_not_at_all(
    run_page_of_it: Page, run_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, path = run_page_of_it, tmp_path / "page.html"
    path.write_text("before")

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", broken)
        with pytest.raises(InputError, match="No space left"):
            write_page(page, path)
    assert path.read_text() == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]
    write_page(page, path)
    assert path.read_text() == run_text


def test_the_share_of_extrapolated_time_is_shown_where_a_profile_priced_the_steps() -> None:
    priced = made_up()
    shares = {"exact": 0.5, "interp": 0.25, "extrap": 0.125, "roofline": 0.0625, "host": 0.0625}
    profile = {"profile": "mine/here", "kind": "measured", "warnings": ["a table is <old>"]}
    meta = RunMeta(priced_from=profile | {"shares": shares})
    record = dataclasses.replace(priced.record, meta=meta)
    page = read(run_page(Result(None, record, facts=priced.facts)).markup())
    assert page.problems == []
    assert "12.5% of the simulated time is extrapolated, 6.2% is a roofline" in page.text()
    assert "a table is <old>" in page.text()
    [drawing] = [one for one in page.of("svg") if "stacked bar:" in str(one.get("aria-label"))]
    assert "12.5 % beyond the measured range" in str(drawing["aria-label"])
