"""One fleet in virtual time, and what its models are worth to each device."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.heterogeneity.calibration import Answers, calibration_error
from benchmarks.heterogeneity.divisions import Device
from benchmarks.heterogeneity.methods import Method
from benchmarks.heterogeneity.one_shot import averaged_once
from benchmarks.mnist_fleet import TRAINING_AT_A_TIME, unequal_fleet
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.drawn_models import DrawnModels
from bundle_runtime.runner import BundleRunner, bundle_paths
from bundle_runtime.samples import Samples
from edge_agent.training.engine import plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from edge_agent.training.personal.adaptation import adapt
from edge_agent.training.personal.own_model import steps_on
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.codec import read_distribution, read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.personal_plan import USUAL_ADAPTATION
from fleet_protocol.task_description import TaskDescription
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.workload import trained_workload


class Scores(msgspec.Struct, frozen=True):
    """Shares of right answers on what devices hold out, each device tested on its own; in per cent.

    `shared` is the fleet's model, `adapted` the same after some steps on the device's own samples, `own` what the
    device answers with: its own model where the method gives it one, else the shared one. `worst_tenth` is the mean of
    the tenth of the devices that are served worst by `own`. `calibration_error` is how far the probabilities of what
    devices answer are from how often they are right, over all devices' samples. `clusters` have a device; `alike` is
    the share of all devices that are in a cluster and there of the kind that most are of.
    """

    shared: float
    adapted: float
    own: float
    worst_tenth: float
    calibration_error: float
    refused: int
    clusters: int
    alike: float


def run(
    folder: Path, method: Method, devices: Sequence[Device], learning_rate: float, seed: int, *, updates: int
) -> Scores:
    """One simulation of so many updates on the bundle in `folder`, which is of the method's graphs; or as many steps
    on each device by itself, where models are averaged once.
    """
    loaded = load_bundle(folder)
    task = method.changed(loaded.description, learning_rate)
    if method.one_shot is not None:
        engine = OnnxStepEngine.of_task(task, bundle_paths(folder, task))
        start = read_weights(loaded.weights, task.parameters)
        rounds = updates // len(devices)
        shared = averaged_once(engine, start, task, devices, method.one_shot, rounds=rounds, seed=seed)
        return scores(folder, task, devices, Found(shared), seed)
    held_out = _joined([each.held_out for each in devices])
    workload = trained_workload(folder, task, [each.training for each in devices], held_out)
    options = Options(
        seed=seed, seconds=math.inf, updates=updates, score_every=updates, concurrent=TRAINING_AT_A_TIME, plain=True
    )
    fleet = unequal_fleet(seed, len(devices))
    simulation = Simulation(fleet, Bundle(task, loaded.files), workload, options)
    refused = simulation.run().summary.refused
    found = Found(
        simulation.model,
        [simulation.model_of(agent) for agent in simulation.agents],
        [agent.cluster for agent in simulation.agents],
        sum(count.times for count in refused.values()),
        None if task.posterior is None else simulation.version_to_use,
    )
    return scores(folder, task, devices, found, seed)


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a method: the `shared` model f32[P]; by device the model that it answers with, where that is
    another, and its cluster, where there are some; how many updates were refused; and the `version`, where it
    is a distribution.
    """

    shared: FloatVector
    own: Sequence[FloatVector] = ()
    clusters: Sequence[int] = ()
    refused: int = 0
    version: bytes | None = None


def scores(folder: Path, task: TaskDescription, devices: Sequence[Device], found: Found, seed: int) -> Scores:
    """What it is worth to each device."""
    files = bundle_paths(folder, task)
    runner, engine = BundleRunner(task, files), OnnxStepEngine.of_task(task, files)

    def adapted(device: Device) -> FloatVector:
        planned = steps_on(engine, device.training, task, seed, plan_batches)
        return adapt(planned(USUAL_ADAPTATION), found.shared)

    def right(models: Iterable[FloatVector]) -> list[float]:
        pairs = zip(models, devices, strict=True)
        return [runner.evaluate_features(model, each.held_out).accuracy or 0.0 for model, each in pairs]

    models = found.own or [found.shared] * len(devices)
    answers = [
        Answers.of(_scores(found, model, each.held_out, task, runner), each.held_out.labels)
        for model, each in zip(models, devices, strict=True)
    ]
    own = [float(each.right.mean()) for each in answers]
    kinds = Counter(zip(found.clusters, (device.kind for device in devices), strict=False))
    joined = {cluster for cluster, _ in kinds if cluster != NO_CLUSTER}
    alike = sum(max(count for (each, _), count in kinds.items() if each == cluster) for cluster in joined)
    return Scores(
        shared=_per_cent(right(found.shared for _ in devices)),
        adapted=_per_cent(right(map(adapted, devices))),
        own=_per_cent(own),
        worst_tenth=_per_cent(sorted(own)[: max(1, len(own) // 10)]),
        calibration_error=round(100 * calibration_error(answers), 2),
        refused=found.refused,
        clusters=len(joined),
        alike=round(100 * alike / len(devices), 2),
    )


def _scores(
    found: Found, model: FloatVector, samples: Samples, task: TaskDescription, runner: BundleRunner
) -> NDArray[np.float32]:
    """What a device's model says; of a distribution, the models drawn from it together."""

    def scores_of(weights: FloatVector) -> NDArray[np.float32]:
        return runner.predict_features(weights, samples.inputs)

    if task.posterior is None or found.version is None:
        return scores_of(model)
    mean, deviation = read_distribution(found.version, task, task.posterior)
    return DrawnModels(mean, deviation, task.posterior.draws, has_classes=True).predict(scores_of)[0]


def _joined(parts: Sequence[Samples]) -> Samples:
    inputs = np.concatenate([each.inputs for each in parts])
    return Samples(inputs, np.concatenate([each.labels for each in parts]), len(inputs))


def _per_cent(shares: Sequence[float]) -> float:
    return round(100 * float(np.mean(shares)), 2)
