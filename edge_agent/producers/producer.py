"""What makes the payloads of one journalled kind. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.worker.contract import Returned, TrainingResult
from fleet_protocol.kinds import PayloadKind
from fleet_protocol.task_description import TaskDescription


@dataclass(frozen=True, slots=True)
class Producer:
    """One kind of payload. `produce` gives the payload of a finished round, or None where the round gives none.

    `give_back` reads out of a rejected payload the update that the next round takes back into the error feedback.
    Without it, a rejected payload is dropped. `keep` gives what the device keeps of a payload for itself, and
    `give_back` then reads that.
    """

    kind: PayloadKind
    produce: Callable[[TaskDescription, TrainingResult], bytes | None]
    give_back: Callable[[bytes], Returned] | None = None
    keep: Callable[[TrainingResult], bytes] | None = None
