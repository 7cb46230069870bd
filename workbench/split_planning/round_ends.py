"""What the end of a round takes beside its steps: updates up, a version down. Pure.

The published latency model of clustered split training (arXiv 2507.12979) leaves it out.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from fleet_protocol.split_plan import Cut, device_blocks, is_helpers
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import UpdatePlan

ENVELOPE_BYTES: Final = 124
"""Of an update, beside what it has of the model (docs/bytes.md)."""

CODE_BITS: Final = {"ternary": 1, "sign": 1, "int4": 4, "int8": 8, "float16": 16, "float32": 32}
"""Of a kept entry."""

DIFFERENCE_BYTES: Final = {"lossy": 0.5, "exact": 3.0, "off": 4.0}
"""Of a weight, in the difference to a version that is several newer (docs/downlink.md)."""


@dataclass(frozen=True, slots=True)
class RoundEnd:
    """Of one round: the update that is sent, and the version that the next one begins with, in bytes."""

    up_bytes: int
    down_bytes: int


NOTHING = RoundEnd(0, 0)


def device_round_end(task: TaskDescription, cut: Cut) -> RoundEnd:
    """Of a device: an update of the blocks that it runs, and a version of all of them."""
    blocks = device_blocks(task.split, cut) if task.split else []
    return RoundEnd(update_bytes(task.update, _values(task, blocks)), _version_bytes(task))


def middle_round_end(task: TaskDescription, cuts: Collection[Cut]) -> RoundEnd:
    """Of a helper, for all devices whose rounds end together: an update of the blocks that it runs in any of their
    cuts, and a version.
    """
    blocks = {
        block
        for block in range(len(task.split.blocks) if task.split else 0)
        if any(is_helpers(cut, block) for cut in cuts)
    }
    return RoundEnd(update_bytes(task.update, _values(task, blocks)), _version_bytes(task)) if blocks else NOTHING


def update_bytes(plan: UpdatePlan, values: int) -> int:
    """About what an update of so many values takes: the code of each kept entry, and where it is, which takes as many
    bits of each value as the entropy of being kept.
    """
    if not values:
        return ENVELOPE_BYTES
    kept = 1.0 if plan.selection == "dense" else plan.keep_fraction
    places = 0.0 if plan.selection in ("dense", "random_k") else _entropy(kept)
    return ENVELOPE_BYTES + math.ceil(values * (places + kept * CODE_BITS[plan.quantisation]) / 8)


def _entropy(chance: float) -> float:
    """In bits."""
    return -sum(each * math.log2(each) for each in (chance, 1 - chance) if each > 0)


def _values(task: TaskDescription, blocks: Collection[int]) -> int:
    return sum(each.size for each in task.parameters if each.trainable and each.block in blocks)


def _version_bytes(task: TaskDescription) -> int:
    return math.ceil(DIFFERENCE_BYTES[task.downlink.differences] * task.parameter_count)
