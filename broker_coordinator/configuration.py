"""The coordinator's configuration file, `coordinator.toml`."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.storage.database import Database, read_database
from fleet_host.broker_settings import BrokerSettings, read_password
from fleet_host.configuration_file import read_configuration
from fleet_host.key_files import read_key_file
from fleet_host.rate_limit import TokenBucket
from fleet_protocol.configuration import Name
from fleet_protocol.keys import SigningKey

PROGRAM = "broker-coordinator"

NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


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
    """How many updates each device may send."""

    updates_per_hour: Annotated[float, msgspec.Meta(gt=0)] = 3600.0
    """On average."""
    burst: Positive = 1000
    """At once."""

    def allowance(self) -> TokenBucket:
        """The same for the core."""
        return TokenBucket(3600 / self.updates_per_hour, self.burst)


class MetricsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where Prometheus finds the metrics."""

    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    """TCP port; left out: there are no metrics."""
    address: str = "127.0.0.1"
    """Address that the port is opened on."""


class EvaluationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Held-out samples with which versions of a task are evaluated."""

    task: Name
    """The task's name."""
    file: Path
    """.npz or .safetensors with the arrays `inputs` and `labels`."""
    every: Positive = 10
    """Each so-many-th version is evaluated."""


class CoordinatorConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fleet's coordinator. Relative paths start at the folder that the file is in."""

    fleet: Name
    """The fleet's name, the same as in every agent.toml."""
    key_file: Path
    """The coordinator's private signing key, made by `broker-coordinator keygen`."""
    database: str
    """A SQLite file, or `postgresql+psycopg://user@host/name`."""
    broker: BrokerSettings
    tasks: list[TaskSettings] = []
    shard: Name = "0"
    """The slice of the fleet that this coordinator serves."""
    database_password_file: Path | None = None
    """A file that holds PostgreSQL's password; left out: the environment variable PGPASSWORD."""
    enrolment: Literal["closed", "open"] = "closed"
    """What happens to a device that enrols. `closed`: it waits for `broker-coordinator devices approve`. `open`: the
    first `maximum_devices` are approved, for a lab."""
    maximum_devices: Positive = 10_000
    """Most devices of the fleet."""
    rate_limit: RateSettings = RateSettings()
    retention: RetentionSettings = RetentionSettings()
    metrics: MetricsSettings = MetricsSettings()
    evaluations: list[EvaluationSettings] = []

    def journal(self) -> Database:
        """The journal's database.

        Raises:
            ConfigurationError: `database` can't be read, or the file of its password.
        """
        return read_database(self.database, read_password(self.database_password_file, "database_password_file"))

    def signing_key(self) -> SigningKey:
        """The coordinator's key.

        Raises:
            ConfigurationError: `key_file` can't be read, others can read it, or it contains no key.
        """
        return read_key_file(self.key_file, PROGRAM)


def load_configuration(path: Path) -> CoordinatorConfiguration:
    """Read the file.

    Raises:
        ConfigurationError: it can't be read, or names the key that is missing, unknown or wrong.
    """
    configuration = read_configuration(path, CoordinatorConfiguration)
    if "://" in configuration.database:
        return configuration
    return msgspec.structs.replace(configuration, database=str(path.resolve().parent / configuration.database))
