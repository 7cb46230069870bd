"""What a device tells once, from which the coordinator synthesises training data like its own; never a sample."""

from typing import Annotated

import msgspec

from fleet_protocol.kinds.encrypted_update import EncryptedPayload
from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.limits import MAX_CLASSES_IN_PROMPTS, MAX_STYLE_CHARACTERS, MAX_UPDATE_BYTES
from fleet_protocol.prompt_plan import Level


class Prompts(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Of all samples that a device has. They take the place of those that it told before.

    `magnitudes` has a byte for each class of the task: 0 for none, else 1 + floor(log2(samples)). `style` is how they
    look or sound, in words of the device's owner. `packed` are moments of features, as
    `fleet_protocol.codec.class_statistics` writes them, a class for each group; empty for the level `class`.
    """

    level: Level
    magnitudes: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_CLASSES_IN_PROMPTS)]
    style: Annotated[str, msgspec.Meta(max_length=MAX_STYLE_CHARACTERS)] = ""
    packed: bytes = b""


PROMPTS = PayloadKind(36, Prompts, Leaf.UP, MAX_UPDATE_BYTES, journalled=True)
ENCRYPTED_PROMPTS = PayloadKind(37, EncryptedPayload, Leaf.UP, MAX_UPDATE_BYTES, journalled=True, content=PROMPTS)
