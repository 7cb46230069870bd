"""A recipe's module divided at its points: how many blocks, and which of them each parameter is in."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.parameter import Parameter
from workbench.export.blocks.dataflow import Dataflow, flow_of
from workbench.export.blocks.points import caught, joined_runs
from workbench.export.layers.exportable_layers import exportable_layers
from workbench.export.layers.layer_context import LayerContext
from workbench.export.recipe.probe import probe_inputs
from workbench.export.recipe.recipe import Recipe
from workbench.recipe_folder import TASK_FILE

PROBE_ROWS = 3


@dataclass(frozen=True)
class Division:
    """`points` in the order of the forward pass: block K ends with the K-th, the last block with the loss.

    `shapes` are what blocks but the last give of one sample, `runs` how often each point runs in a pass; if more than
    once, a shape has them as its first axis. `flow` says what each block reads.
    """

    recipe: Recipe
    points: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    runs: tuple[int, ...]
    flow: Dataflow

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return len(self.points) + 1

    @property
    def last(self) -> int:
        """The number of the last block."""
        return len(self.points)

    @cached_property
    def parameters(self) -> list[Parameter]:
        """Those of the recipe, each with its block."""
        return [
            Parameter(each.name, each.shape, each.trainable, self.flow.block_of(each.name, self.last))
            for each in self.recipe.parameters
        ]

    def parameters_of(self, block: int) -> list[Parameter]:
        """Those of a block: its trainable parameters, then its buffers."""
        return [each for each in self.parameters if each.block == block]

    def part_of(self, block: int) -> str:
        """The part that the parameters of a block are in, which trains in turn with others; empty without one.

        Raises:
            ConfigurationError: they are in two.
        """
        trained = [each.name for each in self.parameters_of(block) if each.trainable]
        parts = {
            part: name for part in self.recipe.task.parts for name in trained if name in self.recipe.names_in(part)
        }
        if len(parts) > 1:
            (one, first), (other, second), *_ = parts.items()
            raise wrong_split(
                self.recipe,
                f"the block {self.name_of(block)} has {first!r} of the part {one} and {second!r} of {other}, which"
                " train in turn; name a point where the one ends and the other begins",
            )
        return next(iter(parts), "")

    def passes_on(self, block: int) -> bool:
        """Whether gradients go through it, in another part's turn, to what trains then."""
        own = self.part_of(block)
        return bool(own) and any(self.part_of(before) not in ("", own) for before in range(block))

    def name_of(self, block: int) -> str:
        """For people: the points around a block."""
        start = f"behind {self.points[block - 1]!r}" if block else ""
        end = f"up to {self.points[block]!r}" if block < self.last else ""
        return f"{start} {end}".strip()


def divide(recipe: Recipe, points: Sequence[str]) -> Division:
    """The recipe's module, or a head's, divided at these submodules.

    Raises:
        ConfigurationError: it can't be divided there, and what to write instead.
    """
    _check_names(recipe, points)
    outputs = {point: _outputs_of(recipe, point) for point in points}
    joined = [joined_runs(each) for each in outputs.values()]
    runs = tuple(len(each) for each in outputs.values())
    flow = flow_of(recipe, points)
    division = Division(recipe, tuple(points), tuple(tuple(each.shape[1:]) for each in joined), runs, flow)
    _check_flow(division)
    return division


def wrong_split(recipe: Recipe, what: str) -> ConfigurationError:
    """What is wrong with the recipe's `split`, and what to write instead."""
    return ConfigurationError(f"{recipe.folder / TASK_FILE}: split: {what}")


def _outputs_of(recipe: Recipe, point: str) -> list[Tensor]:
    """What a point gives in a pass, f32[PROBE_ROWS, ...] each.

    Raises:
        ConfigurationError: no float32 tensor with a row for each sample, or not one of the same shape each time.
    """
    known = ", ".join(repr(name) for name, _ in recipe.module.named_children())
    try:
        recipe.module.get_submodule(point)
    except AttributeError as error:
        raise _wrong_point(recipe, point, f"is no submodule; there is {known or 'none'}, and what is inside") from error
    recipe.set_training(False)
    with torch.no_grad(), exportable_layers(recipe.module, LayerContext(seed=0)), caught(recipe.module, point) as found:
        recipe.module(probe_inputs(recipe.task, PROBE_ROWS))
    if not found:
        raise _wrong_point(recipe, point, "never runs; name a submodule that forward() calls")
    for output in found:
        is_float = isinstance(output, Tensor) and output.dtype == torch.float32
        if not is_float or output.dim() < 2 or output.shape[0] != PROBE_ROWS or output.shape != found[0].shape:
            raise _wrong_point(
                recipe,
                point,
                f"gives {' and then '.join(map(_described, found))} for {PROBE_ROWS} samples; name one that gives one"
                " float32 tensor with a row for each sample, of the same shape each time that it runs",
            )
    return found


def _described(output: object) -> str:
    return f"{output.dtype} {list(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"


def _check_names(recipe: Recipe, points: Sequence[str]) -> None:
    twice = next((point for point in points if points.count(point) > 1), None)
    if twice is not None:
        raise _wrong_point(recipe, twice, "stands there twice; name each submodule once")


def _check_flow(division: Division) -> None:
    """Raise `ConfigurationError` unless each block takes what the one in front of it gives, and nothing else."""
    recipe, points, flow = division.recipe, division.points, division.flow
    for crossing in flow.crossings:
        if crossing.target < crossing.source:
            first, second = points[crossing.source - 1], points[crossing.target]
            raise _wrong_point(recipe, first, f"runs in front of {second!r}; name them in the order of forward()")
    for name, blocks in flow.needed_by.items():
        if len(blocks) > 1:
            between = points[min(blocks)]
            raise _wrong_point(
                recipe,
                between,
                f"stands between two uses of {name!r}, and a parameter is in one block; name a point in front of both"
                " or behind both, or give each its own",
            )
    for crossing in flow.crossings:
        made = f" made with {crossing.made_with!r}" if crossing.made_with else ""
        raise _wrong_point(
            recipe,
            points[crossing.source],
            f"is not the only way: a value{made}, such as of a skip connection, goes around it; name one that every"
            " path goes through",
        )
    for block in range(1, division.count):
        if block not in flow.build_on:
            raise _wrong_point(
                recipe, points[block - 1], "gives what nothing behind it takes; name one on the way to the loss"
            )
    if not any(each.trainable for each in division.parameters_of(0)):
        raise _wrong_point(
            recipe,
            points[0],
            "comes before any parameter that trains: a helper would see samples through a function that everybody"
            " knows; name one behind a layer that trains",
        )


def _wrong_point(recipe: Recipe, point: str, what: str) -> ConfigurationError:
    return wrong_split(recipe, f"the point {point!r} {what}")
