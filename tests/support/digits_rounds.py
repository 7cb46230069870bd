"""Rounds on the real graphs of models/digits: samples of ten made-up pictures, and weights that know them."""

from functools import cache
from pathlib import Path

import msgspec
import numpy as np

from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner, bundle_paths
from bundle_runtime.samples import Samples
from edge_agent.training.onnx_step import OnnxStepEngine
from edge_agent.training.own_limits import take_part
from edge_agent.training.round import Earlier, learn
from edge_agent.training.stored_samples import StoredSamples, divide, identities
from edge_agent.worker.contract import TrainingResult, Withheld
from fleet_protocol.codec import read_weights
from fleet_protocol.task_description import TaskDescription

FOLDER = Path(__file__).parents[2] / "models/digits/bundle"
BUNDLE = load_bundle(FOLDER)
RUNNER = BundleRunner(BUNDLE.description, bundle_paths(FOLDER, BUNDLE.description))
ENGINE = OnnxStepEngine.of_task(BUNDLE.description, bundle_paths(FOLDER, BUNDLE.description))
START = read_weights(BUNDLE.weights, BUNDLE.description.parameters)
CENTRES = np.random.default_rng(7).random((10, 64)).astype(np.float32)
NOTHING = Earlier(residual=b"", returned=(), seed=0, life=1)


def planned(**training: float) -> TaskDescription:
    task = BUNDLE.description
    plan = {"epochs_per_round": 10, "maximum_epochs": 0, "validation_share": 0.1} | training
    return msgspec.structs.replace(task, training=msgspec.structs.replace(task.training, **plan))


TASK = planned()


def digits(labels: np.ndarray, seed: int = 0) -> Samples:
    """Samples around a picture for each class, with as much noise as leaves some of them hard to tell."""
    noise = np.random.default_rng(seed).normal(0, 0.3, (labels.size, 64))
    return Samples(np.clip(CENTRES[labels] + noise, 0, 1).astype(np.float32), labels, labels.size)


def stored(samples: Samples, task: TaskDescription = TASK, seen: int = 0) -> StoredSamples:
    """All of them, of which rounds have had the first `seen`."""
    return divide(samples, identities(samples), np.arange(len(samples)) >= seen, task.training.validation_share)


def take(
    samples: StoredSamples, task: TaskDescription = TASK, earlier: Earlier = NOTHING, weights: np.ndarray = START
) -> TrainingResult | Withheld:
    return take_part(
        ENGINE, weights, samples, task, earlier, evaluate=RUNNER.evaluate_features, predict=RUNNER.predict_features
    )


@cache
def learned() -> np.ndarray:
    """Weights that know the classes, of a fleet that has seen all of them."""
    return learn(ENGINE, START, digits(np.arange(2000) % 10, seed=1), TASK, seed=0).weights
