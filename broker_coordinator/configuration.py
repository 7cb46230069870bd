"""The coordinator's configuration file, `coordinator.toml`."""

import re
import stat
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from broker_coordinator.admission.settings import REPEATS_OF_DEVICE, AdmissionSettings
from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.storage.database import Database, read_database
from fleet_host.addresses import is_loopback
from fleet_host.broker_settings import MAX_PORT, BrokerSettings, Host, read_password
from fleet_host.configuration_file import read_configuration
from fleet_host.key_files import read_key_ring_file
from fleet_host.rate_limit import TokenBucket
from fleet_protocol.configuration import Name, one_line
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import KeyRing
from fleet_protocol.limits import MAX_HELPER_SESSIONS, MAX_SETTING, MAX_UPDATE_BYTES, MIB
from fleet_protocol.shards import Shards

PROGRAM = "broker-coordinator"

NotNegative = Annotated[int, msgspec.Meta(ge=0, le=MAX_SETTING)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=MAX_SETTING)]
MAX_RATE = 1_000_000_000
"""An hour, and at once: far more than a coordinator takes in, and nothing that arithmetic of times overflows with."""
PerHour = Annotated[float, msgspec.Meta(ge=0.001, le=MAX_RATE)]
Burst = Annotated[int, msgspec.Meta(ge=1, le=MAX_RATE)]

TOKEN = re.compile(r"[A-Za-z0-9_-]{32,200}")
"""Of the dashboard: what nobody guesses, and every header may hold."""

MAX_RELAYED_SESSIONS = 16_384
"""Some KiB each; a relay is one process on one core."""

MAX_DATABASE_CHARACTERS = 1000
DatabaseName = Annotated[str, one_line(MAX_DATABASE_CHARACTERS, what="a file or an address")]


HeaderName = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]{1,64}\Z", description="the name of a header, such as X-Remote-User")
]
Address = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f.:]{2,45}\Z", description="an IP address")]


class TaskSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A task that is published at the start, unless it is served already."""

    bundle: Path
    """The folder of its bundle."""


class RetentionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the journal keeps (docs/operating.md)."""

    versions: Positive = 1000
    """The weights of so many newest versions."""
    every: NotNegative = 100
    """The weights of each so-many-th older version; 0: of none."""
    envelopes: NotNegative | None = None
    """The signed bytes of updates in so many newest versions; left out: of all."""

    def rule(self) -> Retention:
        """The same for the core."""
        return Retention(self.versions, self.every, self.envelopes)


class RateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What devices may send and ask for: so much at once, and so much an hour on average."""

    updates_per_hour: PerHour = 3600.0
    """Updates of each device, on average."""
    burst: Burst = 1000
    """At once."""
    mebibytes_per_hour: Annotated[int, msgspec.Meta(ge=MAX_UPDATE_BYTES // MIB, le=MAX_RATE)] = 64
    """Of all its updates, on average; as much may come at once."""
    chunks_per_hour: PerHour = 7200.0
    """Chunks of files, of at most 64 KiB, that each device may ask for, on average."""
    chunk_burst: Burst = 4096
    """At once: enough for a bundle of 256 MiB."""
    enrolments_per_hour: PerHour = 36_000.0
    """How often devices that are not approved may enrol, all of them together, on average."""
    enrolment_burst: Burst = 1000
    """At once."""

    def allowance(self) -> TokenBucket:
        """The same for the core."""
        return TokenBucket(3600 / self.updates_per_hour, self.burst)

    def byte_allowance(self) -> TokenBucket:
        """The same for the bytes of updates."""
        return TokenBucket(3600 / (self.mebibytes_per_hour * MIB), self.mebibytes_per_hour * MIB)

    def chunk_allowance(self) -> TokenBucket:
        """The same for chunks."""
        return TokenBucket(3600 / self.chunks_per_hour, self.chunk_burst)

    def enrolment_allowance(self) -> TokenBucket:
        """The same for enrolments, of all strangers together."""
        return TokenBucket(3600 / self.enrolments_per_hour, self.enrolment_burst)


class MetricsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where Prometheus finds the metrics."""

    port: Annotated[int, msgspec.Meta(ge=1, le=MAX_PORT)] | None = None
    """TCP port; left out: there are no metrics. Of several shards it is the first one's, and each next one has the next
    port; `broker-coordinator run --metrics-port` gives another."""
    address: Host = "127.0.0.1"
    """Address that the port is opened on."""


class DashboardSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pages for people (docs/dashboard.md): a process of its own, which `broker-coordinator run` starts."""

    port: Annotated[int, msgspec.Meta(ge=1, le=MAX_PORT)] | None = None
    """TCP port; left out: there is no dashboard."""
    address: Host = "127.0.0.1"
    """Address that the port is opened on. Another one than this machine's own needs `token_file` or `user_header`."""
    token_file: Path | None = None
    """A file that holds what whoever opens the pages must know: 32 to 200 letters, digits, `-` or `_`. Without it, and
    without `user_header`, the pages show, and change nothing."""
    user_header: HeaderName | None = None
    """The header in which a reverse proxy says who asks. Without `token_file`, whoever comes from `proxies` with it is
    let in; with it, the proxy has to show the token too."""
    proxies: list[Address] = msgspec.field(default_factory=lambda: ["127.0.0.1", "::1"])
    """Addresses from which `user_header` counts."""
    hosts: list[Host] = []
    """Names by which browsers reach the pages, beside `localhost` and addresses: those of the reverse proxy."""

    def __post_init__(self) -> None:
        """Refuse an open door; raises ValueError."""
        if not is_loopback(self.address) and self.token_file is None and self.user_header is None:
            raise ValueError(
                f"dashboard: address {self.address!r} lets other machines in; name a `token_file`, or the `user_header`"
                ' of a reverse proxy, or take "127.0.0.1"'
            )

    def token(self) -> str | None:
        """The content of `token_file`; None without one.

        Raises:
            ConfigurationError: it can't be read, others than its owner and group can, or it is no token.
        """
        token = read_password(self.token_file, "dashboard.token_file")
        if token is None or self.token_file is None:
            return None
        if self.token_file.stat().st_mode & stat.S_IRWXO:
            raise ConfigurationError(
                f"dashboard.token_file {self.token_file}: everybody here can read it; run: chmod o= {self.token_file}"
            )
        if not TOKEN.fullmatch(token):
            raise ConfigurationError(
                f"dashboard.token_file {self.token_file}: not 32 to 200 letters, digits, - or _; make one"
                f" with: openssl rand -hex 32 > {self.token_file}"
            )
        return token


class RelaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The relay of split learning (docs/split-learning.md): a process of its own that runs while a task has cuts."""

    enabled: bool = True
    """Whether the coordinator starts it."""
    sessions: Annotated[int, msgspec.Meta(ge=1, le=MAX_RELAYED_SESSIONS)] = 1024
    """Most sessions at once."""
    sessions_of_device: Annotated[int, msgspec.Meta(ge=1, le=MAX_HELPER_SESSIONS)] = 4
    """Most sessions of one device at once: it has one for each task that it trains split."""
    backlog_mebibytes: Annotated[int, msgspec.Meta(ge=8, le=4096)] = 64
    """Most frames that wait to be passed on; what exceeds it is dropped, and sent again by its ends."""
    metrics_port: Annotated[int, msgspec.Meta(ge=1, le=MAX_PORT)] | None = None
    """TCP port of the relay's metrics, at the address of `metrics`; left out: there are none."""


class EvaluationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Held-out samples with which versions of a task are evaluated."""

    task: Name
    """The task's name."""
    file: Path
    """.npz or .safetensors with the arrays `inputs` and `labels`."""
    every: Positive = 10
    """Each so-many-th version is evaluated."""


class InvitationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What invitations tell devices (`broker-coordinator devices invite`)."""

    host: Host
    """The broker's name or address as devices reach it, which is in its certificate."""
    port: Annotated[int, msgspec.Meta(ge=1, le=MAX_PORT)] = 8883
    """Its TCP port."""


class CoordinatorConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fleet's coordinator. Relative paths start at the folder that the file is in."""

    fleet: Name
    """The fleet's name, the same as in every agent.toml."""
    key_file: Path
    """The coordinator's private signing key, made by `broker-coordinator keygen`; below it, those that it has followed
    (`broker-coordinator rotate-key`)."""
    database: DatabaseName
    """A SQLite file, or `postgresql+psycopg://user@host/name`."""
    broker: BrokerSettings
    tasks: list[TaskSettings] = []
    shard: Name = "0"
    """The slice of the fleet that this coordinator serves."""
    shards: Shards = ()
    """All shards of the fleet, `shard` among them; each device finds its own from its name, and moves there. Left out:
    devices stay where they are, and there is only `shard`. The first one names the group of the broker's accounts: keep
    it first."""
    database_password_file: Path | None = None
    """A file that holds PostgreSQL's password; left out: the environment variable PGPASSWORD."""
    enrolment: Literal["closed", "open"] = "closed"
    """What happens to a device that enrols. `closed`: it waits for `broker-coordinator devices approve`. `open`: the
    first `maximum_devices` are approved, for a lab."""
    broker_accounts: Literal["dynamic-security"] | None = None
    """Who makes the broker's accounts. `dynamic-security`: this coordinator, one for each device, through Mosquitto's
    plug-in of that name, as `broker-coordinator setup --host` sets it up. Left out: whoever runs the broker."""
    maximum_devices: Positive = 10_000
    """Most devices that open enrolment lets in."""
    maximum_pending_devices: Positive = 1_000
    """Most devices that wait for approval; whoever enrolled longest ago makes room."""
    rate_limit: RateSettings = RateSettings()
    retention: RetentionSettings = RetentionSettings()
    metrics: MetricsSettings = MetricsSettings()
    dashboard: DashboardSettings = DashboardSettings()
    relay: RelaySettings = RelaySettings()
    invitations: InvitationSettings | None = None
    evaluations: list[EvaluationSettings] = []

    def __post_init__(self) -> None:
        """Refuse what every value by itself allows; raises ValueError."""
        evaluated = [each.task for each in self.evaluations]
        if twice := next((task for task in evaluated if evaluated.count(task) > 1), None):
            raise ValueError(f"evaluations: task {twice!r} is listed twice; leave one of them")
        if twice := next((shard for shard in self.shards if self.shards.count(shard) > 1), None):
            raise ValueError(f"shards: {twice!r} is listed twice; leave one of them")
        if self.shards and self.shard not in self.shards:
            raise ValueError(
                f"shard = {self.shard!r} is none of the shards {list(self.shards)}; add it to them, or name one of them"
            )

        last_port = (self.metrics.port or 0) + len(self.served_shards) - 1
        if last_port > MAX_PORT:
            raise ValueError(
                f"metrics: port {self.metrics.port} leaves none for the last of {len(self.shards)} shards: {last_port}"
                f" exceeds {MAX_PORT}; take a lower one"
            )

    @property
    def served_shards(self) -> tuple[str, ...]:
        """All shards of the fleet; `shard` alone where `shards` is left out."""
        return self.shards or (self.shard,)

    @property
    def metrics_port(self) -> int | None:
        """Of this shard's metrics: shards may share a machine."""
        if self.metrics.port is None:
            return None
        return self.metrics.port + self.served_shards.index(self.shard)

    def admission_settings(self, keys: KeyRing) -> AdmissionSettings:
        """What admission is told; `keys` decrypt payloads."""
        return AdmissionSettings(
            self.fleet,
            self.shard,
            self.enrolment == "open",
            self.maximum_devices,
            keys,
            allowance=self.rate_limit.allowance(),
            byte_allowance=self.rate_limit.byte_allowance(),
            chunk_allowance=self.rate_limit.chunk_allowance(),
            enrolment_allowance=self.rate_limit.enrolment_allowance(),
            repeat_allowance=REPEATS_OF_DEVICE,
            maximum_pending_devices=self.maximum_pending_devices,
            shards=self.shards,
        )

    def journal(self) -> Database:
        """The journal's database.

        Raises:
            ConfigurationError: `database` can't be read, or the file of its password.
        """
        return read_database(self.database, read_password(self.database_password_file, "database_password_file"))

    def keys(self) -> KeyRing:
        """The coordinator's key, and those that it has followed.

        Raises:
            ConfigurationError: `key_file` can't be read, others can read it, or it contains no key.
        """
        return read_key_ring_file(self.key_file, PROGRAM)


def load_configuration(path: Path) -> CoordinatorConfiguration:
    """Read the file.

    Raises:
        ConfigurationError: it can't be read, or names the key that is missing, unknown or wrong.
    """
    configuration = read_configuration(path, CoordinatorConfiguration)
    if "://" in configuration.database:
        return configuration
    return msgspec.structs.replace(configuration, database=str(path.resolve().parent / configuration.database))
