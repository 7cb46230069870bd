"""The coordinator's side: the weights move by the sum of all deltas, each by its share of all samples so far.

    total = total + sum(samples)
    weights = weights + sum(samples * delta) / total

Later versions move less and less (Robbins & Monro 1951). `total` is what a state remembers of earlier versions.
"""

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from broker_coordinator.admission.consumer import Admitted, Offered, VersionConsumer
from broker_coordinator.aggregation.contribution import Contribution, contribution_of
from broker_coordinator.aggregation.server_state import Remembered, ServerState
from broker_coordinator.aggregation.strategies import Recall
from fleet_protocol.codec import SparseUpdate, decode_update
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE
from fleet_protocol.task_description import TaskDescription
from tests.kinds.delta.kind import DELTA, Delta

TOTAL_SAMPLES = "total_samples"

Weighted = tuple[int, SparseUpdate]
"""How many samples a delta was learned from, and the delta."""


class DeltaFacts(msgspec.Struct, frozen=True):
    """What the journal tells of a delta without being asked for its bytes."""

    samples: int


def admit(offered: Offered[Delta]) -> Admitted[DeltaFacts, Weighted]:
    """Refuses what no weighted mean can take."""
    facts = DeltaFacts(offered.payload.samples)
    if not 1 <= facts.samples <= MAX_SAMPLES_PER_UPDATE:
        raise ProtocolError(Reason.OUT_OF_BOUNDS, f"{facts.samples} samples; 1 to {MAX_SAMPLES_PER_UPDATE} are taken")
    samples, delta = item(offered, facts)
    if delta.norm() > offered.task.largest_delta_norm:
        raise ProtocolError(Reason.OUT_OF_BOUNDS, f"the delta's norm is {delta.norm():.4g}")
    return Admitted(facts, (samples, delta))


def item(offered: Offered[Delta], facts: DeltaFacts) -> Weighted:
    """A delta as it is aggregated."""
    return facts.samples, decode_update(offered.payload.packed, offered.task.shapes)


def buffer_size(task: TaskDescription) -> int:
    """As the task says of updates."""
    return task.aggregation.smallest_buffer


def partial(state: ServerState, deltas: Sequence[Weighted], _: TaskDescription) -> Contribution:
    """Contributions add."""
    return contribution_of([(float(samples), delta) for samples, delta in deltas], state.weights.size)


def finish(state: ServerState, deltas: Contribution, _: TaskDescription) -> ServerState:
    """The formula above."""
    total = state.remembered.get(TOTAL_SAMPLES, 0.0) + deltas.weight
    weights = (state.weights + deltas.total_delta / total).astype(np.float32)
    return ServerState(state.version + 1, weights, state.moments, {TOTAL_SAMPLES: total})


def recall(_: TaskDescription) -> Recall:
    """Every delta counts for ever."""
    return Recall.ALL_UPDATES


def remembered(state: ServerState, deltas: Iterable[Weighted], _: TaskDescription) -> Remembered:
    """Whole numbers, so the order in which they are added is no matter. A rollback takes back no sample."""
    before = state.remembered.get(TOTAL_SAMPLES, 0.0)
    return {TOTAL_SAMPLES: before + sum(float(samples) for samples, _delta in deltas)}


DELTA_CONSUMER = VersionConsumer(
    DELTA, DeltaFacts, admit, item, buffer_size, partial, finish, recall=recall, remembered=remembered
)
