"""One device's change to the weights."""

from typing import Annotated

import msgspec

from fleet_protocol.cluster_plan import Cluster
from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.payload import Count
from fleet_protocol.limits import MAX_BLOCKS, MAX_UPDATE_BYTES
from fleet_protocol.privacy.sample_privacy import MOST_NOISE

Noise = Annotated[float, msgspec.Meta(ge=0, le=MOST_NOISE)]
SamplesOfBlocks = Annotated[tuple[Count, ...], msgspec.Meta(max_length=MAX_BLOCKS)]


class Update(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One device's change to the weights; `packed` is for `fleet_protocol.codec`, `loss` is that of the version that it
    began with, on its first mini-batch.

    `life` is for tasks with EF21 and does not travel where it is 0: the updates of one life add up to one estimate.
    `held` is for tasks with a `split`: of each block the samples that trained it here, 0 where it was another's. Only
    the tensors of blocks above 0 are in `packed` then. Left out, `samples` trained all of them. `cluster` is for tasks
    with `clusters`: which copy of the parameters it trained. `noise` is for tasks whose owners choose it: the noise
    multiplier of its steps, 0 for none. Left out, it is the task's.
    """

    samples: int
    steps: int
    loss: float
    packed: bytes
    life: Count = 0
    held: SamplesOfBlocks = ()
    cluster: Cluster = 0
    noise: Noise | None = None


UPDATE = PayloadKind(6, Update, Leaf.UP, max_bytes=MAX_UPDATE_BYTES, journalled=True)
