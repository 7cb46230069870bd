"""The whole coordinator in virtual time, with its journal in memory: cohorts of masked updates live in a database."""

from collections import OrderedDict
from collections.abc import Callable

from broker_coordinator.admission.decisions import Message
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.aggregation.averaging import RecentVersions
from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from broker_coordinator.serving.coordinator import Coordinator
from broker_coordinator.storage.database import IN_MEMORY
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle
from fleet_protocol import topics
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.codec import read_model, read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.envelope import read_envelope
from fleet_protocol.kinds import Manifest, decode_payload
from fleet_protocol.limits import MAX_CONTROL_BYTES

PUBLICATIONS_AT_ONCE = 1000


class MaskedCoordinator:
    """Serves one task to so many `members`, helpers among them; `draw_below` gives the numbers of cohorts. What it
    knows of versions is what it has announced: see `say`.
    """

    noised_sums = 0
    clip: float | None = None

    def __init__(self, bundle: Bundle, signer: MessageSigner, members: int, draw_below: Callable[[int], int]) -> None:
        self._journal = Journal.open(IN_MEMORY)
        settings = AdmissionSettings(signer.fleet, signer.shard, True, members)
        self._coordinator = Coordinator(self._journal, [bundle], signer, settings, draw_below=draw_below)
        self._topic = topics.manifest(signer.fleet, bundle.description.task)
        self._retained = b""
        self._begin(bundle)
        self.say(0.0)

    def _begin(self, bundle: Bundle) -> None:
        task = bundle.description
        self._bundle, self._task, self._parameters = bundle, task, task.version.parameters
        self._files: OrderedDict[int, bytes] = OrderedDict()
        self._recent = RecentVersions(task.averaged_versions)

    @property
    def bundle(self) -> Bundle:
        """Of the newest version."""
        return self._bundle

    @property
    def version(self) -> int:
        """The number of the newest version."""
        return self._manifest.version

    @property
    def weights(self) -> FloatVector:
        """Those of the newest version, as devices get them, float32 [V]."""
        return self._weights

    @property
    def model(self) -> FloatVector:
        """The weights to use, float32 [P]: the mean of as many of the last versions as the task says."""
        return self.model_of(NO_CLUSTER)

    def model_of(self, cluster: int) -> FloatVector:
        """The same: a task with masks has no clusters."""
        return read_model(self.version_to_use, self._task, cluster)

    @property
    def version_to_use(self) -> bytes:
        """The file that `model` is read from."""
        return self._recent.model(self._parameters)

    def published(self, _: str, version: int) -> bytes | None:
        """The weights file of a version of the one task; None where it is no longer kept."""
        return self._files.get(version)

    def manifest(self) -> Manifest:
        """The newest that was announced; it names the open cohort."""
        return self._manifest

    def manifest_bytes(self) -> int:
        """The size of the manifest as it is retained."""
        return len(self._retained)

    def handle(self, message: Message, now: float) -> None:
        """Decide on a message. What follows of it is done and told by `say`."""
        self._coordinator.handle([message], now)

    def say(self, now: float) -> list[Publication]:
        """Do what is due: make versions, go on with cohorts. Returns what is published then, in its order."""
        self._coordinator.make_versions(now)
        said: list[Publication] = []
        while taken := self._coordinator.publications(PUBLICATIONS_AT_ONCE, now):
            said += taken
        for each in said:
            if each.topic == self._topic:
                self._announced(each.data)
        return said

    def next_due(self) -> float | None:
        """When `say` has something to do although no message comes."""
        return self._coordinator.next_due()

    def _announced(self, data: bytes) -> None:
        self._retained = data
        self._manifest = decode_payload(read_envelope(data, MAX_CONTROL_BYTES).payload, Manifest)
        if self._manifest.bundle != self._bundle.hash:
            self._begin(TaskRegistry(self._journal.engine).bundle(self._task.task))
        for version in self._journal.versions(self._task.task, after=max(self._files, default=self.version - 1)):
            self._files[version.number] = version.weights
            self._recent.add(version.number, version.weights)
            self._weights = read_weights(version.weights, self._parameters)
            if len(self._files) > Retention().versions:
                self._files.popitem(last=False)
