"""The coordinator's configuration file, `coordinator.toml`."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from broker_coordinator.admission.rate_limit import TokenBucket
from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.storage.database import Database, read_database
from fleet_protocol.configuration import BrokerSettings, Name, parse_document
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import SigningKey, read_signing_key

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
    """How many updates each device may send: `burst` at once, `updates_per_hour` on average."""

    updates_per_hour: Annotated[float, msgspec.Meta(gt=0)] = 3600.0
    burst: Positive = 1000

    def allowance(self) -> TokenBucket:
        """The same for the core."""
        return TokenBucket(3600 / self.updates_per_hour, self.burst)


class MetricsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where Prometheus finds the metrics; without a port there are none."""

    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    address: str = "127.0.0.1"


class EvaluationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Held-out samples with which every `every`-th version of a task is evaluated (`evaluation.read_held_out`)."""

    task: Name
    file: Path
    every: Positive = 10


class CoordinatorConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. Relative paths are meant from the folder that the file is in.

    `database` is a SQLite file or `postgresql+psycopg://user@host/name`; a password for the latter is in the file
    `database_password_file` or in the environment variable PGPASSWORD. `enrolment` says what happens to a device that
    introduces itself: `closed` records it and waits for `broker-coordinator devices approve`, `open` lets the first
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
        """Where the journal is.

        Raises:
            ConfigurationError: `database` can't be read, or the file of its password.
        """
        return read_database(self.database, _password(self.database_password_file))

    def signing_key(self) -> SigningKey:
        """The coordinator's key.

        Raises:
            ConfigurationError: `key_file` can't be read, others can read it, or it holds no key.
        """
        path = self.key_file
        try:
            return read_signing_key(path.read_text(encoding="ascii"), path.stat().st_mode, str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"key file {path}: {error}; make one with: broker-coordinator keygen {path}"
            ) from error


def load_configuration(path: Path) -> CoordinatorConfiguration:
    """Read the file.

    Raises:
        ConfigurationError: it can't be read, or names the key that is missing, unknown or wrong.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"configuration {path}: {error.strerror}; write one or pass --config FILE") from error
    parsed = parse_document(text, CoordinatorConfiguration, str(path))
    folder = path.resolve().parent
    return msgspec.structs.replace(
        parsed,
        key_file=folder / parsed.key_file,
        broker=parsed.broker.located(folder),
        database=parsed.database if "://" in parsed.database else str(folder / parsed.database),
        database_password_file=parsed.database_password_file and folder / parsed.database_password_file,
        tasks=[TaskSettings(folder / task.bundle) for task in parsed.tasks],
        evaluations=[msgspec.structs.replace(each, file=folder / each.file) for each in parsed.evaluations],
    )


def _password(file: Path | None) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip() if file else None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"database_password_file {file}: {error}; make it, or take the key out") from error
