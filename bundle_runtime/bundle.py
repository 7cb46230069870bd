"""A task bundle in memory. Pure."""

from dataclasses import dataclass

import msgspec

from fleet_protocol.bundle_files import DESCRIPTION_FILE, WEIGHTS_FILE, blob_hash
from fleet_protocol.codec import Grid, read_weights, with_copies
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.task_description import TaskDescription


@dataclass(frozen=True, slots=True)
class Bundle:
    """The content of every file of a verified bundle, by name. `hash` is that of its `task.json`."""

    description: TaskDescription
    files: dict[str, bytes]

    @property
    def hash(self) -> str:
        """SHA-256 of `task.json`, which identifies the bundle."""
        return blob_hash(self.files[DESCRIPTION_FILE])

    @property
    def weights(self) -> bytes:
        """The safetensors file of the untrained model."""
        return self.files[WEIGHTS_FILE]

    def first_version(self) -> FloatVector:
        """What the bundle's own version holds, before it is rounded: f32[V], of which every copy is the model."""
        return with_copies(read_weights(self.weights, self.description.parameters), self.description)

    def grid(self) -> Grid | None:
        """The grid that published versions lie on, if the task rounds them."""
        plan = self.description.downlink
        if plan.differences != "lossy":
            return None
        return Grid.below(self.first_version(), self.description.version.shapes, plan.precision_bits)


def written(description: TaskDescription) -> bytes:
    """The content of `task.json`: the same description gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(description), indent=2) + b"\n"


def with_description(bundle: Bundle, description: TaskDescription) -> Bundle:
    """The same files, described otherwise: another bundle."""
    return Bundle(description, {**bundle.files, DESCRIPTION_FILE: written(description)})
