"""What the journal keeps, as values: accepted payloads, aggregates, and what is known of versions. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from broker_coordinator.admission.consumer import AnyJournalledConsumer, Offered, VersionConsumer
from broker_coordinator.consumers import journalled_consumer
from fleet_protocol.encryption import decrypt_payload
from fleet_protocol.envelope import digest, read_envelope
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import KeyRing
from fleet_protocol.kinds import decode_payload
from fleet_protocol.task_description import TaskDescription


@dataclass(frozen=True, slots=True)
class JournalledPayload:
    """One accepted payload. `kind` is the number of what is in the box, where it is encrypted.

    `facts` is JSON of the struct that the kind's consumer names. `envelope` is None once the retention rule has dropped
    it. `aggregate` is the number of the one that holds it, a version where the kind makes those; None while it waits.
    `set_aside` says why none will, `suspicion` why it was found suspicious.
    """

    position: int
    device: str
    sequence: int
    digest: bytes
    kind: int
    task: str
    base_version: int
    staleness: int
    facts: str
    envelope: bytes | None
    aggregate: int | None
    set_aside: str | None = None
    suspicion: str | None = None

    def is_as_admitted(self) -> bool:
        """Whether the envelope has the bytes that were admitted."""
        return self.envelope is not None and digest(self.envelope) == self.digest

    def read_facts(self) -> Any:
        """The facts as the kind's consumer made them.

        Raises:
            ConfigurationError: the kind has no consumer here.
        """
        return msgspec.json.decode(self.facts, type=self._consumer().facts)

    def item(self, task: TaskDescription, keys: KeyRing) -> Any:
        """What the kind's consumer aggregates; encrypted payloads are journalled as they came, and opened with `keys`.

        Raises:
            ConfigurationError: its envelope is dropped, or the kind has no consumer here.
        """
        return self._consumer().item(self._offered(task, keys), self.read_facts())

    def _offered(self, task: TaskDescription, keys: KeyRing) -> Offered[Any]:
        consumer = self._consumer()
        if self.envelope is None:
            kind = consumer.kind
            holder = "version" if isinstance(consumer, VersionConsumer) else "aggregate"
            raise ConfigurationError(
                f"the envelope of {kind.name} {self.sequence} of {self.device}, in {holder} {self.aggregate}, is"
                " dropped; begin at a later version, or raise [retention] envelopes to keep more of them"
            )
        envelope = read_envelope(self.envelope, len(self.envelope))
        payload = decode_payload(decrypt_payload(envelope, keys), consumer.kind.payload)
        return Offered(self.device, envelope.header, payload, task, self.staleness)

    def _consumer(self) -> AnyJournalledConsumer:
        if (consumer := journalled_consumer(self.kind)) is None:
            raise ConfigurationError(
                f"payload {self.sequence} of {self.device} is of kind {self.kind}, which nothing here consumes; use the"
                " edgeflock that journalled it"
            )
        return consumer


def items_together(
    rows: Sequence[JournalledPayload], task: TaskDescription, keys: KeyRing
) -> list[tuple[JournalledPayload, Any]]:
    """Each of the rows, which are of one task and kind, with what `item` makes of it, or the exception that it raises.
    Decoded together they take a part of the time (docs/decisions/updates-decoded-together.md).
    """
    consumer = journalled_consumer(rows[0].kind) if rows else None
    found: dict[int, Any] = {}
    offered = [found.setdefault(row.position, _tried(row._offered, task, keys)) for row in rows]
    good = [(row, each) for row, each in zip(rows, offered, strict=True) if isinstance(each, Offered)]
    together = consumer.decode_together if consumer is not None else None
    decoded = _tried(together, [each.payload for _, each in good], task) if together else None
    for number, (row, each) in enumerate(good):
        ready = decoded[number] if isinstance(decoded, Sequence) else None
        found[row.position] = _tried(_item, row, msgspec.structs.replace(each, decoded=ready))
    return [(row, found[row.position]) for row in rows]


def _item(row: JournalledPayload, offered: Offered[Any]) -> Any:
    return row._consumer().item(offered, row.read_facts())


def _tried(make: Callable[..., Any], *arguments: Any) -> Any:
    """What it makes, or the exception that it raises."""
    try:
        return make(*arguments)
    except Exception as error:
        return error


def declared_loss(kind: int, facts: str) -> float | None:
    """A device's loss in training, out of journalled facts; None where the kind tells none or has no consumer
    here, or the facts can't be read.
    """
    consumer = journalled_consumer(kind)
    if not isinstance(consumer, VersionConsumer) or consumer.loss is None:
        return None
    try:
        return consumer.loss(msgspec.json.decode(facts, type=consumer.facts))
    except msgspec.MsgspecError:
        return None


class _Samples(msgspec.Struct, frozen=True):
    samples: int = 0


def counted_in(facts: str) -> int:
    """The samples that count of an update, out of its journalled facts; 0 where they can't be read."""
    try:
        return msgspec.json.decode(facts, type=_Samples).samples
    except msgspec.MsgspecError:
        return 0


class _Noise(msgspec.Struct, frozen=True):
    noise: float | None = None


def declared_noise(facts: str) -> float | None:
    """The noise that an update says, out of its journalled facts; None where it says none. Of facts that can't be read
    nothing is claimed: they are as of an update without noise.
    """
    try:
        return msgspec.json.decode(facts, type=_Noise).noise
    except msgspec.MsgspecError:
        return 0.0


@dataclass(frozen=True, slots=True)
class PayloadSetAside:
    """An accepted payload that can't be applied, and why."""

    device: str
    sequence: int
    kind: int
    reason: str


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What a kind that makes no versions has made of some payloads; `state` is its consumer's, b"" at number 0."""

    task: str
    kind: int
    number: int
    state: bytes


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a version is on held-out samples: mean loss, and the share of right answers where labels are classes."""

    version: int
    samples: int
    loss: float
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Collapse:
    """Training that collapsed: the version `number` is the older one `restored`, and `step` is the factor on the
    server's learning rate from there on.
    """

    number: int
    restored: int
    step: float


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """A version without its weights; `step` is the factor on the server's learning rate from there on. `given` says
    what it is, where no updates made it. `updates`, `mean_loss` and `mean_staleness` are of the updates that it holds;
    None where there is none, or none that tells its loss. `with_forgotten` are devices that were forgotten, with whose
    updates it was made nevertheless.
    """

    number: int
    weights_hash: str
    restored: int | None
    kept: bool
    step: float
    updates: int
    mean_loss: float | None
    mean_staleness: float | None
    evaluation: Evaluation | None
    given: str | None = None
    with_forgotten: tuple[str, ...] = ()
