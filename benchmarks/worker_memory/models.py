"""The models that workers are measured with, each exported with the points of its blocks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.model_zoo.image_models import resnet8
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from fleet_protocol.training_plan import TrainingPlan
from fleet_protocol.update_plan import UpdatePlan
from models.keyword_dscnn.model import build as keyword_dscnn
from models.mnist_cnn.model import build as mnist_cnn
from workbench.export.bundle_writer import bundle_files
from workbench.export.recipe.recipe import Recipe
from workbench.export.recipe.scaling import ScalingSettings
from workbench.export.recipe.task_file import SplitSettings, TaskFile

CLASSES = 10
STEPS = 4
"""Of a round: more of them take no more memory."""
FEWEST_ROWS = 8
"""At which the export looks at the graphs; measured is with others."""


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """A module that takes f32[N, *shape] and gives scores f32[N, 10]; `points` end its blocks."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    points: tuple[str, ...]
    optimiser: Literal["momentum", "adam"] = "momentum"


class Recurrence(nn.Module):
    """A recurrent layer that gives its outputs alone."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, sequence: Tensor) -> Tensor:
        """f32[N, T, inputs] to f32[N, T, outputs]."""
        outputs: Tensor = self.layer(sequence)[0]
        return outputs


def stacked_gru() -> nn.Module:
    """Three layers over 50 readings of six values."""
    layers = [Recurrence(nn.GRU(*sizes, batch_first=True)) for sizes in ((6, 24), (24, 24), (24, 12))]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(50 * 12, CLASSES))


def stacked_lstm() -> nn.Module:
    """Two layers over 64 readings of four values."""
    layers = [Recurrence(nn.LSTM(*sizes, batch_first=True)) for sizes in ((4, 32), (32, 16))]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, CLASSES))


def perceptron() -> nn.Module:
    """400,000 parameters, most of them in the first two blocks, and little that is alive in a step."""
    wide, narrow = 4096, 32
    return nn.Sequential(
        *(nn.Linear(64, wide), nn.ReLU()),
        *(nn.Linear(wide, narrow), nn.ReLU()),
        *(nn.Linear(narrow, narrow), nn.ReLU()),
        nn.Linear(narrow, CLASSES),
    )


MODELS: dict[str, MeasuredModel] = {
    "mnist_cnn": MeasuredModel(mnist_cnn, (1, 28, 28), ("2", "4")),
    "resnet8": MeasuredModel(resnet8, (3, 32, 32), ("0", "2", "4", "6")),
    "perceptron": MeasuredModel(perceptron, (64,), ("1", "3", "5"), optimiser="adam"),
    "stacked_gru": MeasuredModel(stacked_gru, (50, 6), ("0", "1", "2")),
    "keyword_dscnn": MeasuredModel(keyword_dscnn, (1, 49, 10), ("2", "8", "14"), optimiser="adam"),
    "stacked_lstm": MeasuredModel(stacked_lstm, (64, 4), ("0", "1")),
}


def export(name: str, folder: Path) -> Path:
    """Write the bundle of one of `MODELS` into a folder of that name; returns that."""
    model = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = model.make()
    task = TaskFile(
        task=name,
        title=name,
        input=InputSchema(list(model.shape), -1.0, 1.0),
        label=LabelSchema(CLASSES),
        training=TrainingPlan(STEPS, FEWEST_ROWS, 0.01, optimiser=model.optimiser),
        update=UpdatePlan(keep_fraction=0.1),
        aggregation=AggregationPlan(buffer_size=1),
        loss="cross_entropy",
        scaling=ScalingSettings(inputs="off"),
        split=SplitSettings(points=model.points),
    )
    (folder / name).mkdir()
    for file, content in bundle_files(Recipe(Path(), task, module), tell=_nobody).items():
        (folder / name / file).write_bytes(content)
    return folder / name


def _nobody(_words: str) -> None:
    """What an export tells people is not of interest here."""
