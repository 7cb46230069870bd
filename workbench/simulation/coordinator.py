"""The coordinator's cores in virtual time: admission, answers and version making, without a journal."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from broker_coordinator.admission.admission import Admission
from broker_coordinator.admission.ahead import Prepared
from broker_coordinator.admission.decisions import Accepted, Decision, Refused
from broker_coordinator.admission.fleet_view import DeviceState, FleetView, TaskProgress, devices_taking_part
from broker_coordinator.admission.parsed_message import ParsedMessage
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.aggregation.averaging import RecentVersions
from broker_coordinator.aggregation.clusters import NO_PULL, Pull, ToldApart, clusters_by_direction, heard_from
from broker_coordinator.aggregation.collapse import smaller
from broker_coordinator.aggregation.harm import Harm
from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies import Recall
from broker_coordinator.aggregation.version import Version, version_of, version_zero
from broker_coordinator.consumers import CONSUMERS, STATISTICS_CONSUMER, version_consumer
from broker_coordinator.consumers.update import UpdateFacts
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from broker_coordinator.serving.answers import Receipts
from broker_coordinator.serving.awaited_scale import AwaitedScale
from broker_coordinator.serving.cluster_finder import is_look_due
from broker_coordinator.serving.culprits import culprits
from broker_coordinator.serving.due import ask_everyone, deadline
from broker_coordinator.serving.judging import hold, suspicions
from broker_coordinator.serving.making import NextVersion, advance, next_version
from broker_coordinator.serving.served_task import ServedTask
from broker_coordinator.serving.waiting import WaitingPayload
from broker_coordinator.storage.records import Aggregate
from bundle_runtime.bundle import Bundle
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.codec import read_model, read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.kinds import STATISTICS, Manifest, PayloadKind, PresenceState
from fleet_protocol.task_description import TaskDescription
from workbench.simulation.ledger import Ledger
from workbench.simulation.messages import Parcel
from workbench.simulation.outcomes import Outcomes

Prepare = Callable[[ParsedMessage, TaskDescription], Prepared]
"""What is known of a message that nobody signed, before it is decided on: docs/simulation.md."""


class SimulatedCoordinator:
    """Serves one task, and keeps as many versions as a journal does. `made` is called after each new one, `rescaled`
    with the bundle that has its scale; `draw_seed` gives the seed of a version's noise; `prepared` is there where
    nothing is signed.
    """

    def __init__(
        self,
        bundle: Bundle,
        signer: MessageSigner,
        devices: int,
        ledger: Ledger,
        *,
        made: Callable[[], None],
        draw_seed: Callable[[], bytes],
        rescaled: Callable[[Bundle], None],
        prepared: Prepare | None = None,
    ) -> None:
        settings = AdmissionSettings(signer.fleet, signer.shard, True, devices)
        self._admission = Admission(settings, CONSUMERS)
        self._signer = signer
        self._receipts = Receipts(signer)
        self._view = FleetView(lambda _device, _sequence: None, decided=Outcomes())
        self._position = 0
        """Of the last payload that was accepted."""
        self._devices = devices
        self._ledger = ledger
        self._made = made
        self._rescaled = rescaled
        self._prepared = prepared
        self._draw_seed = draw_seed
        self._pulls: dict[str, Pull] = {}
        """By device, where its updates pull, where clusters are found by that; who sent last is last."""
        self._kinds: ToldApart = {}
        """Of `clusters_by_direction`."""
        self._looked: int | None = None
        """Behind which version clusters were looked for last."""
        self.serve(bundle, 0, 0)

    @property
    def version(self) -> int:
        """The number of the newest version."""
        return self._served.newest.number

    @property
    def weights(self) -> FloatVector:
        """Those of the newest version, as devices get them, float32 [V]."""
        return self._weights

    @property
    def noised_sums(self) -> int:
        """How many versions hide each device, so far."""
        return self._served.noise.made

    @property
    def clip(self) -> float | None:
        """As the newest version has it (`ServerState`)."""
        return self._served.state.clip

    def published(self, _: str, version: int) -> bytes | None:
        """The weights file of a version of the one task; None where it is no longer kept."""
        return self._files.get(version)

    @property
    def model(self) -> FloatVector:
        """The weights to use, float32 [P]: the mean of as many of the last versions as the task says, once there are so
        many; of a task with clusters, those of devices without one.
        """
        return self.model_of(NO_CLUSTER)

    def model_of(self, cluster: int) -> FloatVector:
        """The same as devices of a cluster have it."""
        return read_model(self.version_to_use, self._served.description, cluster)

    @property
    def version_to_use(self) -> bytes:
        """The file that `model` is read from."""
        return self._recent.model(self._parameters)

    def manifest(self) -> Manifest:
        """What devices are told of the newest version."""
        return self._served.manifest(lambda: devices_taking_part(self._approved()))

    def _approved(self) -> dict[str, PresenceState]:
        approved = (device for device in self._view.devices.values() if device.state is DeviceState.APPROVED)
        return {device.name: device.presence for device in approved}

    def manifest_bytes(self) -> int:
        """The size of the manifest as it is retained."""
        return len(self._signer.manifest(self._served.description.task, self.manifest()).data)

    def deadline(self) -> float | None:
        """When `make_versions` is due although no update comes."""
        return deadline(self._served)

    def handle(self, parcel: Parcel, now: float) -> Publication | None:
        """Decide on a message, make the versions that it completes, and answer with a receipt where one is due."""
        self._note_progress()
        view = self._view
        view.now = now
        decision = self._decide(parcel, view)
        self._admission.apply(decision, view)
        match decision:
            case Accepted(device, header, staleness=staleness, facts=facts, item=item) if header.kind is STATISTICS:
                self._awaited.waiting.append(self._waiting(device, staleness, facts, item))
                self.make_scale(now)
            case Accepted(device, header, staleness=staleness, facts=facts, item=item) if self._is_update(header.kind):
                self._ledger.updates += 1
                self._ledger.staleness[staleness] += 1
                self._note_pull(device, facts)
                self._served.waiting.append(self._waiting(device, staleness, facts, item))
                self.make_versions(now)
            case Refused(reason=reason, detail=detail):
                self._ledger.refuse(reason.value, detail)
        return self._receipts.receipt(decision, view, now)

    def _note_pull(self, device: str, facts: Any) -> None:
        if isinstance(facts, UpdateFacts) and facts.direction:
            before = self._pulls.pop(device, NO_PULL)
            self._pulls[device] = before.after(
                facts.cluster, facts.direction, facts.norm * facts.scale, self.version + 1
            )

    def _find_clusters(self) -> None:
        """What the verb `clusters find` does behind a version."""
        served = self._served
        plan, first = served.description.clusters, served.first_version
        looked = None if self._looked is None else self._looked - first
        if plan is None or plan.found_by != "directions" or not is_look_due(plan, self.version - first, looked):
            return
        self._looked = self.version
        now = self._view.clusters.setdefault(served.description.task, {})
        heard = heard_from(self.version, len(self._pulls), served.description.aggregation)
        found = clusters_by_direction(self._pulls, now, self._kinds, plan.most, heard=heard)
        now |= found.moved
        self._kinds = found.directions

    def _waiting(self, device: str, staleness: int, facts: Any, item: Any) -> WaitingPayload:
        self._position += 1
        return WaitingPayload(self._position, device, staleness, facts, item)

    def _decide(self, parcel: Parcel, view: FleetView) -> Decision:
        if isinstance(parcel, ParsedMessage):
            assert self._prepared is not None  # noqa: S101 - devices sign, or `Simulation` gives what prepares
            return self._admission.decide(parcel, self._prepared(parcel, self._served.description), view)
        return self._admission.admit(parcel, view)

    def scale_deadline(self) -> float | None:
        """When `make_scale` is due although no device reports."""
        return self._awaited.deadline()

    def make_scale(self, now: float) -> None:
        """Begin the generation with the task's scale, if enough devices have reported."""
        if not self._awaited.is_due(now):
            return
        if found := self._awaited.next_scale(self._served.bundle, self._devices, now):
            self.serve(found.bundle, self.version + 1, self._served.generation + 1)
            self._rescaled(found.bundle)

    def serve(self, bundle: Bundle, version: int, generation: int) -> None:
        """Serve a bundle, whose own version is `version`, from now on."""
        task = bundle.description
        own = version_zero(bundle, version)
        self._parameters = task.version.parameters
        state = own.state(self._parameters, {})
        self._served = ServedTask(
            bundle,
            version_consumer(task),
            own,
            state,
            bundle.grid(),
            generation=generation,
            first_version=version,
            harm=Harm(version),
            approved=lambda: self._view.numbers[DeviceState.APPROVED],
            draw_seed=self._draw_seed,
        )
        self._view.participations.clear()
        self._pulls.clear()
        self._kinds = {}
        self._looked = None
        self._files = OrderedDict([(version, own.weights)])
        self._states: dict[int, ServerState] = {}
        self._weights = read_weights(own.weights, self._parameters)
        self._recent = RecentVersions(task.averaged_versions)
        self._recent.add(version, own.weights)
        self._note_progress()
        none_yet = Aggregate(task.task, STATISTICS.number, 0, b"")
        self._awaited = AwaitedScale(STATISTICS_CONSUMER, task, none_yet)

    def make_versions(self, now: float) -> None:
        """Make every version that is due; at a deadline without a report, ask every device."""
        while made := self._next_version(now):
            advance(self._served, made, now)
            self._recent.add(made.version.number, made.version.weights)
            self._keep(made.version)
            if collapse := self._served.watch.collapse():
                self._go_back(collapse.good)
            self._find_clusters()
            self._made()
        ask_everyone(self._served, now)

    def _go_back(self, good: int) -> None:
        """Restore a version, as `serving.collapses` does with a journal."""
        served = self._served
        old, task = self._states[good], served.description
        remembered = old.remembered
        if served.consumer.recall(task) is not Recall.LAST_UPDATES:
            remembered = served.consumer.remembered(served.state, (), task)
        step = smaller(served.state.step)
        newest = served.newest.number
        state = replace(old, version=newest + 1, remembered=remembered, step=step, clip=served.state.clip)
        restored = version_of(task, state, served.grid)
        again = replace(
            restored,
            restored=good,
            buffer_size=served.newest.buffer_size,
            tempers_since=served.newest.tempers_since,
            tempers_until=served.newest.tempers_until,
            tempers_not_until=served.newest.tempers_not_until,
        )
        served.go_back(again, state)
        self._recent.drop_after(good)
        self._recent.add(state.version, restored.weights)
        self._keep(restored)
        self._ledger.collapses += 1

    def _note_progress(self) -> None:
        served = self._served
        self._view.tasks[served.description.task] = TaskProgress.standing_at(
            served.description,
            served.newest.number,
            len(served.waiting),
            served.buffer_size,
            generation=served.generation,
            first_version=served.first_version,
            sums_after=served.newest.number - served.noise.made,
        )

    def _next_version(self, now: float) -> NextVersion | None:
        """None for good once nothing that waits makes a version: a real coordinator stops the task then."""
        served = self._served
        while not self._ledger.stopped:
            try:
                made = next_version(served, now)
                if made is None or not (found := suspicions(served)):
                    return made
                hold(served, found)
                self._ledger.held += sum(each.is_held for each in found.values())
                self._ledger.tempered += sum(0 < each.counts < 1 for each in found.values())
            except ArithmeticError as error:
                buffer = served.buffer()
                items = [waiting.item for waiting in buffer]
                failed = culprits(served.consumer, served.state, items, served.description, served.check)
                if len(failed) == len(buffer):
                    self._ledger.stopped = str(error)
                else:
                    served.drop({buffer[index].position for index in failed})
                    self._ledger.set_aside += len(failed)
        return None

    def _is_update(self, kind: PayloadKind) -> bool:
        return kind.decrypted is self._served.consumer.kind

    def _keep(self, version: Version) -> None:
        self._weights = read_weights(version.weights, self._parameters)
        self._states[version.number] = self._served.state
        oldest = self._served.watch.oldest
        for number in [each for each in self._states if oldest is None or each < oldest]:
            del self._states[number]
        self._files[version.number] = version.weights
        if len(self._files) > Retention().versions:
            self._files.popitem(last=False)
