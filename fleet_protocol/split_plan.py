"""How a task's model divides into blocks, and which of them a helper may run for a device (docs/split-learning.md)."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Final, Literal

import msgspec

from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.configuration import Name, PositiveInt
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_BLOCKS, MAX_CUTS, MAX_ROWS_PER_STEP, MAX_SESSION_MESSAGE_BYTES, MIB
from fleet_protocol.without_effect import UsedBy, check_used

NOT_DIVIDED: Final[Mapping[str, str]] = {
    "fedasync": "it mixes each update in alike, and a helper's stands for the rounds of many devices",
    "posterior": "a device's factor is of the whole model, and it learns only of the blocks that it runs",
    "ef21": "a device's estimate is of the whole model, and it learns only of the blocks that it runs",
}
"""Strategies that average no blocks by who held them, and why."""

WireFormat = Literal["float32", "float16", "int8", "int4"]
BITS: Final[Mapping[WireFormat, int]] = {"float32": 32, "float16": 16, "int8": 8, "int4": 4}
"""Of a value on its way, without what goes with many of them, such as scales."""
GradientSelection = Literal["dense", "top_k", "random_top_k"]

Place = Annotated[int, msgspec.Meta(ge=0, le=MAX_BLOCKS)]
Bytes = Annotated[int, msgspec.Meta(ge=0)]
Magnitude = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


def forward_file(block: int) -> str:
    """The graph of a block's forward pass; every block but the last has one."""
    return f"block_{block}_forward.onnx"


def backward_file(block: int) -> str:
    """The graph that takes the gradient through a block, and updates it; every block but the last has one."""
    return f"block_{block}_backward.onnx"


def passing_file(block: int) -> str:
    """The graph that takes the gradient through a block without an update: of blocks behind such as train in another
    turn. Bundles of older exports have none.
    """
    return f"block_{block}_passing.onnx"


def last_file(block: int, part: str = "") -> str:
    """The graph of the last block: its loss, the gradient through it, and its update; one for each part of the task."""
    return f"block_{block}_last_{part}.onnx" if part else f"block_{block}_last.onnx"


class Block(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of the model, from one point to the next. Blocks run one after the other.

    `output_shape` is that of one sample without the batch axis, empty for the last, which gives losses. A block that
    `reads_inputs` beside what the one before gives (the first takes nothing else) never runs at a helper. Where
    `rows_are_alone`, what it makes of a sample depends on no other sample of the mini-batch, nor on its place there (as
    what dropout draws does), so that mini-batches of several devices can run as one.
    """

    point: str
    """The submodule whose output ends the block; empty for the last."""
    output_shape: list[PositiveInt]
    reads_inputs: bool = False
    rows_are_alone: bool = True
    part: str = ""
    """Which of the task's parts its parameters belong to, where the task has parts and it has parameters."""
    forward_flops: Bytes = 0
    """Floating point operations of the forward pass, for one sample; a step takes about three times as many."""
    working_bytes: Bytes = 0
    """Of the values that are alive at once in a step of the block, at most, for one sample, without weights."""


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to divide the blocks: those of each [first, end) in `helper` run at a helper, all others on the device.

    The ranges ascend and don't touch. Without one, the device does everything, and there is no session.
    """

    name: Name
    helper: list[tuple[Place, Place]]


WHOLE: Final = Cut("whole", [])
"""Of a device that trains every block."""
RESERVED: Final = ("auto", "off", WHOLE.name)
"""No cut of a task has these names: in a device's `split.cut`, and in what is printed, they mean something else."""


class Passing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What passes between a device and its helper, and how it is made less telling (docs/split-learning.md)."""

    activations: WireFormat = "int8"
    """How what leaves a device, and comes back, travels in the forward pass."""
    gradients: WireFormat = "int8"
    """The same of the backward pass."""
    gradient_selection: GradientSelection = "dense"
    """Which entries of a gradient travel."""
    gradient_keep: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    """Share of the entries of each row that `top_k` and `random_top_k` keep."""
    most_in_flight: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    """Mini-batches on their way at once, at most: above 1, as many as the measured round trip asks for. More hide
    latency, and learn less each (docs/decisions/stale-passes.md)."""
    activation_noise: Magnitude = 0.0
    """Deviation of the Gaussian noise on activations that leave a device, in units of their own deviation."""
    gradient_clip: Magnitude = 0.0
    """Largest Euclidean norm of one sample's gradient that leaves a device; 0: no limit."""
    distance_correlation: Magnitude = 0.0
    """Weight in a device's loss of the distance correlation between samples and the activations that leave it first."""


USED_BY: Final[UsedBy] = {"gradient_keep": ("gradient_selection", ("top_k", "random_top_k"))}
"""Settings that mean something only where another one has one of these values."""


class SplitPlan(Passing, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`split` of `task.json`. The last block, with the loss and the labels, is always the device's, and so is the
    first, which sees samples.
    """

    blocks: Annotated[list[Block], msgspec.Meta(min_length=2, max_length=MAX_BLOCKS)]
    cuts: Annotated[list[Cut], msgspec.Meta(min_length=1, max_length=MAX_CUTS)]
    parts: Annotated[list[str], msgspec.Meta(max_length=MAX_BLOCKS)] = []
    """The task's parts that train in turn, in the order in which they do in each step."""

    @property
    def turns(self) -> list[str]:
        """The part of each pass of a step; of a task without parts, one that has no name."""
        return self.parts or [""]

    def cut(self, name: str) -> Cut:
        """The cut of this name.

        Raises:
            ConfigurationError: the task has none of this name.
        """
        for cut in self.cuts:
            if cut.name == name:
                return cut
        known = ", ".join(cut.name for cut in self.cuts)
        raise ConfigurationError(f"no cut {name!r}; the task has {known}")


def is_helpers(cut: Cut, block: int) -> bool:
    """Whether a helper runs the block."""
    return any(first <= block < end for first, end in cut.helper)


def device_blocks(plan: SplitPlan, cut: Cut) -> list[int]:
    """The blocks that the device runs."""
    return [block for block in range(len(plan.blocks)) if not is_helpers(cut, block)]


def check_averaged(plan: AggregationPlan, name: str) -> None:
    """Raise `ConfigurationError` if a task with a `split` is aggregated in a way that knows no blocks."""
    if why := NOT_DIVIDED.get(plan.strategy):
        raise ConfigurationError(
            f"{name}: aggregation.strategy {plan.strategy!r} does not go with a split: {why}; take 'fedbuff', 'ca2fl',"
            " 'aced' or 'fadas', or leave the split out"
        )


def check_split(plan: SplitPlan, blocks_of_parameters: Sequence[int], batch_size: int, name: str) -> None:
    """Check a plan against itself, the block that each parameter is in, and the samples of a mini-batch.

    Raises:
        ConfigurationError: naming what contradicts what, in the file `name`.
    """
    check_used(plan, USED_BY, "split", name)
    if plan.gradient_selection != "dense" and plan.gradient_keep == 1:
        raise ConfigurationError(
            f"{name}: split.gradient_selection is {plan.gradient_selection!r}, and split.gradient_keep 1 keeps every"
            " entry; write the share that is to travel as gradient_keep, or leave gradient_selection out"
        )
    count = len(plan.blocks)
    if not all(0 <= block < count for block in blocks_of_parameters):
        raise ConfigurationError(f"{name}: a parameter's `block` is none of the {count} in `split`; export it again")
    if any(not block.output_shape for block in plan.blocks[:-1]) or plan.blocks[-1].output_shape:
        raise ConfigurationError(f"{name}: split.blocks: all but the last have an output_shape; export it again")
    if any(block.part and block.part not in plan.parts for block in plan.blocks):
        raise ConfigurationError(f"{name}: split.blocks: one is of a part that split.parts lacks; export it again")
    names = [cut.name for cut in plan.cuts]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"{name}: split.cuts: two have the same name; give each its own")
    if taken := [cut for cut in names if cut in RESERVED]:
        raise ConfigurationError(
            f"{name}: split.cuts: {taken[0]!r} means something else where a device chooses; take a name that is none"
            f" of {', '.join(RESERVED)}"
        )
    if batch_size > MAX_ROWS_PER_STEP:
        raise ConfigurationError(
            f"{name}: training.batch_size is {batch_size}, and a helper takes at most MAX_ROWS_PER_STEP"
            f" ({MAX_ROWS_PER_STEP}) samples at once; write less, or leave [split] out"
        )
    for cut in plan.cuts:
        _check_cut(plan, cut, f"{name}: split.cuts: {cut.name}")
        _check_messages(plan, cut, batch_size, f"{name}: split.cuts: {cut.name}")


def _check_cut(plan: SplitPlan, cut: Cut, name: str) -> None:
    last = len(plan.blocks) - 1
    if any(not 1 <= first < end <= last for first, end in cut.helper):
        raise ConfigurationError(
            f"{name}: a helper runs whole blocks between the first and the last, 1 to {last - 1}; it says {cut.helper}"
        )
    if any(end >= first for (_, end), (first, _) in pairwise(cut.helper)):
        raise ConfigurationError(
            f"{name}: the ranges {cut.helper} must ascend, with a block of the device between them"
        )
    if reading := [block for block in range(last) if plan.blocks[block].reads_inputs and is_helpers(cut, block)]:
        raise ConfigurationError(
            f"{name}: block {reading[0]} reads the device's samples, and no helper sees those; leave it on the device"
        )


def _check_messages(plan: SplitPlan, cut: Cut, batch_size: int, name: str) -> None:
    bits = max(BITS[plan.activations], BITS[plan.gradients])
    for place in (place for first, end in cut.helper for place in (first - 1, end - 1)):
        block = plan.blocks[place]
        size = batch_size * math.prod(block.output_shape) * bits // 8
        if size > MAX_SESSION_MESSAGE_BYTES:
            raise ConfigurationError(
                f"{name}: {batch_size} samples at {block.point!r} are {size / MIB:.1f} MiB, more than"
                f" MAX_SESSION_MESSAGE_BYTES ({MAX_SESSION_MESSAGE_BYTES // MIB} MiB); name a point that gives less,"
                " lower training.batch_size, or let fewer bits travel"
            )
