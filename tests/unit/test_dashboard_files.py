"""The dashboard's files: whole, of this server alone, and without a way for text to become HTML."""

import hashlib
import re
from pathlib import Path

import pytest

STATIC = Path(__file__).parents[2] / "broker_coordinator" / "dashboard" / "static"
OWN = [path for path in STATIC.rglob("*") if path.suffix in {".js", ".html", ".css"} and path.parent.name != "uplot"]
WRITES_HTML = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "setHTML")


def test_chart_library_is_the_one_that_was_pinned() -> None:
    lines = (STATIC / "uplot" / "SHA256SUMS").read_text().splitlines()
    pinned = {name: digest for digest, name in (line.split() for line in lines)}
    assert set(pinned) == {"uPlot.iife.min.js", "uPlot.min.css", "LICENSE"}
    for name, digest in pinned.items():
        assert hashlib.sha256((STATIC / "uplot" / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_page_parses_no_html_and_asks_no_other_server(path) -> None:
    text = path.read_text()
    assert [word for word in WRITES_HTML if word in text] == []
    assert re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", text) == []


def test_page_has_no_inline_script_or_style() -> None:
    page = (STATIC / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", page) == []


def test_modules_import_what_is_there() -> None:
    for path in STATIC.rglob("*.js"):
        for name in re.findall(r'^import .* from "(.+)";', path.read_text(), re.MULTILINE):
            assert (path.parent / name).is_file(), f"{path.name} imports {name}"
