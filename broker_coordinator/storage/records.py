"""What the journal keeps, as values: accepted updates and versions. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_state import Remembered, ServerState
from fleet_protocol.bundle import Parameter
from fleet_protocol.codec import decode_update, read_weights
from fleet_protocol.encryption import opened_payload
from fleet_protocol.envelope import read_envelope
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import Update, decode_payload
from fleet_protocol.limits import MAX_UPDATE_BYTES


@dataclass(frozen=True, slots=True)
class JournalledUpdate:
    """One accepted update. `version` is the one that holds it, None while it is buffered.

    `samples` are those that count, `loss` is the device's mean in training, `norm` the delta's. `envelope` is None once
    the retention rule has dropped it.
    """

    position: int
    device: str
    sequence: int
    digest: bytes
    task: str
    base_version: int
    staleness: int
    samples: int
    loss: float
    norm: float
    envelope: bytes | None
    version: int | None

    def buffered(self, shapes: Sequence[Sequence[int]], key: SigningKey | None) -> BufferedUpdate:
        """The update as aggregation takes it; encrypted ones are journalled as they came, and opened with `key`.

        Raises:
            ConfigurationError: its envelope is dropped.
        """
        if self.envelope is None:
            raise ConfigurationError(
                f"the envelope of update {self.sequence} of {self.device}, in version {self.version}, is dropped; begin"
                " at a later version, or raise [retention] envelopes to keep more of them"
            )
        update = decode_payload(opened_payload(read_envelope(self.envelope, MAX_UPDATE_BYTES), key), Update)
        delta = decode_update(update.packed, shapes)
        return BufferedUpdate(self.device, delta, self.samples, self.base_version, self.staleness, update.life)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a task's weights, as a safetensors file, with the moments of the server's optimiser,
    float32, one after the other.

    `unrounded` are the weights that the next version is made from, float32; empty where they are `weights` themselves.
    `restored` is the version that a rollback took all of it from.
    """

    task: str
    number: int
    weights: bytes
    weights_hash: str
    moments: bytes
    unrounded: bytes = b""
    restored: int | None = None

    def state(self, parameters: Sequence[Parameter], remembered: Remembered) -> ServerState:
        """The version as the next one is made from it; `remembered` as in `ServerState`."""
        published = read_weights(self.weights, parameters)
        weights = np.frombuffer(self.unrounded, "<f4") if self.unrounded else published
        moments = np.frombuffer(self.moments, "<f4").reshape(-1, weights.size)
        return ServerState(self.number, weights, moments, remembered)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a version is on held-out samples: mean loss, and the share of right answers where labels are classes."""

    version: int
    samples: int
    loss: float
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """A version without its weights. `updates`, `mean_loss` and `mean_staleness` are of the updates that it holds."""

    number: int
    weights_hash: str
    restored: int | None
    kept: bool
    updates: int
    mean_loss: float | None
    mean_staleness: float | None
    evaluation: Evaluation | None
