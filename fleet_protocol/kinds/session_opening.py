"""A device asks for a helper."""

from typing import Annotated

import msgspec

from fleet_protocol.cluster_plan import NO_CLUSTER, Cluster
from fleet_protocol.configuration import Name
from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.kinds.session_fields import BundleHash, PublicKeyBytes, SessionName
from fleet_protocol.limits import MAX_HELPERS_LEFT_OUT, MAX_SAMPLES_PER_UPDATE, MAX_SESSION_CONTROL_BYTES


class SessionOpening(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """For the header's task, base version and generation. `ephemeral` is the device's X25519 key of this session,
    `bundle` the SHA-256 of the task.

    `cut` says which blocks the helper is to run, `samples` on how many the device trains; 0 where it does not say.
    `without` are helpers that it shall not go to, by name, `cluster` is whose copy of the blocks it trains. None of
    these travels from the first on behind which all have their defaults.
    """

    session: SessionName
    ephemeral: PublicKeyBytes
    bundle: BundleHash
    cut: Name
    samples: Annotated[int, msgspec.Meta(ge=0, le=MAX_SAMPLES_PER_UPDATE)] = 0
    without: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_HELPERS_LEFT_OUT)] = ()
    cluster: Cluster = NO_CLUSTER


SESSION_OPENING = PayloadKind(16, SessionOpening, Leaf.SESSION, max_bytes=MAX_SESSION_CONTROL_BYTES)
