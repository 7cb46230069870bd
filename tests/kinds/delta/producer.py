"""The device's side: what a round learned, where the task's versions are made from deltas.

Error feedback counts what is packed as sent, so a rejected delta goes back.
"""

from edge_agent.producers import Producer
from edge_agent.worker.contract import Returned, TrainingResult
from fleet_protocol.kinds import decode_payload, encode_payload
from fleet_protocol.task_description import TaskDescription
from tests.kinds.delta.kind import DELTA, Delta


def produce(task: TaskDescription, result: TrainingResult) -> bytes | None:
    """None for a task whose versions are made from another kind."""
    return encode_payload(Delta(result.samples, result.packed)) if task.versions_from == DELTA.name else None


def give_back(payload: bytes) -> Returned:
    """What the next round takes back of a rejected delta."""
    return Returned(decode_payload(payload, Delta).packed)


DELTA_PRODUCER = Producer(DELTA, produce, give_back)
