"""The masked update: what a round changed of the weights, as nobody can read it alone."""

from edge_agent.producers.producer import Producer
from edge_agent.worker.contract import Returned, TrainingResult
from fleet_protocol.kinds import MASKED_UPDATE, MaskedUpdate, Signed, encode_payload
from fleet_protocol.task_description import TaskDescription


def produce_masked_update(task: TaskDescription, result: TrainingResult) -> bytes | None:
    """A round's masked update, None where nothing was trained, or is sent."""
    if task.versions_from != MASKED_UPDATE.name or result.masked is None:
        return None
    masked = result.masked
    return encode_payload(MaskedUpdate(Signed(masked.seeds, masked.signature), masked.values))


def kept_update(result: TrainingResult) -> bytes:
    """What is in it, which never leaves the device."""
    return b"" if result.masked is None else result.masked.plain


def returned_masked_update(kept: bytes) -> Returned:
    """What the next round takes back where its cohort is void."""
    return Returned(b"", plain=kept)


MASKED_UPDATE_PRODUCER = Producer(
    MASKED_UPDATE, produce_masked_update, give_back=returned_masked_update, keep=kept_update
)
