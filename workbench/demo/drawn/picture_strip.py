"""Pictures on a terminal: two rows of pixels to a line, by half blocks."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.style import Style
from rich.text import Text

from bundle_runtime.pictures import Pixels
from workbench.demo.drawn.gallery import DrawnGroup

UPPER_HALF: Final = "▀"
BLOCKS: Final = " ▄▀█"
"""Without colours: both dark, the lower bright, the upper bright, both."""
BRIGHT: Final = 128
GAP: Final = 1
BETWEEN_GROUPS: Final = 2


def strip_lines(groups: Sequence[DrawnGroup], columns: int, rows: int, *, in_colour: bool) -> Iterator[Text]:
    """A line that names the groups, and `rows` lines of their pictures, side by side in so many columns of a terminal:
    as many classes of each group as there is room for, at each version the next ones.
    """
    side = 2 * rows
    width = (columns - BETWEEN_GROUPS * (len(groups) - 1)) // max(1, len(groups))
    count = max(1, (width + GAP) // (side + GAP))
    blocks = [(_title(group), _shown(group, count, side)) for group in groups]
    between = " " * BETWEEN_GROUPS
    yield Text(between.join(title[:width].ljust(width) for title, _ in blocks)[:columns], style="bold")
    for row in range(rows):
        line = Text(between).join(_line(pixels, row, width, in_colour=in_colour) for _, pixels in blocks)
        line.truncate(columns)
        yield line


def smaller(picture: Pixels, side: int) -> NDArray[np.uint8]:
    """A grey picture [side, side]: the mean of the pixels that fall on each."""
    grey = picture if picture.ndim == 2 else picture.mean(axis=2)
    across, down = (_shares(length, side) for length in (grey.shape[1], grey.shape[0]))
    return np.clip(np.rint(down @ grey @ across.T), 0, 255).astype(np.uint8)


def _shares(length: int, side: int) -> NDArray[np.float64]:
    """f64[side, length]: how much of each of `length` pixels is in each of `side`."""
    edges = np.linspace(0, length, side + 1)
    first, last = edges[:-1, None], edges[1:, None]
    pixels = np.arange(length)
    overlap = np.clip(np.minimum(last, pixels + 1) - np.maximum(first, pixels), 0, None)
    return np.array(overlap / overlap.sum(axis=1, keepdims=True))


def _title(group: DrawnGroup) -> str:
    return f"{group.title}: {', '.join(group.devices)}"


def _shown(group: DrawnGroup, count: int, side: int) -> NDArray[np.uint8]:
    """The pictures of `count` classes beside one another, u8[side, columns]."""
    classes = len(group.pictures)
    if not classes:
        return np.zeros((side, side), np.uint8)
    count = min(count, classes)
    chosen = [group.pictures[(group.version * count + place) % classes][0] for place in range(count)]
    return np.concatenate([np.pad(smaller(each, side), ((0, 0), (0, GAP))) for each in chosen], axis=1)[:, :-GAP]


def _line(pixels: NDArray[np.uint8], row: int, width: int, *, in_colour: bool) -> Text:
    upper, lower = pixels[2 * row, :width], pixels[2 * row + 1, :width]
    line = Text()
    for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
        if in_colour:
            line.append(UPPER_HALF, Style(color=_grey(above), bgcolor=_grey(below)))
        else:
            line.append(BLOCKS[2 * (above >= BRIGHT) + (below >= BRIGHT)])
    line.append(" " * (width - len(line)))
    return line


def _grey(value: int) -> Color:
    return Color.from_rgb(value, value, value)
