"""What all simulated agents share: clock, network, coordinator, counts, and workload."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from broker_coordinator.aggregation.device_privacy.version_noise import SEED_BYTES
from broker_coordinator.distribution.signed_messages import MessageSigner
from bundle_runtime.bundle import Bundle
from edge_agent.core.version_choice import KnownVersion, known_from
from edge_agent.training.compression import Encode
from edge_agent.worker.contract import TrainingResult, Withheld
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.kinds import Manifest
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.topics import PackedWeights
from workbench.simulation.conditions import Conditions
from workbench.simulation.coordinator import Prepare, SimulatedCoordinator
from workbench.simulation.downlink import Downlink
from workbench.simulation.event_queue import EventQueue
from workbench.simulation.ledger import Ledger
from workbench.simulation.messages import Parcel, parcel_bytes
from workbench.simulation.residuals import Residuals
from workbench.simulation.round_job import RoundJob
from workbench.simulation.workload import Workload


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """A version as devices get it: `weights` float32 [V]. It is `known` as its manifest names it."""

    task: TaskDescription
    number: int
    weights: FloatVector
    manifest: Manifest
    known: KnownVersion


Tamper = Callable[[int, TaskDescription, TrainingResult], TrainingResult]
"""What the device with this number sends of what its round gave: a hostile one something else."""


def as_trained(_device: int, _task: TaskDescription, result: TrainingResult) -> TrainingResult:
    """What an honest device sends."""
    return result


class Serving(Protocol):
    """What devices and measurements see of a coordinator (`SimulatedCoordinator`)."""

    @property
    def version(self) -> int: ...

    @property
    def weights(self) -> FloatVector: ...

    @property
    def model(self) -> FloatVector: ...

    def model_of(self, cluster: int, /) -> FloatVector: ...

    @property
    def version_to_use(self) -> bytes: ...

    @property
    def noised_sums(self) -> int: ...

    @property
    def clip(self) -> float | None: ...

    def published(self, task: str, version: int, /) -> bytes | None: ...

    def manifest(self) -> Manifest: ...

    def manifest_bytes(self) -> int: ...


class Trainer(Protocol):
    """Carries rounds out elsewhere than in this process."""

    def begin(self, job: RoundJob) -> None:
        """A round has begun; unless its device is switched off before, its result is asked for at its end."""
        ...

    def result(self, job: RoundJob) -> TrainingResult | Withheld:
        """As `round_job.carried_out`.

        Raises:
            DivergedError: the round has diverged.
            ConfigurationError: it can't be carried out.
        """
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a world is made of besides its task.

    With `always_connected`, a device that is on is connected; else it connects for a round and its receipt.
    `accepted` is called after each accepted update, `versioned` when there is something new to train for. `encode`
    writes updates, and `prepared` says what is known of one that nobody signed; `life` gives that of a device's error
    feedback; `tamper` is what devices make of their rounds.
    """

    workload: Workload
    residuals: Residuals
    generator: np.random.Generator
    devices: int
    always_connected: bool
    prepared: Prepare | None
    accepted: Callable[[], None]
    versioned: Callable[[], None]
    encode: Encode
    life: Callable[[int], int]
    tamper: Tamper = as_trained


class SimulatedWorld:
    """Agents reach the coordinator through it, and it counts what they send and fetch.

    `listening` are devices, by number, that hear of every version: each is called with the size of a new manifest.
    `jobs` are the rounds that are under way, by device; they are carried out when they end, in this process or by
    `trainer`.
    """

    def __init__(self, bundle: Bundle, signer: MessageSigner, surroundings: Surroundings) -> None:
        self.queue = EventQueue(surroundings.devices)
        self.ledger = Ledger()
        self.task: TaskDescription = bundle.description
        self.workload = surroundings.workload
        self.residuals = surroundings.residuals
        self.generator = surroundings.generator
        self.always_connected = surroundings.always_connected
        self.encode = surroundings.encode
        self.life = surroundings.life
        self.tamper = surroundings.tamper
        self.deliver: Callable[[int, bytes], None] = _no_device
        """Called with the number of a device, and a receipt that comes to it."""
        self.listening: dict[int, Callable[[int], None]] = {}
        self.trainer: Trainer | None = None
        self.jobs: dict[int, RoundJob] = {}
        self._signer = signer
        self._prepared = surroundings.prepared
        self._accepted = surroundings.accepted
        self._versioned = surroundings.versioned
        self._newest: PublishedVersion | None = None
        self.coordinator: Serving = self._serving(bundle, surroundings.devices)
        self.downlink = Downlink(bundle, signer, self.coordinator.published)
        self._manifest_bytes = self.coordinator.manifest_bytes()
        self._begin()

    def _serving(self, bundle: Bundle, devices: int) -> Serving:
        self._plain = SimulatedCoordinator(
            bundle,
            self._signer,
            devices,
            self.ledger,
            made=self._announce,
            draw_seed=partial(self.generator.bytes, SEED_BYTES),
            rescaled=self._follow_scale,
            prepared=self._prepared,
        )
        self._scale_deadline = -math.inf
        return self._plain

    def _begin(self) -> None:
        self._plain.make_versions(0.0)  # starts its clock
        self._keep_deadline()

    @property
    def newest(self) -> PublishedVersion:
        """What a device fetches now."""
        if self._newest is None or self.task.aggregation.strategy == "fedavg":  # whose manifests follow who is there
            coordinator = self.coordinator
            manifest = coordinator.manifest()
            self._newest = PublishedVersion(
                self.task, coordinator.version, coordinator.weights, manifest, known_from(manifest)
            )
        return self._newest

    def send(self, kind: str, parcel: Parcel, device: int, conditions: Conditions) -> None:
        """Carry a device's message up, and its receipt down. It arrives whatever becomes of the device."""
        size = parcel_bytes(parcel)
        self.ledger.up[kind] += size
        self.queue.after(conditions.upload_seconds(size), partial(self._arrive, parcel, device, conditions))

    def begin_round(self, job: RoundJob) -> None:
        """A device trains."""
        self.jobs[job.device] = job
        if self.trainer is not None:
            self.trainer.begin(job)

    def spread(self, trainer: Trainer) -> None:
        """Let `trainer` carry out all rounds that end from now on."""
        self.trainer = trainer
        for job in self.jobs.values():
            trainer.begin(job)

    def receive_manifest(self) -> int:
        """A device that subscribes receives the newest manifest, which is retained; returns its bytes."""
        self.ledger.down["manifest"] += self._manifest_bytes
        return self._manifest_bytes

    def fetch(self, weights: str | PackedWeights | None, *, is_first: bool, is_rescaled: bool = False) -> int:
        """Count what a device fetches of the newest version: its weights, whole or packed, or nothing where it has
        them; and before it the bundle, or its description alone where the task has got its scale. Returns the bytes
        that come down.
        """
        size = 0
        if is_first or is_rescaled:
            size = self.downlink.bundle_bytes if is_first else self.downlink.description_bytes
            self.ledger.down["bundle"] += size
        if weights is None:
            return size
        base = weights.base if isinstance(weights, PackedWeights) else None
        fetched = self.downlink.version_bytes(self.coordinator.version, base)
        self.ledger.down["first weights" if is_first else "weights"] += fetched
        return size + fetched

    def _arrive(self, parcel: Parcel, device: int, conditions: Conditions) -> None:
        before = self.ledger.updates
        receipt = self._plain.handle(parcel, self.queue.now)
        if receipt is not None:
            self._answer(device, conditions, receipt.data)
        if self.ledger.updates > before:
            self._accepted()
        self._keep_scale_deadline()

    def _answer(self, device: int, conditions: Conditions, receipt: bytes) -> None:
        self.ledger.down["receipt"] += len(receipt)
        self.queue.after(conditions.download_seconds(len(receipt)), partial(self._deliver, device, receipt))

    def _deliver(self, device: int, receipt: bytes) -> None:
        self.deliver(device, receipt)

    def _keep_scale_deadline(self) -> None:
        deadline = self._plain.scale_deadline()
        if deadline is not None and deadline != self._scale_deadline:
            self._scale_deadline = deadline
            self.queue.after(deadline - self.queue.now, partial(self._plain.make_scale, deadline))

    def begin_generation(self, bundle: Bundle) -> None:
        """Serve a bundle in place of the one that the world began with."""
        self._plain.serve(bundle, self.coordinator.version + 1, 1)
        self._follow_scale(bundle)

    def _follow_scale(self, bundle: Bundle) -> None:
        """The task has its scale: what is fetched, trained on and scored follows."""
        self.task = bundle.description
        self.workload = self.workload.rescaled(self.task)
        self.downlink = Downlink(bundle, self._signer, self.coordinator.published)
        self._announce_manifest()

    def _keep_deadline(self) -> None:
        deadline = self._plain.deadline()
        if deadline is not None:
            self.queue.after(deadline - self.queue.now, partial(self._round_over, self.coordinator.version, deadline))

    def _round_over(self, version: int, deadline: float) -> None:
        self._plain.make_versions(deadline)
        if self.coordinator.version == version:
            self._announce_manifest()  # which asks every device now
            if self.task.selection is not None:
                self._versioned()

    def _announce(self) -> None:
        self._announce_manifest()
        self._keep_deadline()
        self._versioned()

    def _announce_manifest(self) -> None:
        self._newest = None
        self._manifest_bytes = self.coordinator.manifest_bytes()
        self.ledger.down["manifest"] += len(self.listening) * self._manifest_bytes
        for hear_of_version in list(self.listening.values()):
            hear_of_version(self._manifest_bytes)


def _no_device(device: int, _receipt: bytes) -> None:
    raise LookupError(f"a receipt for device {device} in a world without devices")
