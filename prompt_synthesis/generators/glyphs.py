"""Letters and other signs, drawn with the fonts that this machine has, as the style says, or as they come."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription
from prompt_synthesis.generator import Generator, GeneratorError, Synthetic
from prompt_synthesis.prompt import Prompt
from prompt_synthesis.style import Style

FONT_FOLDER: Final = Path("/usr/share/fonts")
FONT_FILES: Final = ("*.ttf", "*.otf", "*.pfb")
FAMILIES: Final = ("serif", "sans", "mono")
WEIGHTS: Final = ("bold", "regular")
FITS: Final = ("both",)
"""Which sides of the picture a sign reaches: both; or, left out, the nearer ones."""
DRAWN_PIXELS: Final = 96
"""Height of a sign before it is brought to the size of a sample."""
MOST_CHARACTERS: Final = 12
NO_CHARACTER: Final = "\U0010fffe"
"""Which no font has: what is drawn of it is drawn of every sign that the font lacks."""
LARGEST_SIDE: Final = 1024

Picture = NDArray[np.float64]


class Glyphs:
    """Of a task whose samples are grey pictures of `shape`, with values from `darkest` to `brightest`."""

    def __init__(self, shape: Sequence[int], darkest: float, brightest: float, fonts: Sequence[Path]) -> None:
        self._shape = tuple(shape)
        self._range = darkest, brightest
        self._fonts = fonts
        self._sign = lru_cache(4096)(_drawn)

    def generate(self, prompts: Sequence[Prompt], count: int, seed: int) -> Synthetic:
        """As `Generator.generate`. Signs that a font lacks are drawn with others."""
        generator = np.random.default_rng(seed)
        pictures, labels, origins = [], [], []
        for prompt in prompts:
            style = Style(prompt.style)
            signs = [(font, self._sign(font, prompt.word)) for font in self._chosen(style)]
            usable = [(font, sign) for font, sign in signs if sign is not None]
            for _ in range(count if usable else 0):
                font, sign = usable[int(generator.integers(len(usable)))]
                pictures.append(self._one(sign, style, generator))
                labels.append(prompt.label)
                origins.append(font.stem)
        if not pictures:
            words = ", ".join(prompt.word[:MOST_CHARACTERS] for prompt in prompts)
            raise GeneratorError(f"no font here draws {words!r} in 1 to {MOST_CHARACTERS} characters")
        darkest, brightest = self._range
        inputs = darkest + (brightest - darkest) * np.stack(pictures)
        return Synthetic(inputs.astype(np.float32).reshape(-1, *self._shape), np.array(labels), origins)

    def _chosen(self, style: Style) -> Sequence[Path]:
        """The fonts of the style's family and weight; all, where there is none."""
        family, weight = style.name("font", FAMILIES), style.name("weight", WEIGHTS)
        chosen = [font for font in self._fonts if _is_of(font.stem.lower(), family, weight)]
        return chosen or self._fonts

    def _one(self, sign: Picture, style: Style, generator: np.random.Generator) -> Picture:
        """A sign, slanted, stretched, moved, blurred, and with noise on it: [H, W] from 0 to 1."""
        slant = style.around("slant", (-0.25, 0.25), 0.08, generator)
        size = style.around("size", (0.7, 1.0), 0.06, generator)
        fit = style.name("fit", FITS)
        picture = _fitted(sign, _sides(self._shape), slant, size, generator, is_stretched=fit == "both")
        noise = style.around("noise", (0.0, 0.08), 0.02, generator)
        return np.clip(picture + noise * generator.standard_normal(picture.shape), 0, 1)


def _is_of(name: str, family: str | None, weight: str | None) -> bool:
    kind = "mono" if "mono" in name or "courier" in name else "sans" if "sans" in name else "serif"
    heavy = "bold" if any(word in name for word in ("bold", "black", "heavy")) else "regular"
    return family in (None, kind) and weight in (None, heavy)


def _drawn(font: Path, word: str) -> Picture | None:
    """The word in that font, [DRAWN_PIXELS, W] from 0 to 1, cut out; None where the font lacks it."""
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - the extra `pictures` brings it

    if not 1 <= len(word) <= MOST_CHARACTERS or not word.isprintable():
        return None
    try:
        face = ImageFont.truetype(str(font), DRAWN_PIXELS)
        lacking = bytes(face.getmask(NO_CHARACTER))
        if any(bytes(face.getmask(sign)) == lacking for sign in word if not sign.isspace()):
            return None
        left, top, right, bottom = (round(side) for side in face.getbbox(word))
        picture = Image.new("L", (max(1, right - left), max(1, bottom - top)))
        ImageDraw.Draw(picture).text((-left, -top), word, font=face, fill=255)
    except (OSError, ValueError):
        return None
    pixels = np.asarray(picture, np.float64) / 255
    return pixels if pixels.max() > 0.5 else None


def _fitted(
    sign: Picture,
    sides: tuple[int, int],
    slant: float,
    size: float,
    generator: np.random.Generator,
    *,
    is_stretched: bool,
) -> Picture:
    """The sign in a picture with these sides: each pixel looks up where it comes from, between four of the sign."""
    height, width = sides
    stretch = size * generator.uniform(0.85, 1.15, 2)
    turn = generator.normal(0, 0.06)
    needed = np.array([sign.shape[0] / height, sign.shape[1] / width])
    scale = (needed if is_stretched else needed.max()) / stretch
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    rows += 0.5 - height / 2 + generator.normal(0, 0.03) * height
    columns += 0.5 - width / 2 + generator.normal(0, 0.03) * width
    from_rows = scale[0] * (rows + turn * columns) + sign.shape[0] / 2
    from_columns = scale[1] * (columns + (slant - turn) * rows) + sign.shape[1] / 2
    return _between(_softened(sign, float(scale.max())), from_rows, from_columns)


def _softened(sign: Picture, pixels: float) -> Picture:
    """The mean over about so many `pixels` each way, as a small picture has it."""
    half = max(0, round((pixels - 1) / 2))
    for axis in (0, 1):
        shifted = [np.roll(sign, shift, axis) for shift in range(-half, half + 1)]
        sign = np.mean(shifted, axis=0)
    return sign


def _between(sign: Picture, rows: Picture, columns: Picture) -> Picture:
    framed = np.pad(sign, 1)
    top = np.clip(rows + 0.5, 0, framed.shape[0] - 1.001)
    left = np.clip(columns + 0.5, 0, framed.shape[1] - 1.001)
    row, column = top.astype(int), left.astype(int)
    down, right = top - row, left - column
    upper = framed[row, column] * (1 - right) + framed[row, column + 1] * right
    lower = framed[row + 1, column] * (1 - right) + framed[row + 1, column + 1] * right
    found: Picture = upper * (1 - down) + lower * down
    return found


def _sides(shape: Sequence[int]) -> tuple[int, int]:
    """Height and width of samples of that shape: the last two numbers, or a square of all values."""
    sides = [side for side in shape if side > 1]
    if len(sides) == 1:
        side = round(sides[0] ** 0.5)
        return side, side
    return sides[-2], sides[-1]


def make(task: TaskDescription, _argument: str) -> Generator:
    """For a task whose samples are grey pictures.

    Raises:
        ConfigurationError: Pillow or fonts are missing, or the samples are no grey pictures.
    """
    try:
        import PIL  # noqa: F401, PLC0415 - the extra `pictures` brings it
    except ModuleNotFoundError:
        raise ConfigurationError("the generator glyphs needs Pillow: pip install 'edgeflock[pictures]'") from None
    sides = [side for side in task.input.shape if side > 1]
    is_square = len(sides) == 1 and round(sides[0] ** 0.5) ** 2 == sides[0]
    if task.inputs or not (len(sides) == 2 or is_square) or task.input.size > LARGEST_SIDE**2:
        raise ConfigurationError(
            f"the generator glyphs draws grey pictures of at most {LARGEST_SIDE}x{LARGEST_SIDE}; {task.task} takes"
            f" {task.input.shape}; name another generator"
        )
    fonts = sorted(font for pattern in FONT_FILES for font in FONT_FOLDER.rglob(pattern))
    if not fonts:
        raise ConfigurationError(
            f"the generator glyphs finds no font in {FONT_FOLDER}; install some: apt-get install fonts-dejavu"
            " fonts-liberation"
        )
    return Glyphs(task.input.shape, task.input.minimum, task.input.maximum, fonts)
