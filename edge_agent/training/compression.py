"""Compression: the delta of a round joins the error feedback, and an update that the task takes is packed. Pure."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge_agent.training.feedback import ErrorFeedback, recall
from edge_agent.training.plain_update import plain_update
from edge_agent.worker.contract import Returned
from fleet_protocol.codec import (
    EncodedUpdate,
    HeldBlocks,
    SparseUpdate,
    decode_update,
    encode_update,
    factor_places,
    without_statistics,
    write_statistics,
)
from fleet_protocol.codec.sparse import FloatVector, Shapes
from fleet_protocol.errors import ProtocolError
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import UpdatePlan

Encode = Callable[[FloatVector, Shapes, UpdatePlan, np.random.Generator], EncodedUpdate]
"""As `fleet_protocol.codec.encode_update`."""

ENCODING_STREAM = 1
"""Separates the encoder's random numbers from those that choose the batches."""
UNUSED: Final = np.random.default_rng(0)
"""Where a plan draws nothing; to make one takes longer than to encode some updates."""
MAX_REMEMBERED_UPDATES = 10
"""The residual's norm in updates of the largest norm that the task takes: more than wait in an outbox at once."""
SCALING_MARGIN = 1 - 2**-5
"""Of an update that is scaled down to fit: quantisation may round its norm up by less than that."""


class UpdateTooLargeError(Exception):
    """A round's own update, without anything that earlier ones left behind, is larger than the task takes."""


@dataclass(frozen=True, slots=True)
class Packed:
    """An update. `forgotten` is the norm of what the error feedback has not kept."""

    data: bytes
    forgotten: float


def remember(task: TaskDescription, residual: bytes, returned: Iterable[Returned], life: int) -> ErrorFeedback:
    """The error feedback of earlier rounds, with rejected updates of its life added back to it.

    Without an earlier round, or where that left nothing usable, it begins the life `life`. One that was too large is
    not learned again, and a damaged one is lost: neither may hold up the rounds.
    """
    factor = None if task.posterior is None else factor_places(task, task.posterior)
    memory = recall(task.update, residual, task.trained_count, life, factor)
    for each in returned:
        if each.life == memory.life:
            with contextlib.suppress(ProtocolError):
                update = _returned_update(each, task)
                memory.give_up(update) if each.too_large else memory.give_back(update)
    return memory


def _returned_update(returned: Returned, task: TaskDescription) -> SparseUpdate:
    if returned.plain:
        return plain_update(returned.plain, task.trained_count)
    return unpack(returned.packed, HeldBlocks.of(task, returned.held))


def unpack(packed: bytes, held: HeldBlocks) -> SparseUpdate:
    """A packed update without the statistics behind it, in the places of all trained tensors.

    Raises:
        ProtocolError: as `decode_update`.
    """
    return held.trained.spread_sparse(decode_update(without_statistics(packed, held.statistics.size), held.shapes))


def pack(
    delta: FloatVector,
    memory: ErrorFeedback,
    task: TaskDescription,
    seed: int,
    held: Sequence[int] = (),
    *,
    encode: Encode = encode_update,
) -> Packed:
    """Encode the update of a round that changed the weights by `delta` f32[P]; `memory` keeps the rest.

    Running statistics travel apart: whole, and in no norm. Of the blocks that are 0 in `held`, nothing travels, and
    `memory` forgets what earlier rounds left of them: others have trained them since. Where versions hide each device,
    all of it is scaled down to what one device may send: that none is sent would tell of the device.

    It is never larger than the task takes: where what earlier rounds left behind makes it so, a part of it is sent, and
    the rest kept for later (docs/decisions/residual-is-bounded.md). `seed`: the job's.

    Raises:
        UpdateTooLargeError: `delta` alone is too large.
        ProtocolError: as `encode_update`.
    """
    largest = task.largest_delta_norm
    blocks = HeldBlocks.of(task, held)
    delta, changes = delta[: task.trained_count], delta[task.trained_count :]
    total = _offered(delta, memory, blocks)

    def encoded_of(vector: FloatVector) -> EncodedUpdate:
        generator = np.random.default_rng((seed, ENCODING_STREAM)) if task.update.draws else UNUSED
        return encode(vector, blocks.shapes, task.update, generator)

    encoded = encoded_of(total)
    norm = encoded.sent.norm()
    clipped_away = 0.0
    if (hidden := task.device_privacy) is not None and norm > (most := min(hidden.largest_norm, largest)):
        total, clipped_away = _clipped(total, SCALING_MARGIN * most / norm, memory, blocks)
        encoded = encoded_of(total)
        norm = encoded.sent.norm()
    if not norm <= largest:  # NaN too
        own = encoded_of(blocks.trained.part(delta)).sent.norm()
        if own > largest:
            raise UpdateTooLargeError(f"its update has norm {own:.4g}, at most {largest:.4g} (max_delta_norm) is taken")
        encoded = encoded_of(total * np.float32(SCALING_MARGIN * largest / norm))
    memory.take(blocks.trained.spread_sparse(encoded.sent))
    statistics = write_statistics(blocks.statistics.part(changes))
    return Packed(encoded.packed + statistics, clipped_away + memory.shrink(MAX_REMEMBERED_UPDATES * largest))


def _clipped(total: FloatVector, scale: float, memory: ErrorFeedback, blocks: HeldBlocks) -> tuple[FloatVector, float]:
    """What is offered, made smaller, and the norm of what is left away: a clip is a smaller step. Kept for later rounds
    it would be older than many versions by then, as a device counts in few.
    """
    smaller = total * np.float32(scale)
    left_away = total - smaller
    memory.take(blocks.trained.spread_sparse(SparseUpdate(np.arange(total.size), left_away)))
    return smaller, float(np.linalg.norm(left_away))


def _offered(delta: FloatVector, memory: ErrorFeedback, blocks: HeldBlocks) -> FloatVector:
    """What is to be compressed: the held tensors alone, one after the other."""
    if blocks.trained.are_all:
        return memory.offer(delta)
    mine = blocks.trained.every()
    own = np.zeros_like(delta)
    own[mine] = delta[mine]
    total = memory.offer(own)
    offered = total[mine]
    others = np.ones(total.size, bool)
    others[mine] = False
    left = np.flatnonzero(others)
    memory.take(SparseUpdate(left, total[left]))
    return offered
