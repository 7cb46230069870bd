"""What a round with each cut takes of a device's memory. Pure.

It decides which cut a device trains with (docs/split-learning.md), so memory is estimated rather above than below.
"""

import math
from collections.abc import Iterator
from typing import Final

from fleet_protocol.limits import MIB
from fleet_protocol.split_plan import Cut, SplitPlan, device_blocks
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

READ_COPIES: Final = 3
"""Of the copies for other clusters, while a version is read: the file, its tensors, and the vector of all."""


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
