"""The documentation as a site: a strict build, in which no link leads nowhere, and which asks nothing of others."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "packaging/site"
FETCHED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=\"?(https?:[^\"\s>]+)")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Builds a site of gathered documents in a folder of its own, and gives the finished process and the site."""

    def built(name, change=lambda source: None):
        folder = tmp_path_factory.mktemp(name)
        source, site = folder / "source", folder / "site"
        subprocess.run([sys.executable, SITE / "gather.py", source], check=True)
        change(source)
        configuration = folder / "mkdocs.yml"
        configuration.write_text(
            (SITE / "mkdocs.yml")
            .read_text()
            .replace("../../build/site-source", str(source))
            .replace("../../build/site", str(site))
        )
        done = subprocess.run(
            [sys.executable, "-m", "mkdocs", "build", "--config-file", configuration],
            env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done, site

    return built


def test_site_is_whole_and_fetches_nothing_from_elsewhere(build):
    done, site = build("whole")

    assert done.returncode == 0, done.stderr
    pages = list(site.rglob("*.html"))
    assert site / "index.html" in pages and len(pages) > 100
    assert {found for page in pages for found in FETCHED.findall(page.read_text())} == set()
    listed = (site / "docs/decisions/index.html").read_text()
    assert all(f"{path.stem}.html" in listed for path in (ROOT / "docs/decisions").glob("*.md"))


def test_anchor_that_is_not_there_and_page_without_a_place_stop_the_build(build):
    def change(source):
        (source / "docs/unlisted.md").write_text("# Unlisted\n\n[nowhere](privacy.md#not-a-heading)\n")

    done, _ = build("broken", change)

    assert done.returncode != 0
    assert "docs/unlisted.md" in done.stderr and "#not-a-heading" in done.stderr
