"""What a simulated fleet has sent and what became of it, counted as it happens."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from fleet_protocol.privacy.mask_plan import MASKED_UPDATE_NAME
from workbench.report.privacy_told import Told


class Point(msgspec.Struct, frozen=True):
    """The fleet at one moment.

    `first_bytes`: what devices are sent once, bundles and first weights. `score` is of the model to use; the summary's
    `measure` says what it is. `epsilon`: what was told of one `sample` or `device` at most, where the task bounds it;
    `clip`: that of the next updates, where it follows their norms.
    """

    virtual_seconds: float
    version: int
    updates: int
    uplink_bytes: int
    total_bytes: int
    first_bytes: int
    score: float
    epsilon: dict[str, float] = {}
    clip: float | None = None


class Count(msgspec.Struct, frozen=True):
    """How often something happened, and the words that were given the first time."""

    times: int = 0
    words: str = ""

    def __bool__(self) -> bool:
        """Whether it has happened."""
        return self.times > 0

    def again(self, words: str) -> "Count":
        """It has happened once more."""
        return Count(self.times + 1, self.words or words)


class Summary(msgspec.Struct, frozen=True):
    """A whole simulation. Bytes are of signed messages, by kind; MQTT, TCP and TLS come on top.

    `uplink_bytes` are the updates alone, as they were sent, repetitions included; `total_bytes` is everything.
    `measure` says what a score is; `first_score` is version 0's, `heads` are each head's last, `one_answer` is that of
    the best one answer to all samples, where it is known. `reached`
    is the first point at the score `target`, after an update. `set_aside` accepted updates could not be applied;
    `held` ones are in quarantine as suspicious, `tempered` ones counted less, as they are suspicious. `stopped` says
    why no version could be made any more, if so; `collapses` counts returns to the last good version.
    `staleness` counts accepted updates by it, `refused` messages by the coordinator's reason, `guard_refusals` deferred
    rounds by what the guard said.
    `rounds_withheld` sent nothing: `spent` samples were not trained on again, validation samples got `worse`, or by the
    task's rule of sending (`unchanged`, `irrelevant`, `no_better`).
    `told` is what was told in the end of a sample or a device, where the task bounds that.
    `devices_in_clusters` are counts by cluster, 0 for none, where devices' clusters are found.
    `rounds_lost` ended with a crash or a closing hour. `devices_short_of_samples` can never store what their guards
    want.
    """

    devices: int
    seed: int
    virtual_seconds: float
    versions: int
    updates: int
    measure: str
    first_score: float
    score: float
    target: float | None
    reached: Point | None
    uplink_bytes: int
    total_bytes: int
    bytes_up: dict[str, int]
    bytes_down: dict[str, int]
    staleness: dict[int, int]
    refused: dict[str, Count]
    set_aside: int
    stopped: str
    collapses: int
    crashes: int
    rounds_lost: int
    rounds_diverged: Count
    rounds_withheld: dict[str, int]
    guard_refusals: dict[str, int]
    devices_short_of_samples: int
    heads: dict[str, float] = {}
    one_answer: float | None = None
    told: list[Told] = []
    held: int = 0
    tempered: int = 0
    devices_in_clusters: dict[int, int] = {}


@dataclass(slots=True)
class Ledger:
    """The counts behind a summary."""

    up: Counter[str] = field(default_factory=Counter)
    down: Counter[str] = field(default_factory=Counter)
    staleness: Counter[int] = field(default_factory=Counter)
    refused: dict[str, Count] = field(default_factory=dict)
    guard_refusals: Counter[str] = field(default_factory=Counter)
    rounds_diverged: Count = field(default_factory=Count)
    rounds_withheld: Counter[str] = field(default_factory=Counter)
    updates: int = 0
    set_aside: int = 0
    held: int = 0
    tempered: int = 0
    stopped: str = ""
    collapses: int = 0
    crashes: int = 0
    rounds_lost: int = 0

    @property
    def first_bytes(self) -> int:
        """What a device is sent once."""
        return self.down["bundle"] + self.down["first weights"]

    @property
    def uplink_bytes(self) -> int:
        """The updates alone, masked ones too."""
        return self.up["update"] + self.up[MASKED_UPDATE_NAME]

    @property
    def total_bytes(self) -> int:
        """Everything, both ways."""
        return self.up.total() + self.down.total()

    def refuse(self, reason: str, words: str) -> None:
        """The coordinator has refused a message."""
        self.refused[reason] = self.refused.get(reason, Count()).again(words)

    def point(self, now: float, version: int, score: float, told: Sequence[Told] = ()) -> Point:
        """Where the fleet is."""
        epsilon = {str(each.of): each.epsilon for each in told}
        clip = next((each.clip for each in told if each.clip is not None), None)
        sent = self.uplink_bytes, self.total_bytes, self.first_bytes
        return Point(now, version, self.updates, *sent, score, epsilon, clip)
