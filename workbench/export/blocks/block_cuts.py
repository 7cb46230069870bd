"""The cuts of a task: which blocks may run at a helper, as `task.toml` names them by points."""

from collections.abc import Sequence
from itertools import combinations, pairwise

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_CUTS
from fleet_protocol.split_plan import Cut
from workbench.export.blocks.division import Division
from workbench.export.recipe.task_file import SplitSettings
from workbench.recipe_folder import TASK_FILE


def cuts_of(division: Division, settings: SplitSettings) -> list[Cut]:
    """Those that `settings` names; without any, one for every pair of points between which no block reads samples.

    Raises:
        ConfigurationError: there is none, or one can't be.
    """
    path = division.recipe.folder / TASK_FILE
    cuts = _named_cuts(division, settings) if settings.cuts else _every_cut(division)
    if not 1 <= len(cuts) <= MAX_CUTS:
        raise ConfigurationError(
            f"{path}: split.points give {len(cuts)} cuts, a task has 1 to MAX_CUTS ({MAX_CUTS}); name two points or"
            " more that a helper may work between, or write the cuts that devices need in [split.cuts]"
        )
    return cuts


def _every_cut(division: Division) -> list[Cut]:
    pairs = combinations(range(1, division.count), 2)
    return [Cut(f"{first}-{end}", [(first, end)]) for first, end in pairs if not _reading(division, [(first, end)])]


def _named_cuts(division: Division, settings: SplitSettings) -> list[Cut]:
    path = division.recipe.folder / TASK_FILE
    numbers = {point: number for number, point in enumerate(division.points, 1)}
    cuts = []
    for name, pairs in settings.cuts.items():
        unknown = next((point for pair in pairs for point in pair if point not in numbers), None)
        if unknown is not None:
            raise ConfigurationError(
                f"{path}: split.cuts.{name}: {unknown!r} is none of split.points, {', '.join(division.points)}"
            )
        ranges = [(numbers[first], numbers[end]) for first, end in pairs]
        ends = [end for pair in ranges for end in pair]
        if not ranges or any(end <= first for first, end in pairwise(ends)):
            raise ConfigurationError(
                f"{path}: split.cuts.{name}: {pairs} are no pairs of points from first to last in the order of"
                " split.points; write [[FROM, TO], ...], and each point once"
            )
        if reading := _reading(division, ranges):
            raise ConfigurationError(
                f"{path}: split.cuts.{name}: the block {division.name_of(reading[0])} reads samples, which no helper"
                " sees; leave it to the device"
            )
        cuts.append(Cut(name, ranges))
    return cuts


def _reading(division: Division, ranges: Sequence[tuple[int, int]]) -> list[int]:
    """The blocks of a helper that read a device's samples."""
    helpers = (block for first, end in ranges for block in range(first, end))
    return [block for block in helpers if block in division.flow.read_samples]
