"""Statistics: how the samples of a device are distributed. Refused ones are dropped: they hold nothing learned."""

from edge_agent.producers.producer import Producer
from edge_agent.worker.contract import TrainingResult
from fleet_protocol.kinds import STATISTICS, Statistics, encode_payload
from fleet_protocol.task_description import TaskDescription


def produce_statistics(_: TaskDescription, result: TrainingResult) -> bytes | None:
    """Those of a round that measured instead of training."""
    return encode_payload(Statistics(result.samples, result.statistics)) if result.statistics else None


STATISTICS_PRODUCER = Producer(STATISTICS, produce_statistics)
