"""A backbone that comes as an ONNX file: what it makes of a sample, and the task as the head behind it sees it."""

import math
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray

from bundle_runtime.backbone import Backbone
from bundle_runtime.graph import GraphError
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import InputSchema
from workbench.export.recipe.task_file import TaskFile

PROBE_ROWS = 3
PROBE_SEED = 0
PROBE_BOUND = 1000.0
"""Keeps inputs with hardly any bounds from overflowing in the model."""
TOLERANCE = 1e-4
"""Of the largest feature: by so much a sample's may differ with what stands beside it."""
NAMES = ("inputs", "features")


@dataclass(frozen=True, slots=True)
class GivenBackbone:
    """`model` takes `inputs` f32[N, *input.shape] and gives `features` f32[N, *feature_shape]."""

    model: onnx.ModelProto
    input: InputSchema
    feature_shape: list[int]

    def task_behind(self, task: TaskFile) -> TaskFile:
        """The task of the head: its inputs are features, which are not scaled."""
        features = InputSchema(self.feature_shape, -math.inf, math.inf)
        scaling = msgspec.structs.replace(task.scaling, inputs="off")
        return msgspec.structs.replace(task, input=features, backbone=None, scaling=scaling)


def read_given_backbone(path: Path, schema: InputSchema) -> GivenBackbone:
    """Read the file, and try it on random inputs within the schema's bounds.

    Raises:
        ConfigurationError: it is no such model, devices would not load it, or samples do not stand alone in it.
    """
    model = _renamed(_load(path), path)
    inputs = _probe(schema)
    try:
        backbone = Backbone(model.SerializeToString(deterministic=True), threads=1)
        together, alone = backbone.features(inputs), backbone.features(inputs[:1])
    except GraphError as error:
        raise ConfigurationError(f"{path}: {error}; it must take float32 [N, {schema.shape}], N free") from error
    if together.ndim < 2 or len(together) != PROBE_ROWS or not np.isfinite(together).all():
        raise ConfigurationError(
            f"{path}: gives {together.dtype} {list(together.shape)} for {PROBE_ROWS} samples, or NaN; a backbone gives"
            " one row of finite float32 features for each sample"
        )
    if np.abs(together[:1] - alone).max() > TOLERANCE * np.abs(together).max():
        raise ConfigurationError(
            f"{path}: gives a sample other features when other samples stand beside it, so they can't be kept; let it"
            " normalise each one by itself"
        )
    return GivenBackbone(model, schema, list(together.shape[1:]))


def _load(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load_from_string(path.read_bytes())
        onnx.checker.check_model(model)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: backbone.onnx can't be read ({error.strerror}); put the file there, or fetch it as the recipe's"
            " README says"
        ) from error
    except Exception as error:  # protobuf's and the checker's errors have no common base but this
        raise ConfigurationError(f"{path}: is no ONNX model: {error}") from error
    return model


def _renamed(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The same with the names that bundles use, and nothing imported but ONNX's own operators."""
    weights = {entry.name for entry in model.graph.initializer}
    inputs = [entry.name for entry in model.graph.input if entry.name not in weights]
    outputs = [entry.name for entry in model.graph.output]
    if (len(inputs), len(outputs)) != (1, 1):
        raise ConfigurationError(
            f"{path}: has the inputs {inputs} and the outputs {outputs}; a backbone has one of each"
        )
    names = dict(zip((*inputs, *outputs), NAMES, strict=True))
    clashing = {name for node in model.graph.node for name in node.output} & set(NAMES)
    names |= {name: f"inner_{name}" for name in clashing - names.keys()}
    for node in model.graph.node:
        for values in (node.input, node.output):
            for place, name in enumerate(values):
                values[place] = names.get(name, name)
    for entry in (*model.graph.input, *model.graph.output):
        entry.name = names.get(entry.name, entry.name)
    del model.graph.value_info[:]
    for opset in [each for each in model.opset_import if each.domain not in ("", "ai.onnx")]:
        model.opset_import.remove(opset)
    return model


def _probe(schema: InputSchema) -> NDArray[np.float32]:
    low, high = (max(-PROBE_BOUND, min(bound, PROBE_BOUND)) for bound in (schema.minimum, schema.maximum))
    return np.random.default_rng(PROBE_SEED).uniform(low, high, (PROBE_ROWS, *schema.shape)).astype(np.float32)
