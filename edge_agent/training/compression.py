"""Compression: the delta of a round joins the error feedback, and an update is packed. Pure."""

from collections.abc import Iterable

import numpy as np

from edge_agent.training.feedback import ErrorFeedback, recall
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.codec import decode_update, encode_update
from fleet_protocol.codec.sparse import FloatVector

ENCODING_STREAM = 1
"""Separates the encoder's random numbers from those that choose the batches."""


def remember(task: TaskDescription, residual: bytes, returned: Iterable[bytes], life: int) -> ErrorFeedback:
    """The error feedback of earlier rounds, with rejected updates, packed as they were sent, added back to it.

    Without an earlier round, it begins the life `life`.
    """
    memory = recall(task.update, residual, task.parameter_count, life)
    for packed in returned:
        memory.give_back(decode_update(packed, task.shapes))
    return memory


def pack(total: FloatVector, memory: ErrorFeedback, task: TaskDescription, seed: int) -> bytes:
    """Encode the update of `total`, f32[P] as `memory` offered it; `memory` keeps the rest. `seed`: the job's.

    Raises:
        ProtocolError: as `encode_update`.
    """
    encoded = encode_update(total, task.shapes, task.update, np.random.default_rng((seed, ENCODING_STREAM)))
    memory.take(encoded.sent)
    return encoded.packed
