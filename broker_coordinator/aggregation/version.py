"""A version of a task's weights as it is stored and published, and how it is made from a server's state. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from broker_coordinator.aggregation.harm import Tempering
from broker_coordinator.aggregation.server_state import Remembered, ServerState
from broker_coordinator.aggregation.server_step import initial_state
from bundle_runtime.bundle import Bundle
from fleet_protocol.bundle_files import blob_hash
from fleet_protocol.codec import Grid, factor_places, read_weights, write_weights
from fleet_protocol.parameter import Parameter
from fleet_protocol.task_description import TaskDescription


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a task's weights, as a safetensors file, with the moments of the server's optimiser,
    float32, one after the other.

    `unrounded` are the weights that the next version is made from, float32; empty where they are `weights` themselves.
    `restored` is the version that a rollback took all of it from. The next version takes `buffer_size` updates, or as
    many as the task says where that is None; `step` and `clip` as in `ServerState`. `given` says what the weights are,
    where no payloads made them. `tempers_since`, `tempers_until` and `tempers_not_until` are the last
    `Tempering`.
    """

    task: str
    number: int
    weights: bytes
    weights_hash: str
    moments: bytes
    unrounded: bytes = b""
    restored: int | None = None
    buffer_size: int | None = None
    step: float = 1.0
    given: str | None = None
    clip: float | None = None
    tempers_since: int | None = None
    tempers_until: int | None = None
    tempers_not_until: int | None = None

    @property
    def tempering(self) -> Tempering | None:
        """The last one; None before devices were harmed."""
        if self.tempers_since is None or self.tempers_until is None:
            return None
        return Tempering(self.tempers_since, self.tempers_until, self.tempers_not_until)

    def state(self, parameters: Sequence[Parameter], remembered: Remembered) -> ServerState:
        """The version as the next one is made from it; `remembered` as in `ServerState`."""
        published = read_weights(self.weights, parameters)
        weights = np.frombuffer(self.unrounded, "<f4") if self.unrounded else published
        moments = np.frombuffer(self.moments, "<f4").reshape(-1, weights.size)
        return ServerState(self.number, weights, moments, remembered, self.step, self.clip)


def version_of(description: TaskDescription, state: ServerState, grid: Grid | None) -> Version:
    """A version as it is stored: with a `grid`, devices get the rounded weights and the next version the true ones."""
    published = state.weights if grid is None else grid.rounded(state.weights, description.version.shapes)
    weights = write_weights(published, description.version.parameters)
    unrounded = b"" if grid is None else state.weights.astype("<f4").tobytes()
    moments = state.moments.astype("<f4").tobytes()
    name, number, digest = description.task, state.version, blob_hash(weights)
    return Version(name, number, weights, digest, moments, unrounded, step=state.step, clip=state.clip)


def version_zero(bundle: Bundle, number: int = 0) -> Version:
    """A bundle's own version: rounded to the grid if there is one, or with copies for clusters or precisions; else the
    bundle's own file, byte for byte.

    Its `number` is 0 unless the task has had another bundle before.
    """
    description = bundle.description
    grid = bundle.grid()
    plan = description.posterior
    factor = None if plan is None else factor_places(description, plan)
    state = initial_state(bundle.first_version(), description.aggregation, factor)
    if grid is not None or description.version.size != description.parameter_count:
        return replace(version_of(description, state, grid), number=number)
    moments = state.moments.astype("<f4").tobytes()
    return Version(description.task, number, bundle.weights, blob_hash(bundle.weights), moments)
