"""The coordinator's side: per device, the rounds that were reported, in the order in which the reports came.

The state is JSON of `dict[str, list[int]]`: a device's name, and `trained_through` of each of its rounds.
"""

from collections.abc import Sequence

import msgspec

from broker_coordinator.admission.consumer import Admitted, JournalledConsumer, Offered
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.task_description import TaskDescription
from tests.kinds.round_report.kind import ROUND_REPORT, RoundReport

MAX_STEPS = 1_000_000

Round = tuple[str, int]
"""The device, and how far into its samples it had come."""


class RoundFacts(msgspec.Struct, frozen=True):
    """What the journal tells of a report without being asked for its bytes."""

    steps: int


def admit(offered: Offered[RoundReport]) -> Admitted[RoundFacts, Round]:
    """Refuses a report of more steps than anyone trains."""
    facts = RoundFacts(offered.payload.steps)
    if facts.steps > MAX_STEPS:
        raise ProtocolError(Reason.OUT_OF_BOUNDS, f"{facts.steps} steps; allowed are {MAX_STEPS}")
    return Admitted(facts, item(offered, facts))


def item(offered: Offered[RoundReport], _: RoundFacts) -> Round:
    """A report as it is aggregated."""
    return offered.device, offered.payload.trained_through


def buffer_size(task: TaskDescription) -> int:
    """As many as make a version."""
    return task.aggregation.smallest_buffer


def partial(_: bytes, rounds: Sequence[Round], _task: TaskDescription) -> tuple[Round, ...]:
    """Tuples add."""
    return tuple(rounds)


def finish(state: bytes, rounds: tuple[Round, ...], _: TaskDescription) -> bytes:
    """The reports so far, and these."""
    reported = read_state(state)
    for device, trained_through in rounds:
        reported.setdefault(device, []).append(trained_through)
    return msgspec.json.encode(reported)


def read_state(state: bytes) -> dict[str, list[int]]:
    """What an aggregate holds; nothing before the first."""
    return msgspec.json.decode(state, type=dict[str, list[int]]) if state else {}


ROUND_REPORT_CONSUMER = JournalledConsumer(ROUND_REPORT, RoundFacts, admit, item, buffer_size, partial, finish)
