"""Masked updates: of one alone nothing can be told but who sent it; a cohort's, with its masks' sum, make a version.

Whether one counts is settled with its cohort: until then its receipt says that it awaits it. Pure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from broker_coordinator.admission.consumer import Admitted, Offered, VersionConsumer
from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.server_step import next_state
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.errors import ConfigurationError, ProtocolError, Reason
from fleet_protocol.kinds import MASKED_UPDATE, MaskedUpdate, Signed
from fleet_protocol.task_description import TaskDescription
from secure_aggregation.bit_packing import Words, unpack
from secure_aggregation.coordinator import (
    AdmittedUpdate,
    VoidCohortError,
    admitted,
    require_summed,
    sum_without,
    summed_ciphertext,
    weighted_mean,
)
from secure_aggregation.manifest import field_of
from secure_aggregation.messages import CohortManifest, CohortSet, SealedSeeds, message_hash
from secure_aggregation.positions import shared_positions
from secure_aggregation.signatures import read_unverified


class MaskedFacts(msgspec.Struct, frozen=True, gc=False):
    """`cohort` is the name of the cohort that it is for, in hex."""

    cohort: str


class MaskedItem(msgspec.Struct, frozen=True, gc=False):
    """A masked update as it came."""

    device: str
    seeds: Signed
    values: bytes

    def masked(self, manifest: CohortManifest) -> Words:
        """Its entries, uint32[entries]."""
        return unpack(self.values, manifest.entries, field_of(manifest).width)

    def unopened(self) -> AdmittedUpdate:
        """As a member of a set, without its entries; it was checked when it came."""
        seeds = read_unverified(self.seeds, SealedSeeds)
        nothing = np.empty(0, np.uint32)
        return AdmittedUpdate(self.device, seeds.sequence, seeds.base_version, self.seeds, message_hash(seeds), nothing)


class SumOfMasks(msgspec.Struct, frozen=True, gc=False):
    """What turns a set's masked updates into their sum. `masks` is uint32[entries], little endian."""

    manifest: CohortManifest
    cohort_set: CohortSet
    masks: bytes


@dataclass(frozen=True, slots=True)
class MaskedPartial:
    """Masked updates, and once the sum of their masks."""

    items: tuple[MaskedItem | SumOfMasks, ...] = ()

    def __add__(self, other: "MaskedPartial") -> "MaskedPartial":
        return MaskedPartial(self.items + other.items)


class Members:
    """Which cohort each device has sent an update to last."""

    def __init__(self, cohorts: dict[str, str] | None = None) -> None:
        self._cohorts = cohorts or {}

    def note(self, device: str, cohort: str) -> None:
        """It has sent one to this cohort."""
        self._cohorts[device] = cohort

    def has(self, device: str, cohort: str) -> bool:
        """Whether it has."""
        return self._cohorts.get(device) == cohort

    def copy(self) -> "Members":
        """One that changes by itself."""
        return Members(dict(self._cohorts))


def admit(offered: Offered[MaskedUpdate]) -> Admitted[MaskedFacts, MaskedItem]:
    """Check that it is for the cohort that is open, and the only one of its device.

    Raises:
        ProtocolError: why it can't be a member of any set.
    """
    update, cohort = offered.payload, offered.cohort
    if cohort is None or offered.key is None:
        raise ProtocolError(Reason.COHORT_CLOSED, f"no cohort of {offered.task.task} is open now; wait for the next")
    if (sent_to := read_unverified(update.seeds, SealedSeeds).cohort) != cohort.name:
        raise ProtocolError(
            Reason.COHORT_CLOSED,
            f"it is for cohort {sent_to[:8].hex()} of {offered.task.task}, and {cohort.name[:8].hex()} is open: take it"
            " back",
        )
    checked = admitted(cohort.manifest, update, offered.device, offered.key)
    if checked.base_version != offered.header.base_version:
        raise ProtocolError(
            Reason.MALFORMED,
            f"its seeds say version {checked.base_version}, its header {offered.header.base_version}",
        )
    facts = MaskedFacts(cohort.name.hex())
    if isinstance(offered.memory, Members) and offered.memory.has(offered.device, facts.cohort):
        raise ProtocolError(Reason.COHORT_CLOSED, f"{offered.device} has sent an update to this cohort already")
    return Admitted(facts, item(offered, facts))


def item(offered: Offered[MaskedUpdate], _: MaskedFacts) -> MaskedItem:
    """As it came."""
    return MaskedItem(offered.device, offered.payload.seeds, offered.payload.values)


def _partial(_: ServerState, items: Sequence[MaskedItem | SumOfMasks], _task: TaskDescription) -> MaskedPartial:
    return MaskedPartial(tuple(items))


def _finish(state: ServerState, partial: MaskedPartial, task: TaskDescription) -> ServerState:
    """The version that the mean of a set makes; raises VoidCohortError where no updates have such a sum."""
    sums = [each for each in partial.items if isinstance(each, SumOfMasks)]
    masked = {each.device: each for each in partial.items if isinstance(each, MaskedItem)}
    if len(sums) != 1 or {each.device for each in sums[0].cohort_set.members} != masked.keys():
        raise ConfigurationError(
            f"version {state.version + 1} of {task.task} is a sum behind masks: no device's update can be taken out of"
            " it, nor seen by itself; roll back to the version before it"
        )
    (closing,) = sums
    manifest = closing.manifest
    ciphertext = summed_ciphertext(manifest, closing.cohort_set, lambda device: masked[device].values)
    try:
        require_summed(closing.cohort_set, ciphertext)
    except VoidCohortError as error:
        raise ConfigurationError(f"version {state.version + 1} of {task.task}: {error}") from error
    total = sum_without(
        manifest,
        closing.cohort_set,
        lambda device: masked[device].masked(manifest),
        np.frombuffer(closing.masks, "<u4"),
    )
    mean = SparseUpdate(shared_positions(manifest), weighted_mean(manifest, total))
    return next_state(state, [BufferedUpdate("", mean, total.devices, state.version, 0)], task.aggregation)


def _buffer_size(task: TaskDescription) -> int:
    return task.aggregation.smallest_buffer


def _remember(members: Members, device: str, facts: MaskedFacts, _: TaskDescription) -> None:
    members.note(device, facts.cohort)


def first_of_each_device(items: Iterable[MaskedItem]) -> dict[str, MaskedItem]:
    """The updates that a set may be made of, by device."""
    found: dict[str, MaskedItem] = {}
    for each in items:
        found.setdefault(each.device, each)
    return found


MASKED_UPDATE_CONSUMER = VersionConsumer(
    MASKED_UPDATE,
    MaskedFacts,
    admit,
    item,
    _buffer_size,
    _partial,
    _finish,
    memory=Members,
    remember=_remember,
)
