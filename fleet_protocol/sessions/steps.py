"""What a device asks of its helper in a step, and the answers. They travel encrypted from end to end.

A step takes two requests for each range of blocks that the helper runs: forward, with the activations of the block in
front of the range, answered with those of its last block; then backward, with the gradient of that, answered with the
gradient of the first. The helper updates the range's weights in between, once, however often it is asked.
"""

from typing import Annotated, Literal

import msgspec

from fleet_protocol.kinds.payload import Count
from fleet_protocol.limits import MAX_BLOCKS, MAX_PROBLEM_CHARACTERS, MAX_ROWS_PER_STEP
from fleet_protocol.split_plan import WireFormat

Place = Annotated[int, msgspec.Meta(ge=0, le=MAX_BLOCKS)]


class StepRequest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One pass through the blocks [first, end).

    `number` counts the session's requests from 1; a repeated one has its old number and the same content. `step` binds
    a backward pass to its forward pass. `rows` are the samples of the mini-batch, `seed` (modulo 2**32) is what dropout
    draws from. `update` is whether a backward pass trains the blocks or only passes the gradient on. `packed` is
    float32 [rows, *output_shape] as `fleet_protocol.codec.activations` writes it in the format `wire`.
    """

    number: Count
    direction: Literal["forward", "backward"]
    step: Count
    first: Place
    end: Place
    rows: Annotated[int, msgspec.Meta(ge=1, le=MAX_ROWS_PER_STEP)]
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    update: bool
    wire: WireFormat
    packed: bytes


class StepAnswer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The answer to request `number`: activations or gradient, `packed` in the request's format; or, with nothing in
    `packed`, the `problem` for which there is none.
    """

    number: Count
    packed: bytes
    problem: Annotated[str, msgspec.Meta(max_length=MAX_PROBLEM_CHARACTERS)] = ""
