"""Parameters that never leave the device, trained in turn with the shared ones: FedRep (Collins et al. 2021). Pure.

Algorithm 1: the head in `first_steps` steps with the representation held, then the representation with the head held.
FedPer (Arivazhagan et al. 2019) and FedBN (Li et al. 2021) train both in each step, as every round does.
"""

import numpy as np
from numpy.typing import NDArray

from edge_agent.training.engine import OnProgress, ignore_progress
from edge_agent.training.personal.steps import Steps
from fleet_protocol.codec.sparse import FloatVector


def steps_alone(first_steps: int, planned: int, steps: int) -> int:
    """How many of a round's `steps`, two or more, train the personal parameters alone, where it is `first_steps` of so
    many `planned`: a device with few samples has shorter rounds, and still trains both.
    """
    return min(max(1, first_steps * steps // planned), steps - 1)


def train_in_turn(
    steps: Steps,
    weights: FloatVector,
    own: NDArray[np.bool_],
    first_steps: int,
    on_progress: OnProgress = ignore_progress,
) -> tuple[FloatVector, FloatVector]:
    """The weights f32[P] behind all steps, and the loss of each: `first_steps` of them move only the entries that are
    `own`, bool [P], the others only the rest.
    """

    def held(step: int, before: FloatVector, after: FloatVector) -> FloatVector:
        moves = own if step < first_steps else ~own
        return np.where(moves, after, before)

    return steps.singly(weights, held, on_progress)
