"""Many training steps as one graph: a `Scan` over mini-batches that carries weights, optimiser state and buffers.

What is carried, and where it comes from:

* The flat vector `weights` f32[P] holds the trainable parameters f32[T] and behind them the buffers f32[S] that
  training changes, such as running statistics (`moving_buffers`). Buffers are entries of `parameters` in `task.json`
  with `trainable` false, so they travel, are aggregated and evaluated like weights; but no gradient, clip, decay or
  proximal term touches them. Without such layers S is 0.
* The optimiser's state is made of zeros before the first step and dropped after the last.
* A model that draws random numbers has one more input, `seed` i64[]. Step k hashes `seed + k` into them, so the same
  seed gives the same round on every machine.

A loss that balances classes reads its head's `log_prior`, counted from all labels once, before the first step.
"""

from collections.abc import Sequence

import numpy as np
import torch
from onnx import GraphProto, TensorProto, ValueInfoProto, helper

from workbench.export.conversion.onnx_conversion import convert
from workbench.export.conversion.tracing import BATCH, GraphInput
from workbench.export.graphs.class_counts import count_classes
from workbench.export.graphs.gradients import SCALAR_STATE, STATE, GraphFunction, alternating_step, training_step
from workbench.export.graphs.graph_constants import add_constant
from workbench.export.graphs.optimisers import OPTIMISERS
from workbench.export.graphs.scaled_graphs import model_side, scale_values
from workbench.export.graphs.selection import select_by_products
from workbench.export.recipe.recipe import Recipe

STEP = "step."
"""Prefix of the values inside one step."""
RATES = ("weight_decay", "gradient_clip", "proximal")
"""Scalar inputs that are the same in every step, each only if the task makes use of it."""
CORRECTION = "correction"
"""Added to each step's gradient, only if the task makes use of it."""


def training_graph(recipe: Recipe, *, per_sample: bool = False) -> GraphProto:
    """The graph of `train.onnx`, or with `per_sample` the one that clips each sample's gradient.

    Inputs: `weights` f32[P], `inputs` f32[N, *shape], `labels` i64[N] or f32[N, values] (none if a sample has
    no label), `batches` i64[K, B] (rows of `inputs`), `mask` f32[K, B] (1 real, 0 padding), and f32[] each
    `learning_rate`, `weight_decay`, `gradient_clip` (the largest Euclidean norm of a gradient; infinity for none),
    `proximal` (FedProx's coefficient), the last three only where the task's plan isn't 0: what multiplies by 0 would
    be a fifth of a small model's step. `correction` f32[T], added to each step's gradient behind the clip, only where
    the plan corrects drift. `seed` i64[] only if the model draws random numbers. Outputs:
    `trained_weights` f32[P] after K steps, `losses` f32[K], each the mean over the real rows of its mini-batch. A
    mini-batch of padding alone leaves the weights as they are and has loss 0. N, K and B are free at run time, but for
    B with `per_sample`, which is the plan's `batch_size`.
    """
    total = sum(parameter.size for parameter in recipe.parameters)
    graph = helper.make_graph(
        nodes=[],
        name="train_per_sample" if per_sample else "train",
        inputs=[_tensor("weights", [total])],
        outputs=[_tensor("trained_weights", [total]), _tensor("losses", ["K"])],
    )
    graph.input.extend(_data(recipe, per_sample=per_sample))
    graph.input.extend(_tensor(name, []) for name in ("learning_rate", *_rates(recipe, per_sample=per_sample)))
    if correction_input(recipe):
        graph.input.append(_tensor(CORRECTION, [_sizes(recipe)[0]]))
    scale_values(graph, recipe, ["inputs", "labels"])
    _weigh_rows(graph)
    count_classes(graph, recipe.objective.heads, recipe.task.label)
    carried = _initial_values(graph, recipe)
    body = _step(recipe, carried, per_sample=per_sample)
    scanned = _scan_inputs(graph, recipe, draws=is_read(body, f"{STEP}seed"))
    _take(body, [STEP + name for name in (*carried, *scanned)])
    kept = ["weights", "buffers"] if "buffers" in carried else ["weights"]
    trained = ["trained_weights" if [name] == kept else f"trained.{name}" for name in carried]
    sources = [*carried.values(), *scanned.values()]
    graph.node.append(
        helper.make_node("Scan", sources, [*trained, "row_losses"], num_scan_inputs=len(scanned), body=body)
    )
    if len(kept) > 1:
        graph.node.append(helper.make_node("Concat", [f"trained.{name}" for name in kept], ["trained_weights"], axis=0))
    graph.node.extend(
        [
            helper.make_node("Mul", ["row_losses", "row_weights"], ["row_losses.weighted"]),
            helper.make_node("ReduceSum", ["row_losses.weighted", "axis.rows"], ["losses"], keepdims=0),
        ]
    )
    return graph


def step_inputs(recipe: Recipe, *, per_sample: bool = False) -> list[GraphInput]:
    """The named values that one step is a function of: what is carried, the mini-batch, the rates.

    torch's rules for `vmap` fix the number of rows, so `per_sample` takes the plan's `batch_size`, no more and no less.
    """
    trainable, buffers = _sizes(recipe)
    rows = recipe.task.training.batch_size if per_sample else BATCH
    optimiser = OPTIMISERS[recipe.task.training.optimiser]
    inputs = [GraphInput("weights", (trainable,))]
    inputs += [GraphInput(f"{STATE}{number}", (trainable,)) for number in range(optimiser.vectors)]
    inputs += [GraphInput(f"{SCALAR_STATE}{number}", ()) for number in range(optimiser.scalars)]
    inputs += [GraphInput("buffers", (buffers,))] * bool(buffers)
    inputs += [GraphInput("anchor", (trainable,)), GraphInput("inputs", (rows, *recipe.task.input.shape))]
    inputs += label_input(recipe, rows)
    inputs += [GraphInput("row_weights", (rows,)), GraphInput("learning_rate", ())]
    inputs += [GraphInput(name, ()) for name in _rates(recipe, per_sample=per_sample)]
    inputs += correction_input(recipe)
    inputs += [GraphInput(head.log_prior, (head.label.classes,)) for head in recipe.objective.heads if head.log_prior]
    return [*inputs, GraphInput("seed", (), torch.int64)]


def step_function(recipe: Recipe, names: Sequence[str], *, per_sample: bool) -> GraphFunction:
    """One step as a function of the values that `names` says: of all weights at once, or of the recipe's parts."""
    return alternating_step(recipe, names) if recipe.task.parts else training_step(recipe, names, per_sample=per_sample)


def label_input(recipe: Recipe, rows: int | None) -> list[GraphInput]:
    """`labels` of so many rows as graphs take them: an index, or values in a row; none where a sample has no label."""
    label = recipe.task.label
    if label.is_index:
        return [GraphInput("labels", (rows,), torch.int64)]
    return [GraphInput("labels", (rows, label.size))] * bool(label.size)


def correction_input(recipe: Recipe) -> list[GraphInput]:
    """What is added to each step's gradient, f32[T], where the task corrects drift."""
    return [GraphInput(CORRECTION, (_sizes(recipe)[0],))] * (recipe.task.training.correction != "off")


def _rates(recipe: Recipe, *, per_sample: bool) -> list[str]:
    """Those of `RATES` that the task makes use of."""
    training = recipe.task.training
    used = {
        "weight_decay": training.weight_decay > 0,
        "gradient_clip": per_sample or training.gradient_clip > 0,
        "proximal": training.has_proximal,
    }
    return [name for name in RATES if used[name]]


def _sizes(recipe: Recipe) -> tuple[int, int]:
    """T and S: how many values are trained, and how many are buffers."""
    trainable = sum(parameter.size for parameter in recipe.parameters if parameter.trainable)
    return trainable, sum(parameter.size for parameter in recipe.parameters) - trainable


def _data(recipe: Recipe, *, per_sample: bool) -> list[ValueInfoProto]:
    inputs = [_tensor("inputs", ["N", *recipe.task.input.shape])]
    for entry in label_input(recipe, BATCH):
        dtype = TensorProto.INT64 if entry.dtype == torch.int64 else TensorProto.FLOAT
        inputs.append(_tensor(entry.name, ["N", *(size for size in entry.shape if size is not BATCH)], dtype))
    batches = ["K", recipe.task.training.batch_size if per_sample else "B"]
    return [*inputs, _tensor("batches", batches, TensorProto.INT64), _tensor("mask", batches)]


def _weigh_rows(graph: GraphProto) -> None:
    """Add `row_weights` f32[K, B], the mask divided by its sum, and `rates` f32[K], 0 where all rows are padding."""
    add_constant(graph, "axis.rows", [1])
    add_constant(graph, "one.row", np.float32(1))
    graph.node.extend(
        [
            helper.make_node("ReduceSum", ["mask", "axis.rows"], ["rows"], keepdims=1),
            helper.make_node("Max", ["rows", "one.row"], ["rows.at_least_one"]),
            helper.make_node("Div", ["mask", "rows.at_least_one"], ["row_weights"]),
            helper.make_node("ReduceMax", ["mask", "axis.rows"], ["any.rows"], keepdims=0),
            helper.make_node("Mul", ["any.rows", "learning_rate"], ["rates"]),
        ]
    )


def _initial_values(graph: GraphProto, recipe: Recipe) -> dict[str, str]:
    """What the Scan carries, by its name in a step, to the value that it starts from; adds those values."""
    trainable, buffers = _sizes(recipe)
    initial = {"weights": "weights"}
    if buffers:
        initial["weights"] = "trainable"
        add_constant(graph, "sizes", [trainable, buffers])
        graph.node.append(helper.make_node("Split", ["weights", "sizes"], ["trainable", "buffers"], axis=0))
    for entry in step_inputs(recipe):
        if entry.name.startswith(STATE):
            add_constant(graph, f"{entry.name}.shape", np.array(entry.shape, dtype=np.int64))
            graph.node.append(helper.make_node("ConstantOfShape", [f"{entry.name}.shape"], [f"{entry.name}.zero"]))
            initial[entry.name] = f"{entry.name}.zero"
    return initial | ({"buffers": "buffers"} if buffers else {})


def is_read(graph: GraphProto, value: str) -> bool:
    """Whether an operator of the graph, or of a graph inside it, takes `value`."""
    inner = (attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g"))
    return any(value in node.input for node in graph.node) or any(is_read(part, value) for part in inner)


def _take(body: GraphProto, names: Sequence[str]) -> None:
    """Leave the body of a Scan these inputs, in this order; others come from the graph around it, or are not read."""
    given = {value.name: value for value in body.input}
    del body.input[:]
    body.input.extend(given[name] for name in names)


def _scan_inputs(graph: GraphProto, recipe: Recipe, *, draws: bool) -> dict[str, str]:
    """What differs from step to step, by its name in a step, to the value f32 or i64[K, ...]; adds those values.

    `seed` is among them if a step `draws` random numbers.
    """
    scanned = {"rows": "batches", "row_weights": "row_weights", "learning_rate": "rates"}
    if recipe.task.label.size:
        graph.node.append(
            helper.make_node("Gather", [model_side(recipe, "labels"), "batches"], ["labels.batched"], axis=0)
        )
        scanned["labels"] = "labels.batched"
    if draws:
        graph.input.append(_tensor("seed", [], TensorProto.INT64))
        add_constant(graph, "first", np.int64(0))
        add_constant(graph, "next", np.int64(1))
        graph.node.extend(
            [
                helper.make_node("Size", ["rates"], ["steps"]),
                helper.make_node("Range", ["first", "steps", "next"], ["step.numbers"]),
                helper.make_node("Add", ["step.numbers", "seed"], ["seeds"]),
            ]
        )
        scanned["seed"] = "seeds"
    return scanned


def _step(recipe: Recipe, carried: dict[str, str], *, per_sample: bool) -> GraphProto:
    """One step on one mini-batch, with every input that it may have.

    It reads `inputs`, the weights before the Scan, `log_prior`, the rates and the correction from the graph around it.
    """
    entries = step_inputs(recipe, per_sample=per_sample)
    names = [entry.name for entry in entries]
    outer = {"anchor": carried["weights"]} | {name: name for name in (*RATES, CORRECTION)}
    outer |= {head.log_prior: head.log_prior for head in recipe.objective.heads if head.log_prior}
    inner = [GraphInput(outer.get(entry.name, STEP + entry.name), entry.shape, entry.dtype) for entry in entries]
    outputs = [*(f"{STEP}new.{name}" for name in carried), f"{STEP}row_losses"]
    step = step_function(recipe, names, per_sample=per_sample)
    body = convert(step, inner, outputs, rewrite=select_by_products)
    body.name = "step"
    body.node.insert(
        0, helper.make_node("Gather", [model_side(recipe, "inputs"), f"{STEP}rows"], [f"{STEP}inputs"], axis=0)
    )
    rows = recipe.task.training.batch_size if per_sample else "batch"
    body.input.append(_tensor(f"{STEP}rows", [rows], TensorProto.INT64))
    return body


def _tensor(name: str, shape: Sequence[int | str], dtype: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)
