"""Draws `docs/report.png`: the report of a demo run as a browser shows it, whole.

    edgeflock demo --seed 1 --out demo-run
    python -m benchmarks.report_picture demo-run/report.html docs/report.png

Needs Chromium, headless; `--browser` names it where it is not `chromium`.
"""

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

WIDTH = 1100
"""Pixels: the page's widest column and its margins."""
HEIGHT_TO_MEASURE = 800
TIMEOUT_SECONDS = 60
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files")
FRAME = """<!doctype html><title>0</title><body style="margin:0"><iframe src="{page}" width="{width}" height="{height}"
 style="border:0" onload="document.title=contentDocument.documentElement.scrollHeight"></iframe>"""


def page_height(browser: str, page: Path) -> int:
    """The height of the whole page in pixels, when it is `WIDTH` wide."""
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.html"
        frame.write_text(FRAME.format(page=page.as_uri(), width=WIDTH, height=HEIGHT_TO_MEASURE))
        shown = _run(browser, "--dump-dom", frame.as_uri())
    found = re.search(r"<title>(\d+)</title>", shown)
    if found is None or found[1] == "0":
        raise SystemExit(f"{browser} does not say how high {page} is; is it the report of a demo?")
    return int(found[1])


def draw(browser: str, page: Path, picture: Path) -> None:
    """Write the whole page as a PNG file."""
    height = page_height(browser, page)
    _run(browser, f"--screenshot={picture.resolve()}", f"--window-size={WIDTH},{height}", page.as_uri())


def _run(browser: str, *arguments: str) -> str:
    try:
        run = subprocess.run(
            [browser, *OPTIONS, *arguments], check=True, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SystemExit(f"{browser}: {error}; install Chromium, or name it with --browser") from error
    return run.stdout


def main() -> None:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, metavar="REPORT")
    parser.add_argument("picture", type=Path, metavar="PNG")
    parser.add_argument("--browser", default="chromium", metavar="PROGRAM", help="Chromium's name or path (chromium)")
    options = parser.parse_args()
    draw(options.browser, options.page.resolve(), options.picture)


if __name__ == "__main__":
    main()
