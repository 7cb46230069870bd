"""How much a device keeps of its samples: settings. Pure."""

from typing import Annotated, Literal

import msgspec

from fleet_protocol.configuration import PositiveInt

Retention = Literal["newest", "reservoir", "balanced"]

MAX_STORE_MIB = 1024 * 1024
"""One TiB: more than any card holds."""


class StoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Samples on the device (docs/samples.md)."""

    maximum_samples: PositiveInt = 5000
    """Kept per task; beyond that, `retention` says which are deleted."""
    maximum_mib: Annotated[int, msgspec.Meta(ge=1, le=MAX_STORE_MIB)] = 256
    """Kept per task, in MiB of values and of features that a backbone made of them; likewise."""
    retention: Retention = "newest"
    """What is kept: the `newest`, an even draw from all that came (`reservoir`), or each class alike (`balanced`)."""
