"""What `task.toml` says about scales, or what follows where it says nothing, as the bundle's `Scaling`."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import msgspec

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_STATISTICS_COLUMNS
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from fleet_protocol.scaling import UNSCALED, Block, Scale, Scaling, columns_of, input_blocks, target_blocks

USUAL_MAGNITUDE: Final = 1.0
"""Inputs that are bounded by it are taken as they are: whoever bounds them so has scaled them."""

Range = Annotated[list[float], msgspec.Meta(min_length=2, max_length=2)]
"""Lowest and highest."""
Source = Literal["off", "ranges", "fleet"]


class ScalingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What inputs and targets are brought to before the model sees them (docs/scaling.md)."""

    inputs: Source | None = None
    """`fleet`: to mean 0 and deviation 1 over all devices' samples, of which each device sends the sums once. `ranges`:
    what lies within `input_ranges` to -1 to 1. `off`: as they are. Left out: `fleet` where `input.minimum` or
    `input.maximum` is beyond 1, else `off`."""
    targets: Source | None = None
    """The same for the numbers of label kind `regression`; predictions come out in their unit. Left out: `fleet`."""
    input_ranges: list[Range] = []
    """For `ranges`: lowest and highest of each value of a sample, or of all where inputs have several dimensions; left
    out, `input.minimum` and `input.maximum`."""
    target_ranges: list[Range] = []
    """For `ranges`: lowest and highest of each number to learn."""


def scaling_of(
    settings: ScalingSettings,
    inputs: Mapping[str, InputSchema],
    labels: Mapping[str, LabelSchema],
    name: str,
    *,
    has_backbone: bool,
) -> Scaling:
    """The task's scales; those of the fleet are still awaited.

    Raises:
        ConfigurationError: the settings contradict each other or the task; `name` is the file that they are from.
    """
    from_inputs, from_labels = input_blocks(inputs), target_blocks(labels)
    kinds = ", ".join(repr(label.kind) for label in labels.values())
    _check(settings, from_inputs, "" if from_labels else kinds, name, has_backbone=has_backbone)
    source = settings.inputs or ("off" if has_backbone else _usual_source(from_inputs))
    usual = [[block.lowest, block.highest] for block in from_inputs for _ in range(block.columns)]
    scaling = Scaling(
        _scale(source, columns_of(from_inputs), settings.input_ranges or usual, f"{name}: scaling.inputs"),
        _scale(settings.targets or "fleet", columns_of(from_labels), settings.target_ranges, f"{name}: scaling.targets")
        if from_labels
        else None,
    )
    if scaling.inputs is None and any(schema.missing == "mean" for schema in inputs.values()):
        raise ConfigurationError(
            f"{name}: input.missing = 'mean' needs scaled inputs; write [scaling] inputs = 'fleet', or leave it out and"
            " let the program that takes the samples fill in what is missing"
        )
    return UNSCALED if scaling == UNSCALED else scaling  # what is left out is told by identity


def _usual_source(blocks: Sequence[Block]) -> Source:
    widest = max((max(abs(block.lowest), abs(block.highest)) for block in blocks), default=0.0)
    return "off" if widest <= USUAL_MAGNITUDE else "fleet"


def _scale(source: Source, columns: int, ranges: list[Range], what: str) -> Scale | None:
    if source == "off":
        return None
    if source == "fleet":
        if columns > MAX_STATISTICS_COLUMNS:
            raise ConfigurationError(
                f"{what} = 'fleet' for {columns} columns; the limit is {MAX_STATISTICS_COLUMNS}: write 'ranges' or"
                " 'off'"
            )
        return Scale.awaiting(columns)
    if len(ranges) != columns:
        raise ConfigurationError(f"{what} = 'ranges' needs {columns} pairs of lowest and highest; {len(ranges)} given")
    for low, high in ranges:
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConfigurationError(f"{what}: the range {low:g} to {high:g} is no range; give lowest and highest")
    return Scale.of_ranges(ranges)


def _check(settings: ScalingSettings, inputs: Sequence[Block], unscaled: str, name: str, *, has_backbone: bool) -> None:
    """`unscaled` names the kinds of label where none has a scale."""
    if has_backbone and (settings.inputs or "off") != "off":
        raise ConfigurationError(
            f"{name}: scaling.inputs = {settings.inputs!r}, but a backbone takes inputs as it was trained on them;"
            " leave it out"
        )
    if not inputs and (settings.inputs or "off") != "off":
        raise ConfigurationError(
            f"{name}: scaling.inputs = {settings.inputs!r}, but whole numbers name something and have no scale; leave"
            " it out"
        )
    if unscaled and (settings.targets or "off") != "off":
        raise ConfigurationError(
            f"{name}: scaling.targets = {settings.targets!r} is for label.kind 'regression', this is {unscaled};"
            " leave it out"
        )
    for what, source, given in (
        ("input", settings.inputs, settings.input_ranges),
        ("target", settings.targets, settings.target_ranges),
    ):
        if given and source != "ranges":
            raise ConfigurationError(
                f"{name}: scaling.{what}_ranges needs scaling.{what}s = 'ranges'; write that, or leave the ranges out"
            )
