"""A simulated device's databases: what survives its crash."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edge_agent.core.device_budget import Sent
from edge_agent.core.outbox import OutboxRow, SignRow
from edge_agent.core.sample_ledger import Charge
from edge_agent.core.selection import RoundFigures
from edge_agent.core.turns import NO_TURNS, Turns
from edge_agent.core.version_choice import KnownVersion
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.envelope import digest
from fleet_protocol.kinds import Outcome


def stored_count(newest_sample: int, different: int, maximum: int, behind: int = 0) -> int:
    """How many of a device's `different` samples are in its store; as `stored_rows`."""
    return max(0, min(newest_sample, different, maximum, newest_sample - behind))


def stored_rows(newest_sample: int, different: int, maximum: int, behind: int = 0) -> NDArray[np.int64]:
    """Which of a device's `different` samples are in its store once `newest_sample` have come, int64, oldest first.

    They come again and again in the same order; one that comes again takes its own place. The newest `maximum` are
    kept, and of these the ones with a number above `behind`.
    """
    stored = stored_count(newest_sample, different, maximum, behind)
    return np.arange(newest_sample - stored, newest_sample) % different


def unseen_rows(
    stored: NDArray[np.int64], different: int, newest_sample: int, trained_through: int
) -> NDArray[np.bool_]:
    """Which of the `stored` rows no round has seen, bool [N]: not one that came before and is still in its place."""
    came = stored if stored.size == different else np.arange(newest_sample - stored.size, newest_sample)
    return came >= trained_through


@dataclass(slots=True)
class DeviceMemory:
    """One device. `fetched` is the newest version whose files are here, `held` the one that it trained on last.

    Samples are numbered from 1. Of its `rounds`, `withheld` sent nothing; `epochs` is how often they went over what is
    stored, `usual_norm` the running mean of their norms. The error feedback's state is in `Residuals`. It is the
    device's `Outbox`: what waits is in `outbox`, with its envelope, and what was rejected, and waits for the next
    round's residual, in `returned`.
    """

    enrolled: bool = False
    known: KnownVersion | None = None
    fetched: KnownVersion | None = None
    held: KnownVersion | None = None
    newest_sample: int = 0
    trained_through: int = 0
    rounds: int = 0
    withheld: int = 0
    epochs: float = 0.0
    usual_norm: float = 0.0
    sequence: int = 0
    outbox: dict[int, OutboxRow] = field(default_factory=dict)
    returned: list[OutboxRow] = field(default_factory=list)
    cluster: int = NO_CLUSTER
    turns: Turns = NO_TURNS
    noised: list[Sent] = field(default_factory=list)
    """The noised updates that were made, of whatever bundles."""
    charges: list[Charge] = field(default_factory=list)
    """What rounds with privacy of samples have told of them, whichever bundle they were for."""
    own: bytes = b""
    """What it keeps of the model to itself, where the task has it keep something."""
    drift: bytes = b""
    """What its last round has left against drift, where the task has it leave something."""
    figures: RoundFigures | None = None
    """Of its last round, where the task selects devices by it."""

    @property
    def new_samples(self) -> int:
        """Samples that no round has seen."""
        return self.newest_sample - self.trained_through

    def begin_bundle(self) -> None:
        """The task has another bundle: to it all samples are new."""
        self.trained_through = 0
        self.turns = NO_TURNS
        self.rounds = 0
        self.withheld = 0
        self.epochs = 0.0
        self.usual_norm = 0.0
        self.own = b""
        self.drift = b""
        self.figures = None

    def is_here(self, blob: str) -> bool:
        """Whether the weights with this SHA-256 are on the device."""
        return any(version and version.weights == blob for version in (self.fetched, self.held))

    def spool(self, row: OutboxRow, sign: SignRow) -> None:
        """Add a payload, under the next number."""
        self.sequence += 1
        is_new = row.sequence == self.sequence and not row.envelope
        unsigned = row if is_new else replace(row, sequence=self.sequence, digest=b"", envelope=b"")
        envelope = sign(unsigned)
        self.outbox[self.sequence] = replace(unsigned, digest=digest(envelope), envelope=envelope)

    def waiting_numbers(self) -> list[int]:
        """See `Outbox`."""
        return list(self.outbox)

    def read(self, sequence: int) -> OutboxRow | None:
        """See `Outbox`."""
        return self.outbox.get(sequence)

    def find(self, name: bytes) -> OutboxRow | None:
        """See `Outbox`."""
        return next((row for row in self.outbox.values() if row.digest == name), None)

    def settle(self, row: OutboxRow, outcome: Outcome, reason: str, *, returned: bool = False) -> None:
        """See `Outbox`. Settled payloads are not kept."""
        del self.outbox[row.sequence]
        if outcome is Outcome.ACCEPTED and self.known is not None:
            self.turns = Turns(self.turns.count, max(self.turns.version, self.known.version))
        elif outcome is Outcome.REJECTED:
            self.turns = Turns(max(self.turns.count - 1, 0), self.turns.version)
        if returned:
            self.returned.append(replace(row, reason=reason))

    def set_cluster(self, _task: str, cluster: int) -> None:
        """See `Outbox`; there is one task."""
        self.cluster = cluster

    def renumber(self, row: OutboxRow, highest_sequence: int, sign: SignRow) -> OutboxRow:
        """See `Outbox`."""
        del self.outbox[row.sequence]
        self.sequence = max(self.sequence, highest_sequence)
        self.spool(row, sign)
        return self.outbox[self.sequence]
