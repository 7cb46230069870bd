"""The tables of the coordinator's database. Nothing in them is peculiar to SQLite."""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

devices = Table(
    "devices",
    metadata,
    Column("public_key", LargeBinary(32), primary_key=True),
    Column("name", String(48), nullable=False),
    Column("state", String(16), nullable=False),
    Column("profile", String(100), nullable=False),
    Column("software", String(100), nullable=False),
    Column("presence", String(16), nullable=False),
    Column("boot", BigInteger, nullable=False),
    Column("request_sequence", BigInteger, nullable=False),
)
# A revoked key stays known; a name has one key that is not.
Index(
    "one_live_key_per_name",
    devices.c.name,
    unique=True,
    sqlite_where=devices.c.state != "revoked",
    postgresql_where=devices.c.state != "revoked",
)

revisions = Table(
    "revisions",
    metadata,
    Column("subject", String(16), primary_key=True),
    Column("number", BigInteger, nullable=False),
    comment="counts what operators changed, so that a running coordinator sees when to read it again",
)

tasks = Table(
    "tasks",
    metadata,
    Column("name", String(48), primary_key=True),
    Column("bundle", String(64), nullable=False, comment="SHA-256 of task.json"),
)

versions = Table(
    "versions",
    metadata,
    Column("task", ForeignKey("tasks.name"), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("weights", LargeBinary, nullable=False, comment="safetensors"),
    Column("weights_hash", String(64), nullable=False, index=True),
    Column("velocity", LargeBinary, nullable=False, comment="float32, little endian, as long as the flat weights"),
    Column("unrounded", LargeBinary, nullable=False, comment="likewise; empty where `weights` are not rounded"),
)

updates = Table(
    "updates",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False, comment="order of receipt"),
    Column("device", String(48), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("digest", LargeBinary(16), nullable=False, comment="of the envelope"),
    Column("task", ForeignKey("tasks.name"), nullable=False),
    Column("base_version", BigInteger, nullable=False),
    Column("staleness", BigInteger, nullable=False),
    Column("samples", Integer, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("version", BigInteger, comment="the version that holds it; null while it is buffered"),
    UniqueConstraint("device", "sequence"),
    ForeignKeyConstraint(["task", "version"], ["versions.task", "versions.number"]),
    Index("updates_by_version", "task", "version", "position"),
)

refused_updates = Table(
    "refused_updates",
    metadata,
    Column("device", String(48), primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary(16), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("detail", Text, nullable=False),
)

rejections = Table(
    "rejections",
    metadata,
    Column("reason", String(32), primary_key=True),
    Column("device", String(48), primary_key=True, comment="empty where the signature did not prove a device"),
    Column("count", BigInteger, nullable=False),
)
