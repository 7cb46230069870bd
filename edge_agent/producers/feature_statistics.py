"""Feature statistics: the one message from which the coordinator solves a head. A rejected one is sent anew."""

from edge_agent.producers.producer import Producer
from edge_agent.worker.contract import Returned, TrainingResult
from fleet_protocol.kinds import FEATURE_STATISTICS, FeatureStatistics, decode_payload, encode_payload
from fleet_protocol.task_description import TaskDescription


def produce_feature_statistics(task: TaskDescription, result: TrainingResult) -> bytes | None:
    """Those of a round of a task whose head is solved."""
    if task.versions_from != FEATURE_STATISTICS.name or not result.feature_statistics:
        return None
    return encode_payload(FeatureStatistics(result.feature_statistics))


def returned_feature_statistics(payload: bytes) -> Returned:
    """What tells the next round that the coordinator lacks what was sent.

    Raises:
        ProtocolError: it is no such payload.
    """
    return Returned(decode_payload(payload, FeatureStatistics).packed)


FEATURE_STATISTICS_PRODUCER = Producer(
    FEATURE_STATISTICS, produce_feature_statistics, give_back=returned_feature_statistics
)
