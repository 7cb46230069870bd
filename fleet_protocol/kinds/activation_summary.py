"""What a helper says of a device when its session is over: the mean of what a block gave on the device's samples."""

from typing import Annotated

import msgspec

from fleet_protocol.configuration import Name
from fleet_protocol.kinds.encrypted_update import EncryptedPayload
from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.limits import MAX_ACTIVATION_VALUES, MAX_SEQUENCE, MAX_SUMMARY_BYTES

FLOAT_BYTES = 4


class ActivationSummary(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Of one session of `device`. It takes the place of what any helper said of the device before.

    `rows` are samples, each as often as it was trained on. `mean` is float32[values], little endian: over them, of each
    value of the block's output or, where these are too many, of each channel.
    """

    device: Name
    rows: Annotated[int, msgspec.Meta(ge=1, le=MAX_SEQUENCE)]
    mean: Annotated[bytes, msgspec.Meta(min_length=FLOAT_BYTES, max_length=FLOAT_BYTES * MAX_ACTIVATION_VALUES)]


ACTIVATION_SUMMARY = PayloadKind(39, ActivationSummary, Leaf.UP, MAX_SUMMARY_BYTES, journalled=True)
ENCRYPTED_ACTIVATION_SUMMARY = PayloadKind(
    40, EncryptedPayload, Leaf.UP, MAX_SUMMARY_BYTES, journalled=True, content=ACTIVATION_SUMMARY
)
