"""A copy of the model that each device keeps to itself, pulled towards the shared one: Ditto (Li et al. 2021). Pure.

Algorithm 1, with the shared model w that the round began with:

    v = v - learning rate * (gradient at v + pull * (v - w))

The pull is FedProx's proximal term with another centre than the weights that a call of the graph begins with, so it is
taken behind each step. A limit of the gradient's norm does not count it. Running statistics are not pulled.
"""

import numpy as np

from edge_agent.training.personal.steps import Steps
from fleet_protocol.codec.sparse import FloatVector


def train_copy(steps: Steps, copy: FloatVector, shared: FloatVector, pull: float, trained: int) -> FloatVector:
    """The copy f32[P] behind all steps; its first `trained` entries are pulled towards `shared` f32[P]."""
    part = np.float32(steps.rates.learning_rate * pull)

    def pulled(_step: int, before: FloatVector, after: FloatVector) -> FloatVector:
        moved = after.copy()
        moved[:trained] -= part * (before - shared)[:trained]
        return moved

    return steps.singly(copy, pulled)[0]
