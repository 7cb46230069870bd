"""What a round computes while its task awaits the fleet's scale: how the device's samples are distributed. Pure."""

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.samples import Samples
from edge_agent.worker.contract import TrainingResult
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.codec import Moments
from fleet_protocol.scaling import Scale


def measure(samples: Samples, task: TaskDescription) -> TrainingResult:
    """The moments of each column whose scale is awaited; nothing is trained."""
    pairs = ((samples.inputs, task.scaling.inputs), (samples.labels, task.scaling.targets))
    awaited = [_moments(values, scale) for values, scale in pairs if scale is not None and scale.awaited]
    first, *rest = awaited
    for each in rest:
        first = first.beside(each)
    return TrainingResult(
        packed=b"",
        residual=b"",
        samples=len(samples),
        steps=0,
        trained_through=samples.newest,
        loss=0.0,
        statistics=first.encode(),
    )


def _moments(values: NDArray[np.generic], scale: Scale) -> Moments:
    return Moments.of(values.astype(np.float32).reshape(-1, len(scale.mean)))
