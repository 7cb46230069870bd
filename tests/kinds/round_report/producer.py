"""The device's side: a finished round gives one report. A rejected one is dropped."""

from edge_agent.producers import Producer
from edge_agent.worker.contract import TrainingResult
from fleet_protocol.kinds import encode_payload
from fleet_protocol.task_description import TaskDescription
from tests.kinds.round_report.kind import ROUND_REPORT, RoundReport


def produce(_: TaskDescription, result: TrainingResult) -> bytes | None:
    """None for a round without a step."""
    return encode_payload(RoundReport(result.steps, result.trained_through)) if result.steps else None


ROUND_REPORT_PRODUCER = Producer(ROUND_REPORT, produce)
