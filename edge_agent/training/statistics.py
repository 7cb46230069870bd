"""What a round computes while its task awaits the fleet's scale: how the device's samples are distributed. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.samples import Samples
from edge_agent.worker.contract import TrainingResult
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.codec import Moments
from fleet_protocol.scaling import DEVIATION_OF_CONSTANTS, MOST_DEVIATIONS, Block, Scale


def measure(samples: Samples, task: TaskDescription) -> TrainingResult:
    """The moments of each column whose scale is awaited; nothing is trained."""
    awaited = [_moments(part.values, part.blocks) for part in _scaled(samples, task) if part.scale.awaited]
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
    for part in _scaled(samples, task):
        scale = part.scale
        moments = _moments(part.values, part.blocks)
        distances = np.abs(moments.means - scale.mean) / scale.deviation
        varies = np.array(scale.deviation) != DEVIATION_OF_CONSTANTS
        far = (distances > deviations) & varies & (moments.counts > 0)
        if far.any():
            column = int(np.argmax(far))
            return (
                f"{part.name} {column} has the mean {moments.means[column]:.4g} on this device,"
                f" {scale.mean[column]:.4g} in the fleet, which is {distances[column]:.3g} of its deviations away"
            )
    return ""


@dataclass(frozen=True, slots=True)
class _Scaled:
    """What a sample has of one kind, [N, ...], and the scale of the blocks in it."""

    name: str
    values: NDArray[np.generic]
    blocks: Sequence[Block]
    scale: Scale


def _scaled(samples: Samples, task: TaskDescription) -> list[_Scaled]:
    """Inputs and targets, where they have a scale."""
    parts = (
        ("input", samples.inputs, task.input_blocks, task.scaling.inputs),
        ("label", samples.labels, task.target_blocks, task.scaling.targets),
    )
    return [_Scaled(name, values, blocks, scale) for name, values, blocks, scale in parts if scale is not None]


def _moments(values: NDArray[np.generic], blocks: Sequence[Block]) -> Moments:
    table = values.astype(np.float32).reshape(len(values), -1)
    first, *others = (Moments.of(table[:, block.place].reshape(-1, block.columns)) for block in blocks)
    for other in others:
        first = first.beside(other)
    return first
