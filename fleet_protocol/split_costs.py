"""What a step of a task costs a device for each cut: memory, bytes each way, and seconds. Pure.

It decides which cut a device trains with (docs/split-learning.md), so memory is estimated rather above than below.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from fleet_protocol.limits import MAX_FRAME_BYTES, MIB
from fleet_protocol.split_plan import Cut, SplitPlan, WireFormat, device_blocks, is_helpers
from fleet_protocol.task_description import TaskDescription

BASE_BYTES: Final = 77 * MIB
"""Of a worker with its libraries loaded: the smallest limit under which the digits task trains, without what the task
takes. Measured on x86-64 with Python 3.11 and onnxruntime 1.32; `benchmarks.worker_memory` measures it again."""

FLOAT_BYTES: Final = 4

FLAT_VECTORS: Final = 12
"""Vectors as long as the model's that a round holds at once, at most: the file and its values, the trained ones, the
difference, the error feedback's state twice, and what the codec makes of them."""

STATE_VECTORS: Final = {"sgd": 0, "momentum": 1, "nesterov": 1, "adam": 2, "adamw": 2}
"""Of an optimiser, each as long as the parameters that it trains."""

ARENA_COPIES: Final = 2
"""Of the vectors that a graph trains: onnxruntime takes memory in pieces of powers of two, and keeps them."""

SAMPLE_COPIES: Final = 2.5
"""Of the stored samples: the rows as they are read, joined, and divided into training and validation."""

GRAPH_BYTES: Final = 1 * MIB
"""Of one graph that is loaded, with its arena, without values and weights."""

FORWARD_SHARE: Final = 0.5
"""Of what is alive in a block's backward pass: so much is in its forward pass, whose graph keeps its own memory."""

PACKING_COPIES: Final = 2
"""Of what travels, beside the values: levels, and the bytes of them."""

FORWARD_AGAIN: Final = 1
"""Forward passes that a backward pass through a block begins with: it is given nothing but the block's inputs."""

BACKWARD_FLOPS: Final = 2
"""Of a backward pass, in forward passes: the gradient by the inputs, and that by the weights."""

VALUE_BYTES: Final[dict[WireFormat, float]] = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "int4": 0.5}

READ_COPIES: Final = 3
"""Of the copies for other clusters, while a version is read: the file, its tensors, and the vector of all."""

FRAME_OVERHEAD: Final = 64
"""Bytes of a frame beside its content: header, tags, and MQTT's own."""

MESSAGE_OVERHEAD: Final = 128
"""Bytes of a request or answer beside its values: its fields, and the scales of some channels."""


def memory_bytes(task: TaskDescription, cut: Cut, *, stored_samples: int = 0, base_bytes: int = BASE_BYTES) -> int:
    """What the worker of a device needs in a round with `cut`, as its limit counts (RLIMIT_DATA); `WHOLE` for the step
    of all blocks at once. `stored_samples` are the task's on the device.

    Of a task without a `split`, only what does not depend on activations is known.
    """
    parameters = FLOAT_BYTES * task.parameter_count
    rows = task.training.batch_size
    samples = SAMPLE_COPIES * stored_samples * FLOAT_BYTES * math.prod(task.trained_input.shape)
    copies = READ_COPIES * FLOAT_BYTES * (task.version.size - task.parameter_count)
    fixed = base_bytes + FLAT_VECTORS * parameters + copies + int(samples)
    state = STATE_VECTORS[task.training.optimiser]
    if task.split is None:
        return fixed + _trained_bytes(parameters, state) + GRAPH_BYTES
    blocks = task.split.blocks
    if not cut.helper:
        working = rows * sum(block.working_bytes for block in blocks)
        return fixed + _trained_bytes(parameters, state) + GRAPH_BYTES + working
    mine = device_blocks(task.split, cut)
    own = FLOAT_BYTES * sum(parameter.size for parameter in task.parameters if parameter.block in mine)
    passes = {block: 1 + FORWARD_SHARE * (block < len(blocks) - 1) for block in mine}
    working = int(rows * sum(passes[block] * blocks[block].working_bytes for block in mine))
    graphs = 2 * len(mine) * GRAPH_BYTES + _trained_bytes(own, state)
    under_way = task.split.most_in_flight * (_waiting_bytes(task, task.split, cut) + (1 + state) * own)
    packing = PACKING_COPIES * FLOAT_BYTES * rows * sum(math.prod(blocks[edge].output_shape) for edge in _edges(cut))
    return fixed + graphs + working + packing + under_way


def _trained_bytes(weights: int, state: int) -> int:
    """Of a graph that trains `weights` bytes: they and each vector of the optimiser's `state` before a step and
    after it, and the gradient.
    """
    return ARENA_COPIES * (2 * (1 + state) + 1) * weights


def _waiting_bytes(task: TaskDescription, plan: SplitPlan, cut: Cut) -> int:
    """Of one step under way: what goes into each of the device's blocks. Its weights before and after count apart."""
    inputs = [math.prod(plan.blocks[block - 1].output_shape) for block in device_blocks(plan, cut) if block]
    return FLOAT_BYTES * task.training.batch_size * (math.prod(task.trained_input.shape) + sum(inputs))


def _edges(cut: Cut) -> Iterator[int]:
    """The blocks whose outputs travel forward, and whose outputs' gradients travel back."""
    for first, end in cut.helper:
        yield first - 1
        yield end - 1


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
    `waiting_seconds` in round trips. `in_flight` steps are under way at once.
    """

    device_seconds: float
    helper_seconds: float
    up_bytes: int
    down_bytes: int
    up_seconds: float
    down_seconds: float
    waiting_seconds: float
    in_flight: int

    @property
    def seconds(self) -> float:
        """From one step to the next: what is slowest sets the pace, or a step's whole way, shared by all under way."""
        return self.seconds_beside(self.helper_seconds)

    def seconds_beside(self, helper_seconds: float) -> float:
        """The same where the helper takes `helper_seconds` until it is this device's turn again."""
        paces = (self.device_seconds, helper_seconds, self.up_seconds, self.down_seconds)
        return max(*paces, (sum(paces) + self.waiting_seconds) / self.in_flight)


def step_cost(task: TaskDescription, cut: Cut, party: Party) -> StepCost:
    """What a step of a task with a `split` costs.

    Raises:
        ValueError: the task has none.
    """
    if task.split is None:
        raise ValueError(f"{task.task} has no split, so nothing is known of its steps' costs")
    plan = task.split
    rows = task.training.batch_size * _passes(plan)
    if not cut.helper:
        whole = rows * (1 + BACKWARD_FLOPS) * sum(block.forward_flops for block in plan.blocks)
        return StepCost(whole / party.flops, 0.0, 0, 0, 0.0, 0.0, 0.0, 1)
    up, down = bytes_of_step(plan, cut, rows)
    return StepCost(
        rows * _device_flops(plan, cut) / party.flops,
        rows * _helper_flops(plan, cut) / party.helper_flops,
        up,
        down,
        up / party.uplink,
        down / party.downlink,
        2 * party.latency * 2 * len(cut.helper) * _passes(plan),
        plan.most_in_flight,
    )


def _passes(plan: SplitPlan) -> int:
    """Through the model in a step: one for each part that trains in turn."""
    return len({block.part for block in plan.blocks} - {""}) or 1


def _device_flops(plan: SplitPlan, cut: Cut) -> int:
    """Of one sample; the last block runs forward once, as it is its own end."""
    last = len(plan.blocks) - 1
    again = sum(FORWARD_AGAIN * plan.blocks[block].forward_flops for block in device_blocks(plan, cut) if block < last)
    return again + sum((1 + BACKWARD_FLOPS) * plan.blocks[block].forward_flops for block in device_blocks(plan, cut))


def _helper_flops(plan: SplitPlan, cut: Cut) -> int:
    helpers = (block for number, block in enumerate(plan.blocks) if is_helpers(cut, number))
    return sum((1 + FORWARD_AGAIN + BACKWARD_FLOPS) * block.forward_flops for block in helpers)


def bytes_of_step(plan: SplitPlan, cut: Cut, rows: int) -> tuple[int, int]:
    """What a device sends in a step, and what it gets, in bytes, before zstd takes some away."""
    up = down = 0
    for first, end in cut.helper:
        front, back = plan.blocks[first - 1].output_shape, plan.blocks[end - 1].output_shape
        up += _message_bytes(rows, front, VALUE_BYTES[plan.activations])
        up += _message_bytes(rows, back, _gradient_bytes(plan))
        down += _message_bytes(rows, back, VALUE_BYTES[plan.activations])
        down += _message_bytes(rows, front, _gradient_bytes(plan))
    return up, down


def _gradient_bytes(plan: SplitPlan) -> float:
    """Of one value, on average: of a chosen one its place travels too, in two bytes."""
    if plan.gradient_selection == "dense":
        return VALUE_BYTES[plan.gradients]
    return min(VALUE_BYTES[plan.gradients], plan.gradient_keep * (VALUE_BYTES[plan.gradients] + 2))


def _message_bytes(rows: int, shape: list[int], bytes_of_value: float) -> int:
    content = MESSAGE_OVERHEAD + math.ceil(rows * math.prod(shape) * bytes_of_value)
    return content + FRAME_OVERHEAD * math.ceil(content / MAX_FRAME_BYTES)
