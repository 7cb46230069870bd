"""How many bytes a step's messages take in a session."""

import math
from typing import Literal

import msgspec

from fleet_protocol.limits import MAX_FRAME_BYTES
from fleet_protocol.sessions.steps import StepRequest
from fleet_protocol.split_plan import WireFormat
from fleet_protocol.split_step_costs import FRAME_OVERHEAD

LONGEST_SEED = 2**32 - 1


def message_bytes(direction: Literal["forward", "backward"], rows: int, wire: WireFormat, packed: bytes) -> int:
    """Of a request that carries what is packed, cut into frames; an answer has fewer fields."""
    content = len(msgspec.msgpack.encode(StepRequest(1, direction, 1, 1, 2, rows, LONGEST_SEED, True, wire, packed)))
    return content + FRAME_OVERHEAD * math.ceil(content / MAX_FRAME_BYTES)
