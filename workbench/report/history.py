"""What a demo run was, as values: filled by the run, read by the live table, `summary.json` and `report.html`."""

from collections.abc import Sequence

import msgspec

from workbench.report.privacy_told import Told


class Subject(msgspec.Struct, frozen=True):
    """What a run learned, in the words of its report."""

    learned: str = "read handwritten digits"
    samples: str = "digits"
    source: str = ""
    """Where the samples are from, where a reader could take them for something else."""
    beside: str = "all samples were pooled on one computer"
    """On what condition `central_accuracy` is reached."""


DIGITS = Subject()


class RoundPoint(msgspec.Struct, frozen=True):
    """After so many rounds of a head that is trained: accuracy, and bytes of all signed updates until then."""

    number: int
    accuracy: float
    uplink_bytes: int


class Summary(msgspec.Struct, frozen=True):
    """The content of `summary.json`. Bytes are MQTT payload bytes; accuracies are fractions of the held-out fifth."""

    accuracy: float
    central_accuracy: float
    updates_applied: int
    updates_lost: int
    updates_duplicated: int
    uplink_bytes: int
    dense_uplink_bytes: int
    versions: int
    median_staleness: float | None
    """Of applied updates; None where none was applied, and where a head was solved."""
    wall_seconds: float
    broker: str
    agents: int
    seed: int
    stopped_early: bool
    """Ctrl-C ended the run before its samples were used up."""
    downlink_bytes: int
    updates_rejected: int
    updates_pending: int
    """Made by a device and not journalled when the run ended: still safe in that device's outbox."""
    updates_buffered: int
    """Journalled, and waiting for enough others to make a version."""
    held_out_samples: int
    parameters: int
    averaged_versions: int
    """`accuracy` is that of the model to use: the mean of this many versions."""
    newest_version_accuracy: float
    """That of the last version by itself, from which devices would train on."""
    relayed_bytes: int = 0
    """What devices and helpers sent one another through the relay, both ways; in none of the other figures."""
    message_bytes: int = 0
    """Where a head was solved: of the signed messages that it was solved from."""
    rounds: list[RoundPoint] = []
    """Where a head was solved: the same one trained in rounds, computed after the run."""
    privacy: str = "none"
    """The mode that was asked for with `--privacy`; `none` also where none was."""
    mask_helper_bytes: int = 0
    """Where updates are summed behind masks: what the mask helpers sent up, in none of the other figures."""
    told: list[Told] = []
    """Where the task promises privacy of samples or of devices: what the run has told at most."""


class AccuracyPoint(msgspec.Struct, frozen=True):
    """The model to use when a version was made, measured on the held-out samples."""

    seconds: float
    version: int
    accuracy: float
    uplink_bytes: int
    dense_uplink_bytes: int


class DeviceRow(msgspec.Struct, frozen=True):
    """One device, now or at the end."""

    name: str
    state: str
    """`sleeping`, `training`, `sending`, `offline`, ..."""
    version: int
    staleness: float | None
    """Mean over its applied updates; None before the first."""
    applied: int
    """Its updates that a version contains."""
    buffered: int
    """Its updates that wait for enough others to make a version."""
    uplink_bytes: int
    samples: int
    samples_expected: int
    samples_per_second: float
    label_counts: list[int]
    """Samples per class on this device: shows how the devices' class proportions differ."""
    cut: str = ""
    """Which cut of the task's `split` it trains with; empty where it trains the whole model."""
    relayed_up_bytes: int = 0
    """What it sent to a helper, through the relay."""
    relayed_down_bytes: int = 0
    """What it got from one."""
    cluster: int = 0
    """That the coordinator has put it into; 0 for none."""


class HelperRow(msgspec.Struct, frozen=True):
    """One helper, now or at the end: its updates that a version contains, and what passed the relay from and to it."""

    name: str
    applied: int
    relayed_up_bytes: int
    relayed_down_bytes: int


class DrawnVariety(msgspec.Struct, frozen=True):
    """How much the pictures of a class differ, as a share of what lies between black and white: those of the last
    version, and of the one in which they differed most.
    """

    last: float
    greatest: float
    greatest_in: int
    is_narrow: bool
    """Whether they have become alike since then."""


class DrawnPictures(msgspec.Struct, frozen=True):
    """What the last version draws as the devices of a cluster have it; PNG files, empty where no value is finite."""

    title: str
    devices: list[str]
    version: int
    grid: bytes
    """A column for each class."""
    formed: bytes = b""
    """A row for each of `formed_versions`, the first at the top."""
    formed_versions: list[int] = []
    variety: DrawnVariety | None = None


class Totals(msgspec.Struct, frozen=True):
    """The sums of the columns of all devices: whatever says a figure of the whole fleet takes it from here."""

    applied: int
    buffered: int
    uplink_bytes: int
    samples: int
    samples_expected: int

    @classmethod
    def of(cls, devices: Sequence[DeviceRow]) -> "Totals":
        """Those of a fleet."""
        return cls(**{name: sum(getattr(device, name) for device in devices) for name in cls.__struct_fields__})


class RunHistory(msgspec.Struct, frozen=True):
    """Everything that the report shows."""

    summary: Summary
    accuracy: list[AccuracyPoint]
    staleness: list[int]
    """One entry per applied update; empty where a head was solved."""
    devices: list[DeviceRow]
    events: list[str] = []
    """What happened to the fleet, oldest first."""
    helpers: list[HelperRow] = []
    subject: Subject = DIGITS
    drawn: list[DrawnPictures] = []
    """By cluster, of a fleet that learns to draw."""
    failure: str = ""
    """Which program ended by itself, and with it the run; empty where none did."""
