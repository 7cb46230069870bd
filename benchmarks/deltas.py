"""Deltas to compress: Gaussian noise, whose largest entries lie anywhere, and what training really changes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.mnist import Digits, read_mnist
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE, TRAIN_FILE, WEIGHTS_FILE
from fleet_protocol.codec import read_weights
from fleet_protocol.codec.sparse import FloatVector
from workbench.data.digits import split_digits
from workbench.recipe_folder import find_recipe

SEED = 1
LEARNING_RATE = 0.05
BATCH_SIZE = 16
WARM_UP_STEPS = 100
STEPS = 40
DEVICE_SAMPLES = 300
DEVICE_CLASSES = 4
CNN_WIDTHS = {10_000: (4, 24), 100_000: (12, 82), 1_000_000: (32, 312)}
"""Channels and hidden units that make an MNIST network of about so many parameters."""


@dataclass(frozen=True, slots=True)
class Delta:
    """One round's change; `positions` says whether it was drawn ("uniform") or trained ("real")."""

    positions: str
    vector: FloatVector
    shapes: list[tuple[int, ...]]


def noise(parameters: int) -> Delta:
    """A single tensor of Gaussian noise."""
    vector = np.random.default_rng(SEED).standard_normal(parameters, dtype=np.float32)
    return Delta("uniform", vector, [(parameters,)])


def digits_round() -> Delta:
    """One device's round of the shipped recipe, by the shipped engine, from the shipped weights."""
    folder = find_recipe("digits") / "bundle"
    task = parse_description((folder / DESCRIPTION_FILE).read_bytes())
    weights = read_weights((folder / WEIGHTS_FILE).read_bytes(), task.parameters)
    part = split_digits(4, np.random.default_rng(SEED)).parts[0]
    plan = plan_batches(len(part.labels), task.training.steps, task.training.batch_size, SEED)
    trained, _ = OnnxStepEngine(folder / TRAIN_FILE, threads=1).train(weights, part, plan, Rates.planned(task.training))
    return Delta("real", trained - weights, list(task.shapes))


def mnist_round(parameters: int, data: Path) -> Delta:
    """One device's round on four of the digits, from weights that have seen all ten for a while."""
    torch.manual_seed(SEED)
    digits = read_mnist(data)
    network = _cnn(*CNN_WIDTHS[parameters])
    everything = np.arange(len(digits.labels))
    of_device = np.flatnonzero(digits.labels < DEVICE_CLASSES)[:DEVICE_SAMPLES]
    _train(network, digits, everything, WARM_UP_STEPS)
    before = _flat(network)
    _train(network, digits, of_device, STEPS)
    return Delta("real", _flat(network) - before, [tuple(value.shape) for value in network.parameters()])


def _cnn(channels: int, hidden: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * channels * 7 * 7, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )


def _train(network: nn.Module, digits: Digits, rows: np.ndarray, steps: int) -> None:
    optimiser = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    plan = plan_batches(len(rows), steps, BATCH_SIZE, SEED)
    for batch in rows[plan.rows]:
        optimiser.zero_grad()
        scores = network(torch.from_numpy(digits.images[batch]))
        loss = nn.functional.cross_entropy(scores, torch.from_numpy(digits.labels[batch]))
        torch.autograd.backward(loss)
        optimiser.step()


def _flat(network: nn.Module) -> FloatVector:
    return torch.cat([value.detach().ravel() for value in network.parameters()]).numpy().copy()
