"""The update: what a round changed of the weights."""

import msgspec

from edge_agent.producers.producer import Producer
from edge_agent.worker.contract import Returned, TrainingResult
from fleet_protocol.kinds import UPDATE, Update, decode_payload, encode_payload
from fleet_protocol.task_description import TaskDescription


def produce_update(task: TaskDescription, result: TrainingResult) -> bytes | None:
    """A round's update, None where nothing was trained, or is sent. Three digits of the loss, wherever the point is,
    are enough to follow training.
    """
    if task.versions_from != UPDATE.name or result.statistics or result.prompts or result.kept:
        return None
    loss = float(f"{result.loss:.3g}")
    update = Update(result.samples, result.steps, loss, result.packed, result.life, result.held, result.cluster)
    promised = task.sample_privacy
    if promised is not None and promised.owners_choose and result.noise != promised.told_noise:
        update = msgspec.structs.replace(update, noise=result.noise)
    return encode_payload(update)


def returned_update(payload: bytes) -> Returned:
    """What the next round takes back of an update.

    Raises:
        ProtocolError: it is no update.
    """
    update = decode_payload(payload, Update)
    return Returned(update.packed, update.life, held=update.held)


UPDATE_PRODUCER = Producer(UPDATE, produce_update, give_back=returned_update)
