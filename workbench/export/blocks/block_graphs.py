"""The graphs of blocks, as files of a bundle.

An input that a graph does not read is left out of it. All are float32 but for `labels` and `seed`; N is free:

| input | of |
|---|---|
| `weights` f32[P] | the block's trainable parameters, then its buffers |
| `inputs` f32[N, *input.shape], with the scale's inputs | the first block, and others that read samples |
| `activations` f32[N, *output_shape of the block before] | all but the first block |
| `row_weights` f32[N], `seed` i64[] | as in a training step |
| `gradient` f32[N, *output_shape] | backward passes |
| `labels`, `log_prior` f32[C] of each head that has one | the last block |
| `state.*`, `learning_rate`, `weight_decay`, `proximal` f32[], `anchor` f32[P] | what updates, as its optimiser asks |
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from onnx import GraphProto, ModelProto

from fleet_protocol.split_plan import backward_file, forward_file, last_file, passing_file
from workbench.export.blocks.block_steps import ACTIVATIONS, GRADIENT, BlockSteps
from workbench.export.blocks.division import Division
from workbench.export.conversion.onnx_conversion import checked_model, convert
from workbench.export.conversion.tracing import BATCH, GraphInput
from workbench.export.graphs.gradients import SCALAR_STATE, STATE
from workbench.export.graphs.optimisers import OPTIMISERS
from workbench.export.graphs.scaled_graphs import model_side, scale_values
from workbench.export.graphs.selection import select_by_products
from workbench.export.graphs.training_graph import is_read, label_input


def block_models(division: Division) -> Iterator[tuple[str, ModelProto]]:
    """File name and checked model of each graph of each block.

    Raises:
        UnexportableError, torch.onnx.OnnxExporterError: as `convert`.
    """
    division.recipe.set_training(True)
    for block in range(division.last):
        yield forward_file(block), checked_model(forward_graph(division, block))
        yield backward_file(block), checked_model(backward_graph(division, block))
        if division.passes_on(block):
            yield passing_file(block), checked_model(backward_graph(division, block, update=False))
    for part in division.recipe.task.parts or [""]:
        yield last_file(division.last, part), checked_model(last_graph(division, part))


def forward_graph(division: Division, block: int) -> GraphProto:
    """Of a block but the last: to `BlockSteps.forward_outputs`."""
    entries = forward_inputs(division, block)
    steps = BlockSteps(division, block, [entry.name for entry in entries])
    graph = convert(steps.forward(), _on_model_side(division, entries), steps.forward_outputs())
    return _finished(division, graph, f"block_{block}_forward")


def backward_graph(division: Division, block: int, *, update: bool = True) -> GraphProto:
    """Of a block but the last: to `BlockSteps.backward_outputs`."""
    entries = [*forward_inputs(division, block), GraphInput(GRADIENT, (BATCH, *division.shapes[block]))]
    entries += _update_inputs(division, block)
    steps = BlockSteps(division, block, [entry.name for entry in entries])
    outputs = steps.backward_outputs(update=update)
    inner = _on_model_side(division, entries)
    graph = convert(steps.backward(update=update), inner, outputs, rewrite=select_by_products)
    return _finished(division, graph, f"block_{block}_{'backward' if update else 'passing'}")


def last_graph(division: Division, part: str) -> GraphProto:
    """Of the last block: to `BlockSteps.backward_outputs` and `row_losses` f32[N], of a part of the task if one is
    named, for which the block trains if it belongs to it.
    """
    recipe, block = division.recipe, division.last
    entries = [*forward_inputs(division, block), *_update_inputs(division, block)]
    entries += [GraphInput(head.log_prior, (head.label.classes,)) for head in recipe.objective.heads if head.log_prior]
    steps = BlockSteps(division, block, [entry.name for entry in entries])
    outputs = [*steps.backward_outputs(update=steps.updates(part)), "row_losses"]
    graph = convert(steps.last(part), _on_model_side(division, entries), outputs, rewrite=select_by_products)
    return _finished(division, graph, f"block_{block}_last")


def forward_inputs(division: Division, block: int) -> list[GraphInput]:
    """What a forward pass through a block may read."""
    size = sum(parameter.size for parameter in division.parameters_of(block))
    inputs = [GraphInput("weights", (size,)), GraphInput("inputs", (BATCH, *division.recipe.task.input.shape))]
    if block:
        inputs.append(GraphInput(ACTIVATIONS, (BATCH, *division.shapes[block - 1])))
    inputs += [GraphInput("row_weights", (BATCH,)), GraphInput("seed", (), torch.int64)]
    return inputs + label_input(division.recipe, BATCH) * (block == division.last)


def _update_inputs(division: Division, block: int) -> list[GraphInput]:
    plan = division.recipe.task.training
    optimiser = OPTIMISERS[plan.optimiser]
    parameters = division.parameters_of(block)
    size = sum(parameter.size for parameter in parameters)
    trained = sum(parameter.size for parameter in parameters if parameter.trainable)
    inputs = [GraphInput(f"{STATE}{number}", (trained,)) for number in range(optimiser.vectors)]
    inputs += [GraphInput(f"{SCALAR_STATE}{number}", ()) for number in range(optimiser.scalars)]
    inputs += [GraphInput(name, ()) for name in ("weight_decay", "proximal") if getattr(plan, name)]
    return [*inputs, GraphInput("learning_rate", ()), GraphInput("anchor", (size,))]


def _on_model_side(division: Division, entries: Sequence[GraphInput]) -> list[GraphInput]:
    return [replace(entry, name=model_side(division.recipe, entry.name)) for entry in entries]


def _finished(division: Division, graph: GraphProto, name: str) -> GraphProto:
    """With the inputs that it reads, and those samples and labels unscaled."""
    graph.name = name
    read = [entry for entry in graph.input if is_read(graph, entry.name)]
    del graph.input[:]
    graph.input.extend(read)
    names = {entry.name for entry in read}
    taken = [value for value in ("inputs", "labels") if model_side(division.recipe, value) in names]
    scale_values(graph, division.recipe, taken)
    return graph
