"""A demo's report in Debian's Chromium: its charts are drawn, everybody can read it, and it loads nothing."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.support.browser import Looker, chromium
from tests.unit.test_report import RUNS
from workbench.report.html import render_report

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.mark.parametrize("name", ["finished", "64 devices", "one point", "stopped before the first version"])
def test_report_is_drawn_readable_and_alone(tmp_path: Path, browser: Browser, name: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(render_report(RUNS[name]))
    for scheme, width in product(("light", "dark"), (1280, 360)):
        looker = Looker(browser, file.as_uri(), color_scheme=scheme, viewport={"width": width, "height": 800})
        charts = 3 if RUNS[name].accuracy else 0
        assert looker.page.locator("canvas").count() == charts
        for summary in looker.page.locator("summary").all():
            summary.click()
        assert looker.barriers() == [], (scheme, width)
        assert looker.page.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls sideways"
        assert looker.strangers() == []
        assert looker.complaints == []


def test_bars_are_as_high_as_their_values(tmp_path: Path, browser: Browser) -> None:
    """By the pixels: the chart of staleness has 2, 1, 0, 0, 1 updates."""
    file = tmp_path / "report.html"
    file.write_text(render_report(RUNS["finished"]))
    looker = Looker(browser, file.as_uri(), color_scheme="light", viewport={"width": 1280, "height": 800})
    heights = looker.page.locator("canvas").nth(2).evaluate(BAR_HEIGHTS)
    assert heights[0] == pytest.approx(2 * heights[1], rel=0.05)
    assert heights[1] == pytest.approx(heights[4], rel=0.05)
    assert max(heights[2:4]) <= LINE_PIXELS


LINE_PIXELS = 2
"""Of the edge of a bar without height."""
BAR_HEIGHTS = """canvas => {
  const { width, height } = canvas, pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const left = 80 * devicePixelRatio, pitch = (width - left - 8) / 5;
  return [0, 1, 2, 3, 4].map((bar) => {
    const x = Math.round(left + (bar + 0.5) * pitch);
    let filled = 0;
    for (let y = 0; y < height; y += 1) {
      const at = 4 * (y * width + x);
      if (pixels[at + 3] > 200 && pixels[at] === 11 && pixels[at + 1] === 92 && pixels[at + 2] === 138) filled += 1;
    }
    return filled;
  });
}"""
