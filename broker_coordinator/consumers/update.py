"""Updates: checks what is in one; a full buffer makes the next version. Admission has checked staleness. Pure."""

import math
from collections.abc import Iterable, Sequence
from typing import cast

import msgspec
import numpy as np

from broker_coordinator.admission.consumer import Admitted, Offered, VersionConsumer
from broker_coordinator.aggregation.block_weights import BlockLayout, BlockWeights
from broker_coordinator.aggregation.bounds import NORM_FACTOR, SAMPLES_FACTOR, norm_bound, scaled
from broker_coordinator.aggregation.chosen_strategy import strategy_of
from broker_coordinator.aggregation.clusters import direction_of
from broker_coordinator.aggregation.contribution import NO_STATISTICS, BufferedUpdate
from broker_coordinator.aggregation.device_privacy import clipped_sum
from broker_coordinator.aggregation.device_privacy.clipped_sum import ClippedSum
from broker_coordinator.aggregation.device_privacy.version_noise import VersionNoise
from broker_coordinator.aggregation.noise_weight import check_noise_claim, counted_samples
from broker_coordinator.aggregation.running_statistics import WithStatistics, with_next_statistics, with_statistics
from broker_coordinator.aggregation.server_state import Remembered, ServerState
from broker_coordinator.aggregation.server_step import finish, partial_of
from broker_coordinator.aggregation.strategies import Partial, Recall
from broker_coordinator.aggregation.unmoved_parameters import unmoved
from broker_coordinator.aggregation.untrained_copies import following
from broker_coordinator.consumers.held import check_cluster, cut_of
from broker_coordinator.consumers.peers import Declared, Peers
from fleet_protocol.aggregation_plan import KEEPS_ESTIMATES
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.codec import (
    ClusterView,
    HeldBlocks,
    SparseUpdate,
    decode_together,
    decode_update,
    read_statistics,
    without_statistics,
)
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import UPDATE, Update
from fleet_protocol.limits import MAX_LOSS, MAX_SAMPLES_PER_UPDATE, MAX_STEPS_PER_UPDATE
from fleet_protocol.remedies import STEADIER_TRAINING
from fleet_protocol.task_description import TaskDescription

NOBODY = Peers()
"""Before the first update of a task."""


class UpdateFacts(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`samples` as they count (`counted_samples`), `loss` what the device declared, None where it may tell none.

    `norm` is the delta's Euclidean norm as it came. `declared` are the samples that the device declared, 0 where they
    all count. The delta counts `scale` times, and of that `tempered` times where it was found suspicious.
    `cut` is the one of the task's `split` that left other blocks to a
    helper; or the update is that of a `helper`. `noise` is what the update says of it.
    `cluster` is whose copy of the parameters it trained, and `direction` where it points, in a task that finds clusters
    by that.
    """

    samples: int
    loss: float | None
    norm: float
    declared: int = 0
    scale: float = 1.0
    cut: str = ""
    helper: bool = False
    noise: float | None = None
    cluster: int = NO_CLUSTER
    direction: bytes = b""
    tempered: float = 1.0


def admit(offered: Offered[Update]) -> Admitted[UpdateFacts, BufferedUpdate]:
    """Check the declared numbers, decode the delta, and bound what it weighs by what other devices send.

    Raises:
        ProtocolError: the reason for which it can't be aggregated.
    """
    update = offered.payload
    _check_numbers(update)
    check_noise_claim(update.noise, offered.task)
    is_helpers = offered.from_helper and bool(update.held)
    chooses = is_helpers or (offered.task.clusters is not None and offered.task.clusters.by_devices)
    check_cluster(update, offered.task, offered.device, _told(update, offered.task) if chooses else offered.cluster)
    cut = cut_of(update, offered.task, offered.device, from_helper=offered.from_helper)
    delta = _delta(offered) if offered.decoded is None else offered.decoded
    norm = delta.norm()
    most = offered.task.largest_delta_norm
    if norm > most and offered.task.device_privacy is None:  # whether it counts would tell of it: it is clipped
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS, f"the delta's norm is {norm:.4g}; max_delta_norm is {most:.4g}: {STEADIER_TRAINING}"
        )
    facts = _helpers_facts(offered, norm) if is_helpers else _facts(offered, norm, cut)
    if not is_helpers and offered.task.clusters is not None:
        facts = msgspec.structs.replace(facts, cluster=update.cluster, direction=_direction(delta, offered.task))
    return Admitted(facts, _buffered(offered, facts, delta))


def _told(update: Update, task: TaskDescription) -> int | None:
    """Of whoever may train the copy of any cluster that there is: a helper, and a device that chooses."""
    return task.clusters.cluster(update.cluster) if task.clusters else None


def _direction(delta: SparseUpdate, task: TaskDescription) -> bytes:
    found_by = task.clusters.found_by if task.clusters else None
    return direction_of(delta, task) if found_by == "directions" else b""


def _check_numbers(update: Update) -> None:
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


def _helpers_facts(offered: Offered[Update], norm: float) -> UpdateFacts:
    """What counts of an approved helper's update: it stands for the rounds of many devices, so it may weigh what all of
    these do together. It moves its blocks no further than a device may (docs/decisions/averaged-over-holders.md).
    """
    update, peers = offered.payload, offered.memory or NOBODY
    most = math.floor(SAMPLES_FACTOR * peers.all_samples()) or _samples_of_round(offered.task)
    samples = min(update.samples, most)
    declared = update.samples if update.samples != samples else 0
    _, usual_norm = peers.usual(offered.device, _quantile(offered.task))
    return UpdateFacts(samples, update.loss, norm, declared, _scale(norm, usual_norm, offered.task), helper=True)


def _quantile(task: TaskDescription) -> float | None:
    return task.aggregation.norm_quantile if task.aggregation.names_norm_bound else None


def _scale(norm: float, usual_norm: float | None, task: TaskDescription) -> float:
    """How often a delta counts, so that it is within the bound."""
    bound = norm_bound(usual_norm, task.aggregation.norm_quantile_factor or NORM_FACTOR)
    return bound / norm if norm > bound else 1.0


def _samples_of_round(task: TaskDescription) -> int:
    return task.training.steps * task.training.batch_size


def _facts(offered: Offered[Update], norm: float, cut: str) -> UpdateFacts:
    """What counts of an update, by what other devices sent.

    While no other device is known, as many samples count as a round can have looked at, and one that says it has no
    noise counts as with the task's: nothing else would bound what that gains. EF21's updates add up to an
    estimate that device and coordinator share: there the estimate is bounded, and no update is scaled. Where a version
    hides each device, others' updates bound none, and no loss is told.
    """
    update, task, peers = offered.payload, offered.task, offered.memory or NOBODY
    if task.device_privacy is not None:
        return UpdateFacts(1, None, norm, update.samples)
    plan = task.aggregation
    usual_samples, usual_norm = peers.usual(offered.device, _quantile(task), cut)
    known = math.floor(SAMPLES_FACTOR * usual_samples) if usual_samples else None
    most = plan.max_samples if known else min(plan.max_samples, _samples_of_round(task))
    noise = update.noise if known else update.noise or None
    counted = counted_samples(min(update.samples, most), noise, task)
    samples = min(counted, known) if known else counted
    scale = 1.0 if plan.strategy in KEEPS_ESTIMATES else _scale(norm, usual_norm, task)
    declared = update.samples if update.samples != samples else 0
    loss = None if task.sample_privacy else update.loss
    return UpdateFacts(samples, loss, norm, declared, scale, cut, noise=update.noise)


def item(offered: Offered[Update], facts: UpdateFacts) -> BufferedUpdate:
    """A journalled update as aggregation takes it."""
    return _buffered(offered, facts, _delta(offered) if offered.decoded is None else offered.decoded)


def _buffered(offered: Offered[Update], facts: UpdateFacts, delta: SparseUpdate) -> BufferedUpdate:
    update, task = offered.payload, offered.task
    return BufferedUpdate(
        offered.device,
        _in_version(scaled(scaled(delta, facts.scale), facts.tempered), update, task),
        facts.samples,
        offered.header.base_version,
        offered.staleness,
        update.life,
        _statistics(update, task) if task.statistics else NO_STATISTICS,
        _samples_of_blocks(update, facts, task) if update.held or task.clusters else None,
        facts.helper,
        facts.tempered,
    )


def _in_version(delta: SparseUpdate, update: Update, task: TaskDescription) -> SparseUpdate:
    return ClusterView.of(task, update.cluster).changes(delta) if task.clusters else delta


def _samples_of_blocks(update: Update, facts: UpdateFacts, task: TaskDescription) -> BlockWeights:
    """Those that count of each block, or of each group of a version with copies: as large a share as of all samples."""
    held: Sequence[float] = update.held or (update.samples,) * task.blocks
    of_groups = task.version.samples(held, update.cluster) if task.clusters else held
    counted = np.array(of_groups, np.float64) * (facts.samples / update.samples)
    return BlockWeights(counted, BlockLayout.of(task.version.parameters))


def _statistics(update: Update, task: TaskDescription) -> FloatVector:
    places = HeldBlocks.of(task, update.held).statistics
    changes = places.spread(read_statistics(update.packed, places.size))
    return ClusterView.of(task, update.cluster).statistics.spread(changes) if task.clusters else changes


def _delta(offered: Offered[Update]) -> SparseUpdate:
    held = HeldBlocks.of(offered.task, offered.payload.held)
    packed = without_statistics(offered.payload.packed, held.statistics.size)
    return held.trained.spread_sparse(decode_update(packed, held.shapes))


def _decode_together(updates: Sequence[Update], task: TaskDescription) -> Sequence[SparseUpdate | None]:
    """Those that hold all that devices share; the others are few of a kind, and what they say of it is not checked
    yet.
    """
    every = HeldBlocks.of(task, ())
    whole = [without_statistics(update.packed, every.statistics.size) for update in updates if not update.held]
    decoded = iter(decode_together(whole, every.shapes))
    found = (None if update.held else next(decoded) for update in updates)
    return [each if each is None else every.trained.spread_sparse(each) for each in found]


def _remember(peers: Peers, device: str, facts: UpdateFacts, task: TaskDescription) -> None:
    if facts.helper:
        return
    declared = min(facts.declared or facts.samples, task.aggregation.max_samples)
    peers.note(device, Declared(counted_samples(declared, facts.noise, task), facts.norm, facts.cut))


def _buffer_size(task: TaskDescription) -> int:
    return task.aggregation.smallest_buffer


def _partial(state: ServerState, buffer: Sequence[BufferedUpdate | VersionNoise], task: TaskDescription) -> Partial:
    if (hidden := task.device_privacy) is not None:
        return clipped_sum.partial(state, buffer, hidden, task.aggregation.smallest_buffer)
    return _plain_partial(state, cast(Sequence[BufferedUpdate], buffer), task)


def _plain_partial(state: ServerState, buffer: Sequence[BufferedUpdate], task: TaskDescription) -> Partial:
    step = partial_of(state, buffer, task.aggregation)
    count = task.version.statistics
    return with_statistics(step, state, buffer, task.aggregation, count) if count else step


def _finish(state: ServerState, partial: Partial, task: TaskDescription) -> ServerState:
    made = _made(state, partial, task)
    return unmoved(made, state, task) if task.own_parameters else made


def _made(state: ServerState, partial: Partial, task: TaskDescription) -> ServerState:
    if isinstance(partial, ClippedSum) and (hidden := task.device_privacy) is not None:
        return clipped_sum.finish(state, partial, task, hidden)
    if isinstance(partial, WithStatistics):
        made = with_next_statistics(finish(state, partial.step, task.aggregation), state, partial.changes)
    else:
        made = finish(state, partial, task.aggregation)
    return following(made, state, task.version) if task.clusters else made


def _recall(task: TaskDescription) -> Recall:
    return strategy_of(task.aggregation).recall


def _remembered(state: ServerState, updates: Iterable[BufferedUpdate], task: TaskDescription) -> Remembered:
    return strategy_of(task.aggregation).remember(state, updates, task.aggregation)


def _loss(facts: UpdateFacts) -> float | None:
    """A helper sees no labels, so it knows no loss."""
    return None if facts.helper else facts.loss


def _take_place(facts: UpdateFacts) -> bool:
    return not facts.helper


UPDATE_CONSUMER = VersionConsumer(
    UPDATE,
    UpdateFacts,
    admit,
    item,
    _buffer_size,
    _partial,
    _finish,
    decode_together=_decode_together,
    memory=Peers,
    remember=_remember,
    recall=_recall,
    remembered=_remembered,
    loss=_loss,
    take_place=_take_place,
)
