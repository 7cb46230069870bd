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
from fleet_protocol.limits import MAX_UPDATE_BYTES, MIB

PROGRAM = "broker-coordinator"

NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class TaskSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The folder of a bundle that is published at the start, unless it is served already."""

    bundle: Path


class RetentionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the journal keeps (`retention.Retention`). Without `envelopes`, those of all updates."""

    versions: Positive = 1000
    every: NotNegative = 100
    envelopes: NotNegative | None = None

    def rule(self) -> Retention:
        """The same for the core."""
        return Retention(self.versions, self.every, self.envelopes)


class RateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much each device may send: `burst` updates at once, `updates_per_hour` on average, and of them at most
    `mebibytes_per_hour`, all of which may come at once.
    """

    updates_per_hour: Annotated[float, msgspec.Meta(gt=0)] = 3600.0
    burst: Positive = 1000
    mebibytes_per_hour: Annotated[int, msgspec.Meta(ge=MAX_UPDATE_BYTES // MIB)] = 64

    def allowance(self) -> TokenBucket:
        """The same for the core."""
        return TokenBucket(3600 / self.updates_per_hour, self.burst)

    def byte_allowance(self) -> TokenBucket:
        """Likewise."""
        return TokenBucket(3600 / (self.mebibytes_per_hour * MIB), self.mebibytes_per_hour * MIB)


class MetricsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where Prometheus finds the metrics; without a port there are none."""

    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    address: str = "127.0.0.1"


class EvaluationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Held-out samples with which every `every`-th version of a task is evaluated (`bundle_runtime.sample_file`)."""

    task: Name
    file: Path
    every: Positive = 10


class CoordinatorConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. Relative paths start at the folder that the file is in.

    `database` is a SQLite file or `postgresql+psycopg://user@host/name`; a password for the latter is in the file
    `database_password_file` or in the environment variable PGPASSWORD. `enrolment` says what happens to a device that
    enrols: `closed` records it and waits for `broker-coordinator devices approve`, `open` lets the first
    `maximum_devices` in (for a lab).
    """

    fleet: Name
    key_file: Path
    database: str
    broker: BrokerSettings
    tasks: list[TaskSettings] = []
    shard: Name = "0"
    database_password_file: Path | None = None
    enrolment: Literal["closed", "open"] = "closed"
    maximum_devices: Positive = 10_000
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
