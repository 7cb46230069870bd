"""Prompts: what a round told instead of training. Where they were refused, the next round tells them anew."""

from edge_agent.producers.producer import Producer
from edge_agent.worker.contract import Returned, TrainingResult
from fleet_protocol.kinds import PROMPTS
from fleet_protocol.task_description import TaskDescription


def produce_prompts(_: TaskDescription, result: TrainingResult) -> bytes | None:
    """Those of a round that told some."""
    return result.prompts or None


def returned_prompts(_: bytes) -> Returned:
    """What tells the next round that the coordinator lacks what was sent."""
    return Returned(b"", prompts=True)


PROMPTS_PRODUCER = Producer(PROMPTS, produce_prompts, give_back=returned_prompts)
