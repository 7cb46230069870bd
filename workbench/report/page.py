"""A page by itself: the dashboard's style, its charts and uPlot inside, so that it needs no server and no network."""

import re
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable

DASHBOARD = files("broker_coordinator.dashboard") / "static"
OWN = files("workbench.report") / "static"
STYLES = (DASHBOARD / "uplot" / "uPlot.min.css", DASHBOARD / "style.css", OWN / "report.css")
LIBRARY = DASHBOARD / "uplot" / "uPlot.iife.min.js"
MODULES = (DASHBOARD / "dom.js", DASHBOARD / "charts.js", OWN / "report.js")
"""Each behind those that it imports: on the page they are one."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""The page can load nothing, whatever is in it."""


def whole_page(title: str, body: str) -> str:
    """The page with this content, which is HTML: the caller escapes what comes from elsewhere."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # An empty icon of its own, or a browser would ask the server for one.
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{_joined(STYLES)}</style>\n</head>\n<body>\n<main>\n{body}</main>\n"
        "<noscript><p>The charts of this page need JavaScript, which is inside it.</p></noscript>\n"
        f"<script>{_text(LIBRARY)}</script>\n"
        f'<script type="module">{_as_one(MODULES)}</script>\n</body>\n</html>\n'
    )


def _as_one(modules: tuple[Traversable, ...]) -> str:
    """Modules without what joins them."""
    text = re.sub(r"^import .*;$\n", "", _joined(modules), flags=re.MULTILINE)
    return re.sub(r"^export ", "", text, flags=re.MULTILINE)


def _joined(parts: tuple[Traversable, ...]) -> str:
    return "\n".join(map(_text, parts))


def _text(file: Traversable) -> str:
    return file.read_text(encoding="utf-8")
