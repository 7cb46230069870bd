"""Parameters that never leave a device stay as the bundle has them, in every version. Pure.

No update holds a change of them, but the noise that hides devices is added to all of a version.
"""

from dataclasses import replace

import numpy as np

from broker_coordinator.aggregation.server_state import ServerState
from fleet_protocol.codec import own_places
from fleet_protocol.task_description import TaskDescription


def unmoved(made: ServerState, before: ServerState, task: TaskDescription) -> ServerState:
    """The version `made` after `before`, with devices' own parameters as they were."""
    return replace(made, weights=np.where(own_places(task), before.weights, made.weights))
