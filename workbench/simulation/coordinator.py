"""The coordinator's cores in virtual time: admission, waiting updates, versions and receipts, without a journal."""

from collections import OrderedDict, deque
from collections.abc import Callable

from broker_coordinator.admission.admission import admit, apply
from broker_coordinator.admission.authentication import AdmissionPolicy
from broker_coordinator.admission.decisions import Accepted, Enrolled, Message, Refused, Repeated
from broker_coordinator.admission.fleet_view import Decided, FleetView
from broker_coordinator.aggregation.averaging import averaged_weights
from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from broker_coordinator.serving.served_task import ServedTask, WaitingUpdate, version_zero
from broker_coordinator.storage.records import Version
from bundle_runtime.bundle_folder import Bundle
from fleet_protocol.codec import read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Manifest
from workbench.simulation.ledger import Ledger

OUTCOMES_KEPT = 64
"""Per device: more than its outbox may hold, so that whatever is sent again is known."""


class SimulatedCoordinator:
    """Serves one task, and keeps as many versions as a journal does. `made` is called after each new one."""

    def __init__(
        self, bundle: Bundle, speaker: MessageSigner, devices: int, ledger: Ledger, made: Callable[[], None]
    ) -> None:
        zero = version_zero(bundle)
        self._parameters = bundle.description.parameters
        self._served = ServedTask(bundle, zero, zero.state(self._parameters, {}), bundle.grid())
        self._files = OrderedDict([(0, zero.weights)])
        self._weights = read_weights(zero.weights, self._parameters)
        self._policy = AdmissionPolicy(speaker.fleet, speaker.shard, open_enrolment=True, maximum_devices=devices)
        self._speaker = speaker
        self._outcomes: dict[str, deque[tuple[int, Decided]]] = {}
        self._known = FleetView(self._look_up)
        self._known.tasks[bundle.description.task] = self._served.progress()
        self._recent = deque([zero.weights], maxlen=bundle.description.aggregation.averaged_versions)
        self._ledger = ledger
        self._made = made

    @property
    def version(self) -> int:
        """The number of the newest version."""
        return self._served.newest.number

    @property
    def weights(self) -> FloatVector:
        """Those of the newest version, as devices get them, float32 [P]."""
        return self._weights

    def published(self, _: str, version: int) -> bytes | None:
        """The weights file of a version of the one task; None where it is no longer kept."""
        return self._files.get(version)

    @property
    def model(self) -> FloatVector:
        """The weights to use: the mean of as many of the last versions as the task says."""
        return read_weights(averaged_weights(list(self._recent), self._parameters), self._parameters)

    def manifest(self) -> Manifest:
        """The word on the newest version."""
        return self._served.manifest(self._known.devices_taking_part)

    def manifest_bytes(self) -> int:
        """The size of that word as it is retained."""
        return len(self._speaker.manifest(self._served.description.task, self.manifest()).data)

    def deadline(self) -> float | None:
        """When `make_versions` is due although no update comes."""
        return self._served.deadline()

    def handle(self, message: Message, now: float) -> Publication | None:
        """Decide on a message, make the versions that it completes, and answer with a receipt where one is due."""
        decision = admit(message, self._known, self._policy)
        apply(decision, self._known)
        self._keep_outcomes()
        match decision:
            case Accepted(device=device, envelope_digest=digest, update=update, loss=loss):
                self._ledger.updates += 1
                self._ledger.staleness[update.staleness] += 1
                self._served.waiting.append(WaitingUpdate(self._ledger.updates, update, loss))
                self.make_versions(now)
                return self._receipt(device, digest)
            case Repeated(device, _, outcome):
                return self._receipt(device, outcome.digest, outcome.reason, outcome.detail)
            case Enrolled(device, digest):
                return self._receipt(device.name, digest)
            case Refused(str(device), reason, detail, digest, answered=True):
                self._ledger.refused[reason.value] += 1
                return self._receipt(device, digest, reason, detail)
        return None

    def make_versions(self, now: float) -> None:
        """Make every version that is due; at a deadline without a report, ask every device."""
        while made := self._served.next_version(now):
            self._served.advance(made, now)
            self._recent.append(made.version.weights)
            self._keep(made.version)
            self._made()
        self._served.ask_everyone(now)

    def _keep(self, version: Version) -> None:
        self._weights = read_weights(version.weights, self._parameters)
        self._files[version.number] = version.weights
        if len(self._files) > Retention().versions:
            self._files.popitem(last=False)

    def _receipt(self, device: str, digest: bytes, reason: Reason | None = None, detail: str = "") -> Publication:
        return self._speaker.receipt(
            device,
            digest,
            reason=reason,
            detail=detail,
            highest_sequence=self._known.highest_sequence(device),
            newest_boot=self._known.newest_boot(device),
        )

    def _keep_outcomes(self) -> None:
        for (device, sequence), decided in self._known.decided.items():
            self._outcomes.setdefault(device, deque(maxlen=OUTCOMES_KEPT)).append((sequence, decided))
        self._known.decided.clear()

    def _look_up(self, device: str, sequence: int) -> Decided | None:
        return next((decided for number, decided in self._outcomes.get(device, ()) if number == sequence), None)
