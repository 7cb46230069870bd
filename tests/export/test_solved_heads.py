"""Recipes with a solved head, and with an ONNX file as their backbone."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner
from fleet_protocol.bundle_files import BACKBONE_FILE, WEIGHTS_FILE
from fleet_protocol.codec import read_weights
from fleet_protocol.errors import ConfigurationError
from tests.support.random_features import EXACT, export_random_features, write_recipe
from workbench.export.bundle_writer import export_bundle

OWN_HEAD = """
from torch import nn

def build():
    return nn.Linear(6, 4)
"""
OWN_TASK = """
task = "own"
title = "A backbone that came as a file"
[input]
shape = [5]
minimum = -1.0
maximum = 1.0
[label]
classes = 4
[backbone]
onnx = "given.onnx"
{more}
[training]
steps = 5
batch_size = 4
learning_rate = 0.1
[solved_head]
"""
WEIGHT = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)


def given_model(
    *, axes: list[int] | None = None, batch: str | int = "rows", weight: np.ndarray = WEIGHT
) -> onnx.ModelProto:
    """tanh(x W), less the largest value over some axes, under names of its own; `features` is an inner one."""
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["features"]),
        helper.make_node("Tanh", ["features"], ["inner"]),
        helper.make_node("ReduceMax", ["inner"], ["largest"], axes=axes or [1], keepdims=1),
        helper.make_node("Sub", ["inner", "largest"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "given",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 6])],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


def with_second_output(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.output.append(helper.make_tensor_value_info("inner", TensorProto.FLOAT, ["rows", 6]))
    return model


def own_recipe(folder: Path, model: bytes | None, more: str = "") -> Path:
    folder.mkdir()
    (folder / "model.py").write_text(OWN_HEAD)
    (folder / "task.toml").write_text(OWN_TASK.format(more=more))
    if model is not None:
        (folder / "given.onnx").write_bytes(model)
    return folder


def test_what_a_solved_head_needs_follows_from_its_table(tmp_path):
    description = export_random_features(tmp_path)
    assert description.versions_from == "feature statistics"
    assert description.downlink.differences == "exact"
    assert description.solved_head is not None
    assert description.solved_head.solver == "ridge"


REFUSED = {
    "two layers": ({"head": "nn.Sequential(nn.Linear(24, 12), nn.Linear(12, 10))"}, r"needs one nn\.Linear\(24, 10\)"),
    "no bias": ({"head": "nn.Linear(24, 10, bias=False)"}, "with a bias"),
    "what follows": ({"head": "nn.Sequential(nn.Linear(24, 10), nn.Tanh())"}, "leave out what stands behind it"),
    "what comes before": ({"head": "nn.Sequential(nn.Softmax(dim=1), nn.Linear(24, 10))"}, r"into the \[backbone\]"),
    "a grid": ({"more": '[downlink]\ndifferences = "lossy"\nprecision_bits = 3\n'}, 'differences = "exact"'),
    "no ridge": ({"solved_head": EXACT + "ridge = 0.0\n"}, "ridge"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_head_that_can_not_be_solved_is_refused_in_words(tmp_path, what):
    options, words = REFUSED[what]
    with pytest.raises(ConfigurationError, match=words):
        export_random_features(tmp_path, **options)


def test_table_without_its_kind_of_payload_is_refused(tmp_path):
    recipe = write_recipe(tmp_path / "recipe")
    task = recipe / "task.toml"
    task.write_text(f'versions_from = "feature statistics"\n{task.read_text().split("[solved_head]")[0]}')
    with pytest.raises(ConfigurationError, match=r"a task has a table \[solved_head\] where that is"):
        export_bundle(recipe, tmp_path / "bundle")


def test_onnx_file_becomes_the_backbone_as_it_is(tmp_path):
    export_bundle(own_recipe(tmp_path / "recipe", given_model().SerializeToString()), tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.description.input.shape == [5]
    assert bundle.description.backbone is not None
    assert bundle.description.backbone.feature_shape == [6]
    runner = BundleRunner(bundle.description, bundle.files)
    inputs = np.random.default_rng(2).uniform(-1, 1, (7, 5)).astype(np.float32)
    inner = np.tanh(inputs @ WEIGHT)
    features = inner - inner.max(axis=1, keepdims=True)
    np.testing.assert_allclose(runner.features(inputs), features, atol=1e-6)
    weights = read_weights(bundle.files[WEIGHTS_FILE], bundle.description.parameters)
    scores = features @ weights[:24].reshape(4, 6).T + weights[24:]
    np.testing.assert_allclose(runner.predict(weights, inputs), scores, atol=1e-5)
    assert BACKBONE_FILE in bundle.files


WRONG_FILES = {
    "none": (None, "can't be read"),
    "no model": (b"hello", "is no ONNX model"),
    "samples that are compared": (
        given_model(axes=[0]).SerializeToString(),
        "when other samples stand beside it",
    ),
    "one row alone": (given_model(batch=1).SerializeToString(), r"must take float32 \[N"),
    "two outputs": (with_second_output(given_model()).SerializeToString(), "a backbone has one of each"),
    "no number": (given_model(weight=np.nan * WEIGHT).SerializeToString(), "or NaN"),
}


@pytest.mark.parametrize("what", WRONG_FILES)
def test_file_that_is_no_backbone_is_refused_in_words(tmp_path, what):
    model, words = WRONG_FILES[what]
    with pytest.raises(ConfigurationError, match=words):
        export_bundle(own_recipe(tmp_path / "recipe", model), tmp_path / "bundle")


@pytest.mark.parametrize(
    ("more", "words"),
    [('module = "features"', "write one of them"), ('quantise = "int8"', "its weights as they are")],
    ids=["module and file", "whole numbers of a file"],
)
def test_settings_of_a_given_backbone_that_contradict_each_other_are_refused(tmp_path, more, words):
    with pytest.raises(ConfigurationError, match=words):
        export_bundle(own_recipe(tmp_path / "recipe", None, more), tmp_path / "bundle")
