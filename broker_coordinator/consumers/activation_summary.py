"""Activation summaries: checks what a helper says of a device; `clusters find` reads the newest of each device. Pure.

They make no versions, and nothing waits for them: each is an aggregate by itself, whose state is a count. The mean is
among the facts, so that clusters are found without the keys that open boxes.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from broker_coordinator.admission.consumer import Admitted, JournalledConsumer, Offered
from fleet_protocol.activation_plan import LEAST_ROWS, summary_values
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import ACTIVATION_SUMMARY, ActivationSummary
from fleet_protocol.kinds.activation_summary import FLOAT_BYTES
from fleet_protocol.task_description import TaskDescription


class SummaryFacts(msgspec.Struct, frozen=True, gc=False):
    """What the journal tells of a summary: `mean` has the exact float32 values, one for each channel."""

    device: str
    rows: int
    mean: tuple[float, ...]


class SummaryTally(msgspec.Struct, frozen=True):
    """What an aggregate holds: how many summaries have come for the task."""

    messages: int = 0


def admit(offered: Offered[ActivationSummary]) -> Admitted[SummaryFacts, int]:
    """Check that a helper says it, and that it is a mean of what the task asks for.

    Raises:
        ProtocolError: the reason for which it can't be used.
    """
    summary, task = offered.payload, offered.task
    if task.clusters is None or not task.clusters.activations or task.split is None:
        raise ProtocolError(Reason.MALFORMED, f"{task.task} finds no clusters by activations; follow its manifest")
    if not offered.from_helper:
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS, f"{offered.device} is no helper of this fleet, and only these see activations"
        )
    if summary.rows < LEAST_ROWS:
        raise ProtocolError(Reason.OUT_OF_BOUNDS, f"a mean over {summary.rows} samples; {LEAST_ROWS} are the least")
    expected = summary_values(task.clusters, task.split)
    if len(summary.mean) != FLOAT_BYTES * expected:
        raise ProtocolError(
            Reason.WRONG_SHAPE,
            f"a mean of {len(summary.mean)} bytes; {task.clusters.activations} has {expected} values of"
            f" {FLOAT_BYTES} bytes",
        )
    mean = np.frombuffer(summary.mean, "<f4")
    if strange := int((~np.isfinite(mean)).sum()):
        raise ProtocolError(Reason.NOT_FINITE, f"{strange} of the {expected} values of a mean")
    return Admitted(SummaryFacts(summary.device, summary.rows, tuple(mean.tolist())), 1)


def item(_: Offered[ActivationSummary], _facts: SummaryFacts) -> int:
    """A message, as it is counted."""
    return 1


def _buffer_size(_: TaskDescription) -> int:
    return 1


def _partial(_: bytes, messages: Sequence[int], _task: TaskDescription) -> int:
    return sum(messages)


def _finish(state: bytes, messages: int, _: TaskDescription) -> bytes:
    before = msgspec.json.decode(state, type=SummaryTally) if state else SummaryTally()
    return msgspec.json.encode(SummaryTally(before.messages + messages))


ACTIVATION_SUMMARY_CONSUMER = JournalledConsumer(
    ACTIVATION_SUMMARY, SummaryFacts, admit, item, _buffer_size, _partial, _finish
)
"""Of the kind `activation summary`."""
