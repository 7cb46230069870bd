"""What each block costs, and whether it treats samples one by one: found by running the bundle's own graphs."""

from collections.abc import Mapping
from functools import partial

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray

from bundle_runtime.blocks import BlockRunner, Floats, Rates
from bundle_runtime.samples import Samples
from fleet_protocol.split_plan import backward_file, last_file
from fleet_protocol.task_description import TaskDescription
from workbench.export.blocks.division import Division
from workbench.export.blocks.live_bytes import Feeds, live_bytes_per_sample
from workbench.export.blocks.operations import forward_flops
from workbench.export.graphs.flat_weights import join

FEW_ROWS, MANY_ROWS = 4, 8
SEED = 5
ROW = 2
"""The sample that is run among others and alone; its place is another one then, which dropout's draws follow."""
TOLERANCE = 1e-4
"""Largest difference that is rounding, in units of the largest value."""


def with_costs(
    task: TaskDescription, division: Division, files: Mapping[str, bytes], samples: Samples
) -> TaskDescription:
    """The task with the costs of the blocks of its `split`; as it is without one.

    `files` has the graphs of all blocks, and the weights. `samples` are `MANY_ROWS` or more, as training takes them.
    """
    if (plan := task.split) is None:
        return task
    last = division.last
    trained_by = [[backward_file(block)] for block in range(last)] + [[last_file(last, part) for part in plan.turns]]
    alone = _rows_are_alone(division, BlockRunner(task, files, range(last + 1)), task.training, samples)
    blocks = [
        msgspec.structs.replace(
            block,
            rows_are_alone=alone[number],
            forward_flops=forward_flops(division, number, samples),
            working_bytes=max(_working_bytes(files[file], samples) for file in trained_by[number]),
        )
        for number, block in enumerate(plan.blocks)
    ]
    return msgspec.structs.replace(task, split=msgspec.structs.replace(plan, blocks=blocks))


def _working_bytes(graph: bytes, samples: Samples) -> int:
    model = onnx.load_from_string(graph)
    few, many = (_feeds(model, samples.take(slice(0, rows))) for rows in (FEW_ROWS, MANY_ROWS))
    return live_bytes_per_sample(model, few, many, MANY_ROWS - FEW_ROWS)


def _feeds(model: onnx.ModelProto, samples: Samples) -> Feeds:
    """Something for each input of a graph: the samples, and ones."""
    feeds: dict[str, NDArray[np.generic]] = {"inputs": samples.inputs, "labels": samples.labels}
    for entry in model.graph.input:
        tensor = entry.type.tensor_type
        shape = [axis.dim_value if axis.HasField("dim_value") else len(samples) for axis in tensor.shape.dim]
        feeds.setdefault(entry.name, np.ones(shape, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    return feeds


def _rows_are_alone(division: Division, runner: BlockRunner, rates: Rates, samples: Samples) -> list[bool]:
    """Of each block, whether it makes the same of a sample among others as of the sample alone, in another place."""
    flat = join(list(division.recipe.tensors.values())).numpy()
    some = samples.take(slice(0, FEW_ROWS))
    one, row = some.take(slice(ROW, ROW + 1)), slice(ROW, ROW + 1)
    given, found = some.inputs, []
    for block in range(division.last):
        weights = runner.weights_of(block, flat)
        made = runner.forward(block, weights, given, seed=SEED, raw=some.inputs)
        found.append(_close(made[row], runner.forward(block, weights, given[row], seed=SEED, raw=one.inputs)))
        given = made

    weights, state = runner.weights_of(division.last, flat), runner.new_state(division.last)
    last = partial(runner.last, weights, state, seed=SEED, rates=rates, log_priors=runner.log_priors(samples.labels))

    def losses(activations: Floats, rows: Samples, part: str) -> Floats:
        return last(activations, rows.labels, part=part, raw=rows.inputs).row_losses

    turns = division.recipe.task.parts or [""]
    return [*found, all(_close(losses(given, some, part)[row], losses(given[row], one, part)) for part in turns)]


def _close(one: Floats, other: Floats) -> bool:
    scale = max(float(np.abs(one).max()), float(np.finfo(np.float32).tiny))
    return bool(np.abs(one - other).max() <= TOLERANCE * scale)
