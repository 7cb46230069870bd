"""What a step of a task costs with a cut: operations, bytes each way, and seconds. Pure.

A step is walked as a device and its helper walk it (`fleet_protocol.split_placement`): each pass forward through all
blocks, and back as far as it has to. docs/split-learning.md has what the figures leave out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fleet_protocol.limits import MAX_FRAME_BYTES
from fleet_protocol.split_placement import Leg, PartPass, legs_of, passes_of
from fleet_protocol.split_plan import Block, Cut, SplitPlan, WireFormat
from fleet_protocol.task_description import TaskDescription

FORWARD_AGAIN: Final = 1
"""Forward passes that a block's backward graph begins with: it is given nothing but the block's inputs."""

INPUT_GRADIENT: Final = 1
"""Of the gradient by what a block takes, in forward passes."""

WEIGHT_GRADIENT: Final = 1
"""Of the gradient by a block's weights, in forward passes."""

BACKWARD_GRAPH: Final = FORWARD_AGAIN + INPUT_GRADIENT + WEIGHT_GRADIENT
"""Of a block's backward graph, in forward passes, also where a pass only goes through: the graph is the same."""

VALUE_BYTES: Final[dict[WireFormat, float]] = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "int4": 0.5}

FRAME_OVERHEAD: Final = 64
"""Bytes of a frame beside its content: header, tags, and MQTT's own."""

MESSAGE_OVERHEAD: Final = 128
"""Bytes of a request or answer beside its values: its fields, and the scales of some channels."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a device computes until it asks its helper, and what comes of that: floating point operations and bytes of
    one mini-batch.
    """

    device_flops: int
    up_bytes: int
    helper_flops: int
    down_bytes: int


@dataclass(frozen=True, slots=True)
class StepWalk:
    """A step as one exchange after the other; behind the last one the device computes `last_flops`."""

    exchanges: tuple[Exchange, ...]
    last_flops: int

    @property
    def device_flops(self) -> int:
        """Of all that the device computes."""
        return sum(each.device_flops for each in self.exchanges) + self.last_flops

    @property
    def helper_flops(self) -> int:
        """Of all that the helper computes."""
        return sum(each.helper_flops for each in self.exchanges)

    @property
    def up_bytes(self) -> int:
        """What the device sends, before zstd takes some away."""
        return sum(each.up_bytes for each in self.exchanges)

    @property
    def down_bytes(self) -> int:
        """What the device gets, before zstd takes some away."""
        return sum(each.down_bytes for each in self.exchanges)


@dataclass(frozen=True, slots=True)
class Party:
    """A device on its way to a helper: how fast it computes, and its link to the broker, each way.

    `flops` and `helper_flops` are floating point operations a second; rates are in bytes a second; `latency` is one
    way, from the device to the helper, in seconds.
    """

    flops: float
    uplink: float
    downlink: float
    latency: float
    helper_flops: float


@dataclass(frozen=True, slots=True)
class StepCost:
    """Of one step with one cut, in seconds and bytes.

    `device_seconds` and `helper_seconds` are spent computing, `up_seconds` and `down_seconds` sending, and
    `waiting_seconds` in `exchanges` round trips. `in_flight` steps are under way at once.
    """

    device_seconds: float
    helper_seconds: float
    up_bytes: int
    down_bytes: int
    up_seconds: float
    down_seconds: float
    waiting_seconds: float
    in_flight: int
    exchanges: int = 0

    @property
    def seconds(self) -> float:
        """From one step to the next: what is slowest sets the pace, or a step's whole way, shared by all under way."""
        return max(self.helper_seconds, self.seconds_beside(self.helper_seconds))

    @property
    def without_helper(self) -> float:
        """Seconds of a step's way that no other device makes longer."""
        return self.device_seconds + self.up_seconds + self.down_seconds + self.waiting_seconds

    def seconds_beside(self, helper_seconds: float) -> float:
        """The same where a step is at the helper for so long, with what it waits there for steps of other devices."""
        way = self.without_helper + helper_seconds
        return max(self.device_seconds, self.up_seconds, self.down_seconds, way / self.in_flight)


def step_cost(task: TaskDescription, cut: Cut, party: Party) -> StepCost:
    """What a step of a task with a `split` costs.

    Raises:
        ValueError: the task has none.
    """
    walk, plan = step_walk(task, cut), _plan_of(task)
    return StepCost(
        walk.device_flops / party.flops,
        walk.helper_flops / party.helper_flops,
        walk.up_bytes,
        walk.down_bytes,
        walk.up_bytes / party.uplink,
        walk.down_bytes / party.downlink,
        2 * party.latency * len(walk.exchanges),
        plan.most_in_flight if cut.helper else 1,
        len(walk.exchanges),
    )


def step_walk(task: TaskDescription, cut: Cut) -> StepWalk:
    """A step of one mini-batch. Without a helper it is the graph of the whole model, which computes less: nothing of it
    goes forward again.

    Raises:
        ValueError: the task has no `split`.
    """
    plan, rows = _plan_of(task), task.training.batch_size
    if not cut.helper:
        return StepWalk((), rows * sum(_turn_flops(plan, each) for each in passes_of(plan)))
    walk, legs = _Walk(plan, rows), legs_of(plan, cut)
    for part_pass in passes_of(plan, task.buffered_blocks):
        walk.forward(legs)
        walk.end(part_pass)
        walk.back([leg for leg in legs if leg.end > part_pass.until])
    return StepWalk(tuple(walk.exchanges), walk.device_flops)


class _Walk:
    """`exchanges` so far, and the `device_flops` since the last of them."""

    def __init__(self, plan: SplitPlan, rows: int) -> None:
        self.exchanges: list[Exchange] = []
        self.device_flops = 0
        self._plan = plan
        self._rows = rows

    def forward(self, legs: Sequence[Leg]) -> None:
        bytes_of_value = VALUE_BYTES[self._plan.activations]
        for leg in legs:
            if leg.at_helper:
                self._exchange(leg.first - 1, leg.end - 1, bytes_of_value, self._flops(leg))
            else:
                self.device_flops += self._flops(leg)

    def end(self, part_pass: PartPass) -> None:
        """The last block is its own end: it goes forward once."""
        last = len(self._plan.blocks) - 1
        passes = 1 + INPUT_GRADIENT + WEIGHT_GRADIENT * part_pass.trains(self._plan, last)
        self.device_flops += passes * self._flops(Leg(last, last + 1, at_helper=False))

    def back(self, legs: Sequence[Leg]) -> None:
        bytes_of_value = _gradient_bytes(self._plan)
        for leg in reversed(legs):
            if leg.at_helper:
                self._exchange(leg.end - 1, leg.first - 1, bytes_of_value, BACKWARD_GRAPH * self._flops(leg))
            else:
                self.device_flops += BACKWARD_GRAPH * self._flops(leg)

    def _exchange(self, sent: int, got: int, bytes_of_value: float, helper_flops: int) -> None:
        """Values as the block `sent` gives them go up, and as the block `got` gives them come down."""
        up, down = (_message_bytes(self._rows, self._plan.blocks[each], bytes_of_value) for each in (sent, got))
        self.exchanges.append(Exchange(self.device_flops, up, helper_flops, down))
        self.device_flops = 0

    def _flops(self, leg: Leg) -> int:
        return self._rows * sum(self._plan.blocks[block].forward_flops for block in leg.blocks)


def _plan_of(task: TaskDescription) -> SplitPlan:
    if task.split is None:
        raise ValueError(f"{task.task} has no split, so nothing is known of its steps' costs")
    return task.split


def _turn_flops(plan: SplitPlan, part_pass: PartPass) -> int:
    """Of one sample in a part's turn of the whole model: all blocks go forward, those of the part get the gradient by
    their weights, and those from the first of them on the gradient by what they take.
    """
    flops = 0
    for number, block in enumerate(plan.blocks):
        gradients = WEIGHT_GRADIENT * part_pass.trains(plan, number) + INPUT_GRADIENT * (number >= part_pass.until)
        flops += (1 + gradients) * block.forward_flops
    return flops


def _gradient_bytes(plan: SplitPlan) -> float:
    """Of one value, on average: of a chosen one its place travels too, in two bytes."""
    if plan.gradient_selection == "dense":
        return VALUE_BYTES[plan.gradients]
    return min(VALUE_BYTES[plan.gradients], plan.gradient_keep * (VALUE_BYTES[plan.gradients] + 2))


def _message_bytes(rows: int, block: Block, bytes_of_value: float) -> int:
    content = MESSAGE_OVERHEAD + math.ceil(rows * math.prod(block.output_shape) * bytes_of_value)
    return content + FRAME_OVERHEAD * math.ceil(content / MAX_FRAME_BYTES)
