"""Which version of a task is current."""

from typing import Annotated

import msgspec

from fleet_protocol.bundle_files import BlobHash
from fleet_protocol.cohort import EVERYONE
from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.payload import Count
from fleet_protocol.kinds.selection import Selection
from fleet_protocol.limits import MAX_COHORT_MANIFEST_BYTES, MAX_CONTROL_BYTES, MAX_GENERATION
from fleet_protocol.shards import Shards


class Manifest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The current version of a task. `bundle` is the SHA-256 of `task.json`, `weights` that of the safetensors.

    `selection_threshold` is for tasks that work in rounds (`fleet_protocol.cohort`). A manifest of a higher
    `generation` replaces whatever a device knew; within one, the higher version does. `removed`: the task has ended.
    `cohort` is for tasks with `[privacy.masks]`: the coordinator's signed manifest of the cohort that is open, as an
    encoded `Signed`; empty where none is. `shards` are those of the fleet, of which each device finds its own
    (`fleet_protocol.shards`); empty where nothing is said of them, and devices stay where they are. `selection` is for
    tasks with `[selection]`; left out, everybody trains.
    """

    version: Count
    bundle: BlobHash
    weights: BlobHash
    selection_threshold: Annotated[int, msgspec.Meta(ge=1, le=EVERYONE)] = EVERYONE
    generation: Annotated[int, msgspec.Meta(ge=0, le=MAX_GENERATION)] = 0
    removed: bool = False
    cohort: Annotated[bytes, msgspec.Meta(max_length=MAX_COHORT_MANIFEST_BYTES)] = b""
    shards: Shards = ()
    selection: Selection | None = None


MANIFEST = PayloadKind(3, Manifest, Leaf.TASK, max_bytes=MAX_CONTROL_BYTES)
