"""Pages in headless Chromium: no request leaves, nothing complains, nothing sticks out.

Needs Debian's chromium and Playwright's Python package; screenshots go to
``SIMSERVE_SCREENSHOTS`` if that names a folder.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simserve.inputs.scenario import load_scenario
from simserve.planning.run_scenario import run
from simserve.planning.sweep import sweep
from simserve.report.gantt import gantt_page
from simserve.report.html import load_page, write_page

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
VIEWS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1180, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1180, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
    "phone-dark": {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"},
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    few = ["workload.num_requests=120"]
    result = run(load_scenario(settings=few, slo="ttft:500 tpot_p95:50"))
    result.save(folder / "run")
    vary: dict[str, Any] = {"rate_per_s": [4, 60], "max_num_seqs": [8, 64]}
    sweep(vary=vary, out=folder / "sweep", settings=["workload.num_requests=40"])
    made = {
        "run": load_page(folder / "run"),
        "sweep": load_page(folder / "sweep"),
        "gantt": gantt_page(result),
    }
    for name, page in made.items():
        write_page(page, folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in made}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here")
    if not Path(CHROMIUM).exists():
        pytest.skip("no chromium here")
    with playwright.sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield one
        one.close()


@pytest.mark.parametrize("name", ["run", "sweep", "gantt"])
def test_a_page_asks_for_nothing_and_fits_every_width(
    name: str, pages: dict[str, Path], browser: Any, record_property: Any
) -> None:
    shots = os.environ.get("SIMSERVE_SCREENSHOTS")
    for view, options in VIEWS.items():
        context = browser.new_context(**options)
        tab = context.new_page()
        asked: list[str] = []
        complaints: list[str] = []
        tab.on("request", lambda request, asked=asked: asked.append(request.url))
        tab.on("console", lambda said, complaints=complaints: complaints.append(said.text))
        tab.on("pageerror", lambda error, complaints=complaints: complaints.append(str(error)))
        begun_s = time.perf_counter()
        tab.goto(pages[name].as_uri(), wait_until="load")
        record_property(f"load_s_{name}_{view}", round(time.perf_counter() - begun_s, 3))
        assert asked == [pages[name].as_uri()]  # the page itself, and nothing else
        assert complaints == []
        width = options["viewport"]["width"]
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, view
        dark = options["color_scheme"] == "dark"
        paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        red = int(paper.removeprefix("rgb(").split(",")[0])
        assert (red < 64) == dark
        lines = (
            "[...document.querySelectorAll('svg.chart path')].map(e => getComputedStyle(e).stroke)"
        )
        accent = "rgb(126, 168, 255)" if dark else "rgb(36, 88, 197)"
        filled = lines.replace(".stroke", ".fill")
        assert accent in tab.evaluate(lines) or accent in tab.evaluate(filled)
        if shots:
            tab.screenshot(path=f"{shots}/{name}-{view}.png", full_page=True)
        context.close()


def test_a_page_prints_on_paper_without_cutting_anything(
    pages: dict[str, Path], browser: Any
) -> None:
    context = browser.new_context(color_scheme="dark", viewport={"width": 794, "height": 1123})
    tab = context.new_page()
    tab.goto(pages["run"].as_uri(), wait_until="load")
    tab.emulate_media(media="print")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate("document.documentElement.scrollWidth") <= 794
    pdf = tab.pdf(format="A4", print_background=True)
    assert pdf.startswith(b"%PDF")
    context.close()
