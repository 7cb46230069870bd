"""Updates: checks what is in one; a full buffer makes the next version. Admission has checked staleness. Pure."""

import math
from collections.abc import Iterable, Sequence

import msgspec

from broker_coordinator.admission.consumer import Admitted, Offered, RememberedError, VersionConsumer
from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_state import Remembered, ServerState
from broker_coordinator.aggregation.server_step import finish, partial_of
from broker_coordinator.aggregation.strategies import STRATEGIES, Partial, Recall
from broker_coordinator.consumers.norm_quantile import NormQuantile
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.codec import SparseUpdate, decode_together, decode_update
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import UPDATE, Update
from fleet_protocol.limits import MAX_LOSS, MAX_SAMPLES_PER_UPDATE, MAX_STEPS_PER_UPDATE
from fleet_protocol.remedies import STEADIER_TRAINING


class UpdateFacts(msgspec.Struct, frozen=True, gc=False):
    """`samples` as they count, `loss` the device's mean in training, `norm` the delta's Euclidean norm."""

    samples: int
    loss: float
    norm: float


def admit(offered: Offered[Update]) -> Admitted[UpdateFacts, BufferedUpdate]:
    """Check the declared numbers, decode the delta, and bound its norm.

    Raises:
        ProtocolError: the reason for which it can't be aggregated.
    """
    update = offered.payload
    plan = offered.task.aggregation
    if not 1 <= update.samples <= MAX_SAMPLES_PER_UPDATE:
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS, f"{update.samples} samples; allowed are 1 to {MAX_SAMPLES_PER_UPDATE}"
        )
    if not 0 <= update.steps <= MAX_STEPS_PER_UPDATE:
        raise ProtocolError(Reason.OUT_OF_BOUNDS, f"{update.steps} steps; allowed are 0 to {MAX_STEPS_PER_UPDATE}")
    if not math.isfinite(update.loss):
        raise ProtocolError(Reason.NOT_FINITE, f"the loss is {update.loss}: {STEADIER_TRAINING}")
    if abs(update.loss) > MAX_LOSS:
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS,
            f"the loss is {update.loss:g}; allowed are {-MAX_LOSS:g} to {MAX_LOSS:g}: {STEADIER_TRAINING}",
        )
    delta = decode_update(update.packed, offered.task.shapes) if offered.decoded is None else offered.decoded
    facts = UpdateFacts(min(update.samples, plan.max_samples), update.loss, delta.norm())
    bound = plan.max_delta_norm
    if offered.memory is not None:
        bound = min(bound, offered.memory.bound(plan.norm_quantile_factor))
    if facts.norm > bound:
        raise RememberedError(
            Reason.OUT_OF_BOUNDS,
            f"the delta's norm is {facts.norm:.4g}, at most {bound:.4g} is taken now: {STEADIER_TRAINING}",
            facts,
        )
    return Admitted(facts, _buffered(offered, facts, delta))


def item(offered: Offered[Update], facts: UpdateFacts) -> BufferedUpdate:
    """A journalled update as aggregation takes it."""
    return _buffered(offered, facts, decode_update(offered.payload.packed, offered.task.shapes))


def _buffered(offered: Offered[Update], facts: UpdateFacts, delta: SparseUpdate) -> BufferedUpdate:
    return BufferedUpdate(
        offered.device, delta, facts.samples, offered.header.base_version, offered.staleness, offered.payload.life
    )


def _decode_together(updates: Sequence[Update], task: TaskDescription) -> Sequence[SparseUpdate | None]:
    return decode_together([update.packed for update in updates], task.shapes)


def _remember(usual: NormQuantile | None, facts: UpdateFacts, task: TaskDescription) -> NormQuantile | None:
    """Refused norms are taken in too: else a fleet whose norms grow at once would stay shut out."""
    plan = task.aggregation
    return (usual or NormQuantile(plan.norm_quantile)).after(facts.norm) if plan.norm_quantile_factor else None


def _buffer_size(task: TaskDescription) -> int:
    return task.aggregation.buffer_size


def _partial(state: ServerState, buffer: Sequence[BufferedUpdate], task: TaskDescription) -> Partial:
    return partial_of(state, buffer, task.aggregation)


def _finish(state: ServerState, partial: Partial, task: TaskDescription) -> ServerState:
    return finish(state, partial, task.aggregation)


def _recall(task: TaskDescription) -> Recall:
    return STRATEGIES[task.aggregation.strategy].recall


def _remembered(state: ServerState, updates: Iterable[BufferedUpdate], task: TaskDescription) -> Remembered:
    return STRATEGIES[task.aggregation.strategy].remember(state, updates, task.aggregation)


def _loss(facts: UpdateFacts) -> float:
    return facts.loss


UPDATE_CONSUMER = VersionConsumer(
    UPDATE,
    UpdateFacts,
    admit,
    item,
    _buffer_size,
    _partial,
    _finish,
    decode_together=_decode_together,
    remember=_remember,
    recall=_recall,
    remembered=_remembered,
    loss=_loss,
)
