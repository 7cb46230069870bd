"""A folder of pictures that a model draws: a PNG file each, and a grid of some of each class."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bundle_runtime.drawing import Drawer
from bundle_runtime.pictures import Pixels, grid, pixels_of, png
from fleet_host.new_files import remedy_for
from fleet_protocol.errors import ConfigurationError
from workbench.drawing.model_at_hand import ModelAtHand

GRID_FILE: Final = "grid.png"
GRID_COLUMNS: Final = 16
GRID_VALUES: Final = 1 << 24
"""Of the whole grid at most: what a viewer opens. More classes, or larger pictures, and it has fewer of them."""


def write_pictures(model: ModelAtHand, folder: Path, labels: Sequence[int] | None, count: int, seed: int) -> int:
    """Draw `count` pictures of each of the `labels`, of all classes where None, into a new folder; returns how many.

    They are called `CLASS-NUMBER.png`. What can't be written whole is not there.

    Raises:
        ConfigurationError: the task draws nothing or no such class, the weights draw what is no number, or the folder
            exists or can't be written.
    """
    drawer = Drawer(model.bundle, model.weights)
    chosen = list(drawer.classes if labels is None else labels)
    drawer.check_class(*chosen)
    try:
        folder.mkdir(parents=True)
        try:
            _write(drawer, folder, chosen, count, seed)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        raise ConfigurationError(f"{folder}: {error.strerror}; {remedy_for(error, 'name a new folder')}") from error
    return len(chosen) * count


def _write(drawer: Drawer, folder: Path, labels: Sequence[int], count: int, seed: int) -> None:
    shown: list[list[Pixels]] = []
    most = max(1, GRID_VALUES // drawer.picture.size)
    columns = max(1, min(GRID_COLUMNS, most // len(labels)))
    for label in labels:
        row: list[Pixels] = []
        for number, values in enumerate(drawer.draw(label, count, seed)):
            pixels = pixels_of(values, drawer.picture)
            (folder / f"{label:03}-{number:05}.png").write_bytes(png(pixels))
            if number < columns and len(shown) < most:
                row.append(pixels)
        shown += [row] if row else []
    (folder / GRID_FILE).write_bytes(png(grid(shown)))
