"""A folder of what each version draws, with a page that shows the newest in a browser and renews itself."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Final

import numpy as np

from bundle_runtime.pictures import Pixels, grid, png
from fleet_host.new_files import remedy_for
from workbench.demo.drawn.gallery import DrawnGroup
from workbench.report.history import DrawnPictures, DrawnVariety

PAGE: Final = "index.html"
RENEWED_SECONDS: Final = 3
MOST_FORMED: Final = 12
"""Rows of a picture of how drawings form: of more versions, some are left out."""
ENLARGED: Final = 2
"""Screen pixels across and down for each of a picture's."""
STYLE: Final = """body { font: 16px/1.5 system-ui, sans-serif; margin: 24px; background: #101418; color: #e7eaed; }
section { display: inline-block; vertical-align: top; margin: 0 32px 24px 0; } h1 { font-size: 22px; }
h2 { font-size: 18px; margin: 0; } p { margin: 0 0 8px; color: #9aa5b1; } img { image-rendering: pixelated; }"""


class PictureFolder:
    """Written while a fleet runs; what can't be written is said once through `announce`, and the run goes on."""

    def __init__(self, folder: Path, announce: Callable[[str], None]) -> None:
        self._folder = folder
        self._announce = announce
        self._is_failing = False

    @property
    def page(self) -> Path:
        """What to open in a browser."""
        return self._folder / PAGE

    def show(self, groups: Sequence[DrawnGroup]) -> None:
        """Write a version's pictures, and the page of them."""
        try:
            self._folder.mkdir(exist_ok=True)
            sources = {_source(group): grid_png(group) for group in groups if group.pictures}
            for name, content in sources.items():
                (self._folder / name).write_bytes(content)
            _replace(self.page, _page(groups))
        except OSError as error:
            if not self._is_failing:
                remedy = remedy_for(error, "see who may write there")
                self._announce(f"pictures are not written into {self._folder}: {error.strerror}; {remedy}")
            self._is_failing = True
        else:
            self._is_failing = False


def grid_png(group: DrawnGroup) -> bytes:
    """A PNG file: a column for each class, of all its pictures."""
    return png(_enlarged(grid(list(zip(*group.pictures, strict=True)))))


def formed_png(group: DrawnGroup) -> tuple[bytes, list[int]]:
    """A PNG file with a column for each class and a row for each of some versions; and which these are."""
    numbers = spread(list(group.formed), MOST_FORMED)
    return png(_enlarged(grid([group.formed[number] for number in numbers]))), numbers


def drawn_pictures(group: DrawnGroup) -> DrawnPictures:
    """What the report shows of a group."""
    grid_file = grid_png(group) if group.pictures else b""
    formed, numbers = formed_png(group) if group.formed else (b"", [])
    compared = group.narrowing
    variety = DrawnVariety(compared.variety, compared.greatest, compared.greatest_in, compared.is_narrow)
    return DrawnPictures(group.title, list(group.devices), group.version, grid_file, formed, numbers, variety)


def spread(numbers: Sequence[int], most: int) -> list[int]:
    """At most so many of them, evenly over all, with the first and the last."""
    places = np.unique(np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int))
    return [numbers[place] for place in places]


def _enlarged(pixels: Pixels) -> Pixels:
    return pixels.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)


def _source(group: DrawnGroup) -> str:
    return f"version-{group.version:05}-cluster-{group.cluster}.png"


def _page(groups: Sequence[DrawnGroup]) -> str:
    version = max((group.version for group in groups), default=0)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh"'
        f' content="{RENEWED_SECONDS}"><title>version {version}</title><style>{STYLE}</style></head><body>\n'
        f"<h1>What version {version} draws</h1>\n{''.join(map(_section, groups))}</body></html>\n"
    )


def _section(group: DrawnGroup) -> str:
    image = f'<img src="{_source(group)}" alt="">' if group.pictures else "<p>nothing that is a finite number</p>"
    return f"<section><h2>{group.title}</h2><p>{escape(', '.join(group.devices))}</p>{image}</section>\n"


def _replace(path: Path, text: str) -> None:
    """A browser that looks meanwhile sees the page from before."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
