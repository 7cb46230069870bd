"""What survives a crash of a simulated device: what a real one has in its databases."""

from dataclasses import dataclass, field

from edge_agent.core.outbox import OutboxRow
from edge_agent.core.version_choice import KnownVersion


@dataclass(slots=True)
class DeviceMemory:
    """One device. `fetched` is the newest version whose files are here, `held` the one that it trained on last.

    Samples are numbered from 1. The error feedback's state is in `Residuals`; `returned` are rejected updates, packed.
    """

    enrolled: bool = False
    known: KnownVersion | None = None
    fetched: KnownVersion | None = None
    held: KnownVersion | None = None
    newest_sample: int = 0
    trained_through: int = 0
    rounds: int = 0
    sequence: int = 0
    outbox: dict[int, OutboxRow] = field(default_factory=dict)
    returned: list[bytes] = field(default_factory=list)

    @property
    def new_samples(self) -> int:
        """Samples that no round has seen."""
        return self.newest_sample - self.trained_through

    def is_here(self, blob: str) -> bool:
        """Whether the weights with this SHA-256 are on the device."""
        return any(version and version.weights == blob for version in (self.fetched, self.held))
