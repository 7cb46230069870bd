"""What a round computes while its task awaits the fleet's scale: how the device's samples are distributed. Pure."""

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.samples import Samples
from edge_agent.worker.contract import TrainingResult
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.codec import Moments
from fleet_protocol.scaling import DEVIATION_OF_CONSTANTS, MOST_DEVIATIONS, Scale


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


def unlike_the_fleet(samples: Samples, task: TaskDescription, deviations: float = MOST_DEVIATIONS) -> str:
    """Which column of this device's samples has a mean so many of the fleet's deviations from the fleet's, in words;
    empty where none has.
    """
    for name, values, scale in (
        ("input", samples.inputs, task.scaling.inputs),
        ("label", samples.labels, task.scaling.targets),
    ):
        if scale is None:
            continue
        moments = _moments(values, scale)
        distances = np.abs(moments.means - scale.mean) / scale.deviation
        varies = np.array(scale.deviation) != DEVIATION_OF_CONSTANTS
        far = (distances > deviations) & varies & (moments.counts > 0)
        if far.any():
            column = int(np.argmax(far))
            return (
                f"{name} {column} has the mean {moments.means[column]:.4g} on this device, {scale.mean[column]:.4g} in"
                f" the fleet, which is {distances[column]:.3g} of its deviations away"
            )
    return ""


def _moments(values: NDArray[np.generic], scale: Scale) -> Moments:
    return Moments.of(values.astype(np.float32).reshape(-1, len(scale.mean)))
