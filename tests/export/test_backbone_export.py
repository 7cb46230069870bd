"""A backbone and a head in one bundle are the model that they were cut from, and only the head trains."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn import functional

from bundle_runtime.backbone import ROWS_AT_ONCE, Backbone
from bundle_runtime.graph import Graph
from bundle_runtime.runner import BundleRunner, bundle_paths
from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.bundle import verify_bundle
from fleet_protocol.bundle_files import BACKBONE_FILE, DESCRIPTION_FILE, EVALUATE_FILE, TRAIN_FILE, WEIGHTS_FILE
from fleet_protocol.codec import read_weights
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription
from tests.support.backbone import INT8, MODEL, NAMED, export_backbone_bundle, write_recipe
from tests.support.training import TOLERANCE
from workbench.export.backbone.backbone import split
from workbench.export.backbone.int8_precision import LARGEST_ERROR, terms_of_weights
from workbench.export.backbone.int8_weights import LARGEST, quantise, quantise_weights
from workbench.export.conversion.onnx_conversion import checked_model
from workbench.export.recipe.recipe import read_recipe

ROWS = 2 * ROWS_AT_ONCE + 3
READS_EVERYTHING = """
    all (float[1,2,8,8] image, float[1,20] row, float[1,40] wide, int64[4] tokens, float[16,16] square)
    => (float[1,9,8,8] a, float[1,30] b, float[1,30] c, float[4,33] d, float[16,16] e, float[3,3] f)
    {
        convolved = Conv <pads = [1, 1, 1, 1]> (image, conv)
        a = ConvTranspose <pads = [1, 1, 1, 1]> (convolved, transpose)
        b = Gemm (row, gemm)
        c = Gemm <transB = 1> (wide, turned)
        embedded = Gather (rows, tokens)
        d = MatMul (embedded, matmul)
        product = MatMul (square, shared)
        e = Add (product, shared)
        f = MatMul (small, small)
    }
"""
WITHOUT_DROPOUT = MODEL.replace("nn.Dropout(0.2), ", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    export_backbone_bundle(folder, model=WITHOUT_DROPOUT)
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    return folder / "bundle"


def describe(bundle: Path) -> TaskDescription:
    return verify_bundle({path.name: path.read_bytes() for path in bundle.iterdir()})


def samples() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    return random.random((ROWS, 64), dtype=np.float32), random.integers(0, 10, ROWS)


def initial_weights(bundle: Path) -> np.ndarray:
    return read_weights((bundle / WEIGHTS_FILE).read_bytes(), describe(bundle).parameters)


def test_description_has_the_feature_shape_and_the_head_alone(bundle: Path):
    description = describe(bundle)
    assert description.backbone is not None
    assert description.backbone.feature_shape == [16]
    assert description.input.shape == [64]
    assert BACKBONE_FILE in description.files
    assert {parameter.name.partition(".")[0] for parameter in description.parameters} == {"head"}


def test_whole_model_and_bundle_on_raw_inputs_agree(folder: Path, bundle: Path):
    inputs, labels = samples()
    runner, weights = BundleRunner(describe(bundle), bundle_paths(bundle, describe(bundle))), initial_weights(bundle)
    module = read_recipe(folder / "recipe").module.eval()
    with torch.no_grad():
        expected = module(torch.from_numpy(inputs))
        losses = functional.cross_entropy(expected, torch.from_numpy(labels), reduction="none")
    evaluated = runner.evaluate(weights, Samples(inputs, labels))
    np.testing.assert_allclose(runner.predict(weights, inputs), expected.numpy(), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(evaluated.losses, losses.numpy(), rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(evaluated.correct, expected.numpy().argmax(axis=1) == labels)


def test_training_on_features_ends_where_torch_with_a_frozen_backbone_ends(folder: Path, bundle: Path):
    (inputs, labels), plan = samples(), plan_batches(ROWS, 20, 8, seed=2)
    features = Backbone(bundle / BACKBONE_FILE, 1).features(inputs)
    engine = OnnxStepEngine(bundle / TRAIN_FILE, 1)
    trained, _ = engine.train(initial_weights(bundle), Samples(features, labels), plan, Rates(0.1))

    module = read_recipe(folder / "recipe").module.train()
    module.features.eval().requires_grad_(False)
    optimiser = torch.optim.SGD(module.head.parameters(), lr=0.1)
    for rows in torch.from_numpy(plan.rows):
        optimiser.zero_grad()
        functional.cross_entropy(module(torch.from_numpy(inputs)[rows]), torch.from_numpy(labels)[rows]).backward()
        optimiser.step()
    expected = torch.cat([parameter.detach().ravel() for parameter in module.head.parameters()]).numpy()
    assert np.abs(trained - initial_weights(bundle)).max() > 1e-3
    np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE)


def test_int8_backbone_is_smaller_plain_and_close(bundle: Path, tmp_path: Path):
    (tmp_path / "again").mkdir()
    for place in (tmp_path, tmp_path / "again"):
        export_backbone_bundle(place, backbone=INT8, model=WITHOUT_DROPOUT)
    file = tmp_path / "bundle" / BACKBONE_FILE
    assert file.read_bytes() == (tmp_path / "again" / "bundle" / BACKBONE_FILE).read_bytes()
    model = onnx.load(file)
    assert {entry.domain for entry in model.opset_import} == {""}
    assert "DequantizeLinear" in {node.op_type for node in model.graph.node}
    assert file.stat().st_size < 0.6 * (bundle / BACKBONE_FILE).stat().st_size
    inputs, _ = samples()
    exact = Backbone(bundle / BACKBONE_FILE, 1).features(inputs)
    close = Backbone(file, 1).features(inputs)
    assert 0 < np.linalg.norm(close - exact) < 0.02 * np.linalg.norm(exact)
    as_it_is = onnxruntime.InferenceSession(file).run(["features"], {"inputs": inputs})[0]
    np.testing.assert_allclose(close, as_it_is, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_int8_weights_differ_by_half_a_step_at_most_and_zeros_stay(axis: int):
    """Slices a thousand times smaller than others are as exact as those."""
    random = np.random.default_rng(0)
    weights = np.moveaxis(random.normal(size=(5, 6, 3)) * np.logspace(0, 3, 5).reshape(5, 1, 1), 0, axis)
    weights = weights.astype(np.float32)
    weights[(slice(None),) * axis + (2,)] = 0
    scales, quantised = quantise(weights, axis)
    assert (scales.shape, quantised.dtype) == ((5,), np.int8)
    assert np.abs(quantised.astype(int)).max() == LARGEST
    steps = np.moveaxis(scales.reshape(5, 1, 1), 0, axis)
    assert (np.abs(quantised * steps - weights) <= steps / 2 * (1 + 1e-5)).all()
    assert not quantised[(slice(None),) * axis + (2,)].any()


def test_every_weight_of_every_kind_of_operator_becomes_int8():
    """One scale per output: convolution, its transpose, both ways to multiply, embedding; a shared operand stays."""
    random = np.random.default_rng(0)
    shapes = {"conv": [16, 2, 3, 3], "transpose": [16, 9, 3, 3], "gemm": [20, 30], "turned": [30, 40], "rows": [50, 8]}
    shapes |= {"matmul": [8, 33], "shared": [16, 16], "small": [3, 3]}
    model = onnx.parser.parse_graph(READS_EVERYTHING)
    tensors = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    model.initializer.extend(onnx.numpy_helper.from_array(tensor, name) for name, tensor in tensors.items())
    quantise_weights(model)
    scales = {entry.name: list(entry.dims) for entry in model.initializer if entry.name.endswith(".scales")}
    outputs = {"conv": 16, "transpose": 9, "gemm": 30, "turned": 30, "rows": 50, "matmul": 33}
    assert scales == {f"{name}.scales": [count] for name, count in outputs.items()}
    assert {entry.name for entry in model.initializer if entry.data_type == onnx.TensorProto.FLOAT} == {
        *scales,
        "shared",
        "small",
    }


def rotations(count: int) -> onnx.GraphProto:
    """As many products with random rotations one after the other: each layer's error of rounding reaches the end."""
    random = np.random.default_rng(0)
    nodes = [
        onnx.helper.make_node("MatMul", [f"{number}" if number else "inputs", f"rotation_{number}"], [f"{number + 1}"])
        for number in range(count)
    ]
    nodes[-1].output[0] = "features"
    rows = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 24]) for name in ("inputs", "features")
    ]
    weights = [np.linalg.qr(random.normal(size=(24, 24)))[0].astype(np.float32) for _ in range(count)]
    tensors = [onnx.numpy_helper.from_array(weight, f"rotation_{number}") for number, weight in enumerate(weights)]
    return onnx.helper.make_graph(nodes, "rotations", rows[:1], rows[1:], tensors)


@pytest.mark.parametrize(("layers", "twice"), [(1, False), (30, True)])
def test_weights_get_a_second_int8_tensor_where_errors_of_many_layers_add_up(layers: int, twice: bool):
    graph, inputs = rotations(layers), np.random.default_rng(1).random((8, 24), dtype=np.float32)
    exact = Graph("exact", checked_model(graph).SerializeToString()).run({"inputs": inputs})["features"]
    terms = terms_of_weights(graph, inputs)
    assert set(terms) == {f"rotation_{number}" for number in range(layers)}
    assert (2 in terms.values()) == twice
    quantise_weights(graph, terms)
    close = Graph("close", checked_model(graph).SerializeToString()).run({"inputs": inputs})["features"]
    assert 0 < np.linalg.norm(close - exact) <= LARGEST_ERROR * np.linalg.norm(exact)
    assert {each.data_type for each in graph.initializer if ".int8" in each.name} == {onnx.TensorProto.INT8}


TWO_WAYS = WITHOUT_DROPOUT.replace("self.head(self.features(", "pixels[:, :10] + self.head(self.features(")
TWICE = WITHOUT_DROPOUT.replace(
    "return self.head(self.features(pixels.reshape(-1, 1, 8, 8) * 2 - 1))",
    "images = pixels.reshape(-1, 1, 8, 8); return self.head(self.features(images) + self.features(1 - images))",
)
ALL_ROWS = WITHOUT_DROPOUT.replace("nn.Flatten(),", "nn.Flatten(), Centred(),").replace(
    "class Model",
    "class Centred(nn.Module):\n    def forward(self, rows):\n        return rows - rows.mean(0)\n\nclass Model",
)
BEFORE = WITHOUT_DROPOUT.replace(
    "self.features(pixels.reshape(-1, 1, 8, 8) * 2 - 1)", "self.features(self.stem(pixels).reshape(-1, 1, 8, 8))"
).replace("        self.features = ", "        self.stem = nn.Linear(64, 64)\n        self.features = ")


PAIRED = WITHOUT_DROPOUT.replace("nn.Flatten(),", "nn.Flatten(), Pair(),").replace(
    "class Model",
    "class Pair(nn.Module):\n    def forward(self, rows):\n        return rows, rows\n\nclass Model",
)
PAIRED = PAIRED.replace("* 2 - 1))", "* 2 - 1)[0])")
BOTH = """
class Both(nn.Module):
    def __init__(self, once):
        super().__init__()
        self.once = once

    def forward(self, images):
        return self.once(images) + self.once(1 - images)

class Model"""
AROUND = (
    TWICE.replace("\nclass Model", BOTH)
    .replace("        self.head = ", "        self.features = Both(self.features)\n        self.head = ")
    .replace("self.features(images) + self.features(1 - images)", "self.features(images)")
)
RESTORED = "classes = 10", 'kind = "reconstruction"'
SAME_SHAPE = WITHOUT_DROPOUT.replace("nn.Linear(12, 10)", "nn.Linear(12, 16)")


@dataclass(frozen=True, slots=True)
class NoComposition:
    """A recipe that can't be cut, what is said of it, and what was changed as that says."""

    model: str
    message: str
    remedied: str
    module: str = NAMED
    module_remedied: str = NAMED
    more_remedied: str = ""
    edit: tuple[str, str] = ("", "")


UNCUT = {
    "no such module": NoComposition(
        MODEL,
        r"'feature' is no submodule of the model; it has 'features', 'head'; name one",
        MODEL,
        module='module = "feature"',
    ),
    "another way": NoComposition(
        TWO_WAYS,
        r"isn't the only way from the inputs to the outputs: .* differ by \d.*; name a submodule that every path",
        WITHOUT_DROPOUT,
    ),
    "runs twice": NoComposition(
        TWICE, r"runs 2 times for one input; name one that runs once, such as one around them all", AROUND
    ),
    "mixes rows": NoComposition(
        ALL_ROWS,
        r"other features when other samples stand beside it, .*; normalise each one by itself, as LayerNorm does",
        ALL_ROWS.replace("Centred(),", "nn.LayerNorm(16),"),
    ),
    "no tensor": NoComposition(
        PAIRED,
        r"gives tuple; name one that gives a float32 tensor",
        PAIRED,
        module_remedied='module = "features.7"',
        more_remedied='trainable = ["head.*"]',
    ),
    "restores nothing": NoComposition(
        WITHOUT_DROPOUT,
        r"gives features \(16,\); label\.kind 'reconstruction' .* it gives \(10,\); let it end in that shape",
        SAME_SHAPE,
        edit=RESTORED,
    ),
    "trains in front": NoComposition(
        BEFORE,
        r"after the parameter 'stem\.weight', which can't train then; write trainable = \['head\.\*'\]",
        BEFORE,
        more_remedied='trainable = ["head.*"]',
    ),
}


@pytest.mark.parametrize("name", UNCUT)
def test_model_that_is_no_composition_is_refused_with_what_to_change(tmp_path: Path, name: str):
    case = UNCUT[name]
    folders = [
        write_recipe(tmp_path / "recipe", model=case.model, backbone=case.module),
        write_recipe(tmp_path / "good", model=case.remedied, backbone=case.module_remedied, more=case.more_remedied),
    ]
    for folder in folders:
        task = folder / "task.toml"
        task.write_text(task.read_text().replace(*case.edit).replace("loss =", "#" if case.edit[0] else "loss ="))
    with pytest.raises(ConfigurationError, match=rf"task\.toml: backbone\.module .*{case.message}"):
        split(read_recipe(folders[0]))
    split(read_recipe(folders[1]))


def test_what_stands_before_the_backbone_is_frozen_with_it_if_it_is_not_to_train(tmp_path: Path):
    recipe = read_recipe(write_recipe(tmp_path / "recipe", model=BEFORE, more='trainable = ["head.*"]'))
    inputs = torch.from_numpy(samples()[0])
    halves = split(recipe)
    with torch.no_grad():
        composed = halves.head.module(halves.features(inputs))
        torch.testing.assert_close(composed, recipe.module(inputs), rtol=0, atol=TOLERANCE)


def test_pattern_inside_the_backbone_is_refused(tmp_path: Path):
    with pytest.raises(
        ConfigurationError, match=r"'features\.\*' fits no parameter outside of the backbone 'features'"
    ):
        read_recipe(write_recipe(tmp_path / "recipe", more='trainable = ["features.*"]'))


def test_description_and_file_of_a_backbone_belong_together(bundle: Path):
    files = {path.name: path.read_bytes() for path in bundle.iterdir()}
    files[DESCRIPTION_FILE] = files[DESCRIPTION_FILE].replace(BACKBONE_FILE.encode(), b"spine.onnx")
    with pytest.raises(ConfigurationError, match=r"`backbone` and backbone\.onnx in `files` belong together"):
        verify_bundle(files)


def test_evaluate_graph_takes_features(bundle: Path):
    session = onnxruntime.InferenceSession(bundle / EVALUATE_FILE)
    assert [entry.shape[1:] for entry in session.get_inputs() if entry.name == "inputs"] == [[16]]
