"""How a device remembers which prompts it told: by a mark before what a round leaves behind, in one value. Pure.

Both change in one transaction; of a task that asks for no prompts, nothing more is stored than before.
"""

import hashlib

from fleet_protocol.prompt_plan import Level, PromptPlan

MARK_BYTES = 16


def mark_of(level: Level, magnitudes: bytes, style: str) -> bytes:
    """What tells prompts from others: not their moments, which move with every sample."""
    return hashlib.sha256(b"\0".join((level.encode(), style.encode(), magnitudes))).digest()[:MARK_BYTES]


def with_mark(plan: PromptPlan | None, told: bytes, state: bytes) -> bytes:
    """What is stored of a round; `told` is empty where nothing was told yet."""
    return state if plan is None else (told or bytes(MARK_BYTES)) + state


def without_mark(plan: PromptPlan | None, stored: bytes) -> tuple[bytes, bytes]:
    """The mark, and the state."""
    return (b"", stored) if plan is None else (stored[:MARK_BYTES], stored[MARK_BYTES:])
