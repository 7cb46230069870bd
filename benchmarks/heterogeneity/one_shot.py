"""Divide and conquer: devices train by themselves, and their models are averaged once (Guha et al. 2019).

The baseline of every method that talks: each device makes as many steps as it would in the fleet, and sends one model.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from benchmarks.heterogeneity.divisions import Device
from edge_agent.core.sample_budget import steps_of_round
from edge_agent.training.engine import TrainingEngine, plan_batches
from edge_agent.training.personal.own_model import steps_on
from edge_agent.training.personal.parts import train_in_turn
from fleet_protocol.codec import own_places
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.task_description import TaskDescription

OneShot = Literal["models", "heads"]
"""What is averaged: all of the model, or its head on the common layers that all devices begin with."""


def averaged_once(
    engine: TrainingEngine,
    start: FloatVector,
    task: TaskDescription,
    devices: Sequence[Device],
    what: OneShot,
    *,
    rounds: int,
    seed: int,
) -> FloatVector:
    """The mean f32[P] of what devices make of `start` f32[P] in the steps of so many rounds, by their samples; of
    `heads`, only the `[personal]` parameters of the `task` train.
    """
    total = np.zeros(start.size, np.float64)
    for number, device in enumerate(devices):
        count = rounds * steps_of_round(task.training, len(device.training))
        planned = steps_on(engine, device.training, task, seed + number, plan_batches)(count)
        if what == "models":
            trained = planned.together(start)[0]
        else:
            trained = train_in_turn(planned, start, own_places(task), count)[0]
        total += len(device.training) * trained.astype(np.float64)
    return (total / sum(len(each.training) for each in devices)).astype(np.float32)
