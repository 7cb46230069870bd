"""What makes the payloads of one journalled kind. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.worker.contract import TrainingResult
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.kinds import PayloadKind

Produce = Callable[[TaskDescription, TrainingResult], bytes | None]
"""The payload that a finished round gives; None where it gives none."""


@dataclass(frozen=True, slots=True)
class Producer:
    """One kind of payload. `returns_to_residual`: a rejected one is kept for the next round, which takes it back into
    the error feedback; any other is dropped.
    """

    kind: PayloadKind
    produce: Produce
    returns_to_residual: bool = False
