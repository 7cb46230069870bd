"""Which activation tells devices apart: the mean of a block's output over a device's samples (docs/clusters.md)."""

import math
from typing import Final

from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_ACTIVATION_VALUES
from fleet_protocol.split_plan import SplitPlan, is_helpers

LEAST_ROWS: Final = 8
"""Different samples behind a mean; one of fewer says more of these samples than of their kind."""


def activation_block(plan: ClusterPlan, split: SplitPlan) -> int:
    """The block whose output is `activations`, of a plan that has them."""
    return [block.point for block in split.blocks].index(plan.activations)


def activation_shape(plan: ClusterPlan, split: SplitPlan) -> list[int]:
    """Of the output of one call on one sample, [channels, ...space], of a plan that has `activations`."""
    shape = split.blocks[activation_block(plan, split)].output_shape
    return list(shape if plan.call is None else shape[1:])


def summary_values(plan: ClusterPlan, split: SplitPlan) -> int:
    """How many values a mean has: all that the block gives or, where these are too many, one for each channel.

    Behind a batch normalisation the means of channels are nearly the same for any samples.
    """
    shape = activation_shape(plan, split)
    every = math.prod(shape)
    return every if every <= MAX_ACTIVATION_VALUES else shape[0]


def check_activations(plan: ClusterPlan, split: SplitPlan | None, name: str) -> None:
    """Check where the activation of `plan` is taken.

    Raises:
        ConfigurationError: the task has no such point, or a cut leaves it to devices, or it has no such call.
    """
    if not plan.activations:
        if plan.found_by is None and plan != ClusterPlan(plan.most, plan.parameters):
            raise ConfigurationError(
                f"{name}: clusters.call and clusters.every say how clusters are found by clusters.activations, which is"
                " missing; name a point of [split] there, or leave them out"
            )
        return
    if split is None:
        raise ConfigurationError(
            f"{name}: clusters.activations: a helper of [split] sees them, and the task has none; write one, or leave"
            " clusters.activations out and assign devices by hand"
        )
    points = [block.point for block in split.blocks[:-1]]
    if plan.activations not in points:
        raise ConfigurationError(
            f"{name}: clusters.activations: {plan.activations!r} is no point of [split]; there are {', '.join(points)}"
        )
    block = activation_block(plan, split)
    if without := [cut.name for cut in split.cuts if not is_helpers(cut, block)]:
        raise ConfigurationError(
            f"{name}: clusters.activations: the cut {without[0]!r} leaves {plan.activations!r} to the device, where no"
            " helper sees it; name a point that every cut leaves to helpers"
        )
    _check_shape(plan, split.blocks[block].output_shape, name)


def _check_shape(plan: ClusterPlan, shape: list[int], name: str) -> None:
    if plan.call is not None and (len(shape) < 2 or plan.call >= shape[0]):
        calls = shape[0] if len(shape) > 1 else 0
        raise ConfigurationError(
            f"{name}: clusters.call = {plan.call}: {plan.activations!r} gives {shape} for a sample, whose first axis"
            f" has {calls} calls, counted from 0; leave clusters.call out where the first axis is of channels"
        )
    values = shape[0] if plan.call is None else shape[1]
    if values > MAX_ACTIVATION_VALUES:
        raise ConfigurationError(
            f"{name}: clusters.activations: {plan.activations!r} has {values} channels, more than MAX_ACTIVATION_VALUES"
            f" ({MAX_ACTIVATION_VALUES}); name a point with fewer"
        )
