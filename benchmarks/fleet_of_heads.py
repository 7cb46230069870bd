"""A coordinator as shipped, without a network, to which devices send feature statistics: for `one_message`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from broker_coordinator.admission.decisions import Message
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.serving.coordinator import Coordinator
from broker_coordinator.serving.forgetting import Asked, forget_device
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.journal import Journal
from bundle_runtime.bundle import Bundle, with_description
from bundle_runtime.samples import Samples
from fleet_protocol import topics
from fleet_protocol.codec import ClassStatistics
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.envelope import sign_envelope
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import FEATURE_STATISTICS, FeatureStatistics, encode_payload
from fleet_protocol.solved_head import SolvedHead

FLEET, SHARD = "bench", "0"
LONG_AFTER = 1e6
"""Seconds: what waits is made a version of by then."""


def with_head(bundle: Bundle, head: SolvedHead, buffer_size: int) -> Bundle:
    """The same task with another solver."""
    aggregation = msgspec.structs.replace(bundle.description.aggregation, buffer_size=buffer_size)
    return with_description(
        bundle, msgspec.structs.replace(bundle.description, solved_head=head, aggregation=aggregation)
    )


def statistics_message(name: str, samples: Samples, bundle: Bundle, sequence: int = 1) -> bytes:
    """The one signed message of a device."""
    head = bundle.description.solved_head
    if head is None:
        raise ValueError(f"{bundle.description.task} has no solved head")
    features = samples.inputs.reshape(len(samples), -1)
    labels = samples.labels.astype(np.int64)
    statistics = ClassStatistics.of(features, labels, bundle.description.label.classes, head.solver)
    payload = encode_payload(FeatureStatistics(statistics.encode(head.precision, head.solver)))
    topic, task = topics.up(FLEET, SHARD, name), bundle.description.task
    return sign_envelope(_key(name), topic, FEATURE_STATISTICS, payload, sequence=sequence, task=task)


def _key(name: str) -> SigningKey:
    return SigningKey(name.encode().ljust(32, b"\0"))


@dataclass(slots=True)
class HeadFleet:
    """A database in `folder`, and the coordinator on it."""

    folder: Path
    bundle: Bundle
    now: float = 0.0

    def send(self, messages: Mapping[str, bytes], *, parts: int) -> FloatVector:
        """Let devices enrol and send, in the mapping's order and in so many parts, with a restart after each; the
        weights of the last version.
        """
        names = list(messages)
        size = -(-len(names) // parts)
        for start in range(0, len(names), size):
            self._part({name: messages[name] for name in names[start : start + size]})
        return self.weights()

    def forget(self, names: Sequence[str]) -> FloatVector:
        """Forget devices one by one, as `devices forget` does; the weights of the last version."""
        with Journal.open(self.folder / "journal.db") as journal:
            for name in names:
                DeviceRegistry(journal.engine).forget(name)
                list(forget_device(journal, Asked(name), ()))
        return self.weights()

    def weights(self) -> FloatVector:
        """Those of the last version, f32[P]."""
        with Journal.open(self.folder / "journal.db") as journal:
            version = journal.newest_version(self.bundle.description.task)
            if version is None:
                raise ValueError("nothing was sent: there is no version")
            return version.state(self.bundle.description.parameters, {}).weights

    def _part(self, messages: Mapping[str, bytes]) -> None:
        settings = AdmissionSettings(FLEET, SHARD, open_enrolment=True, maximum_devices=10_000)
        with Journal.open(self.folder / "journal.db") as journal:
            registry = DeviceRegistry(journal.engine)
            for name in messages:
                registry.approve(name, _key(name).verify_key)
            signer = MessageSigner(_key("coordinator"), FLEET, SHARD)
            coordinator = Coordinator(journal, [self.bundle], signer, settings)
            sent = [Message(topics.up(FLEET, SHARD, name), data) for name, data in messages.items()]
            for start in range(0, len(sent), 500):
                coordinator.handle(sent[start : start + 500], self.now)
            self.now += LONG_AFTER
            coordinator.make_versions(self.now)
            self.now += LONG_AFTER
            coordinator.make_versions(self.now)


def pooled_ridge(features: NDArray[np.float32], labels: NDArray[np.int64], ridge: float) -> NDArray[np.float64]:
    """The ridge regression of all samples together on their classes, by LAPACK's least squares, as flat weights."""
    table = np.hstack([features.astype(np.float64), np.ones((len(features), 1))])
    targets = np.eye(int(labels.max()) + 1)[labels]
    penalty = np.sqrt(ridge) * np.eye(table.shape[1])[:-1]
    below = np.zeros((len(penalty), targets.shape[1]))
    found = np.linalg.lstsq(np.vstack([table, penalty]), np.vstack([targets, below]), rcond=None)[0].T
    return np.concatenate([found[:, :-1].ravel(), found[:, -1]])
