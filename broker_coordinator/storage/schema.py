"""The tables of the coordinator's database. Nothing in them is peculiar to SQLite."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
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
    and_,
    cast,
    literal_column,
)

SCHEMA = 24
"""Counts up whenever a table changes; `storage.schema_upgrades` has the way from the one before."""

metadata = MetaData()

schema_number = Table("schema_number", metadata, Column("number", Integer, primary_key=True, autoincrement=False))

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
    Column(
        "changed",
        BigInteger,
        nullable=False,
        index=True,
        comment="highest for the key that enrolled last, or whose state changed last: the order of forgetting",
    ),
    Column("is_used_twice", Boolean, nullable=False, default=False, comment="two devices have this key"),
    Column("coordinator_key", LargeBinary(8), comment="id of the one that its password at the broker follows from"),
)
# A revoked key stays known; a name has one key that is not.
Index(
    "one_live_key_per_name",
    devices.c.name,
    unique=True,
    sqlite_where=devices.c.state != "revoked",
    postgresql_where=devices.c.state != "revoked",
)

invitations = Table(
    "invitations",
    metadata,
    Column("public_key", LargeBinary(32), primary_key=True, comment="of the token, which is kept nowhere"),
    Column("identifier", LargeBinary(8), nullable=False, unique=True),
    Column("device", String(48), nullable=False, index=True),
    Column("number", BigInteger, nullable=False, comment="counts up: the order in which they were made"),
    Column("expires", BigInteger, nullable=False, comment="in seconds since 1970"),
    Column("state", String(16), nullable=False),
    Column("replaces", Boolean, nullable=False, comment="the device's key before may be another one"),
    Column("refused", BigInteger, nullable=False, comment="enrolments of this name with a wrong or used invitation"),
    Column("last_refusal", Text, nullable=False),
    Column("coordinator_key", LargeBinary(8), comment="id of the one that it names; null: made before schema 10"),
)

restores = Table(
    "restores",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("made", BigInteger, comment="when the backup was, in seconds since 1970; null where nobody knows"),
    Column("noticed", String(16), nullable=False, comment="what has shown it"),
    Column("compared", Boolean, nullable=False, comment="devices were compared with the broker's accounts since then"),
    comment="when an older database took this one's place",
)

helpers = Table(
    "helpers",
    metadata,
    Column("name", String(48), primary_key=True),
    comment="devices that may run blocks of models for others, whether they have enrolled or not",
)

clusters = Table(
    "clusters",
    metadata,
    Column("task", String(48), primary_key=True),
    Column("device", String(48), primary_key=True),
    Column("cluster", Integer, nullable=False, comment="1 at least: who is in none has no row"),
    comment="which copy of a task's parameters a device trains, whether it has enrolled or not",
)

findings = Table(
    "findings",
    metadata,
    Column("task", String(48), primary_key=True),
    Column("version", BigInteger, nullable=False, comment="behind which clusters were found"),
    Column("document", Text, nullable=False, comment="JSON of storage.cluster_registry.Finding"),
    comment="what the clusters of a task's devices were found by, last",
)

pulls = Table(
    "pulls",
    metadata,
    Column("task", String(48), primary_key=True),
    Column("device", String(48), primary_key=True),
    Column("cluster", Integer, nullable=False, comment="whose copy its updates trained last"),
    Column("updates", BigInteger, nullable=False, comment="of that copy"),
    Column("version", BigInteger, nullable=False, comment="that holds the newest"),
    Column("position", BigInteger, nullable=False, comment="the newest's in the journal"),
    Column("total", LargeBinary, nullable=False, comment="where they pull: float64, little endian"),
    comment="of the updates of a device that versions hold up to `pulls_read`",
)

pulls_read = Table(
    "pulls_read",
    metadata,
    Column("task", String(48), primary_key=True),
    Column("first_version", BigInteger, nullable=False, comment="the own one of the bundle that was read"),
    Column("version", BigInteger, nullable=False, comment="up to which `pulls` have been added up"),
)

varieties = Table(
    "varieties",
    metadata,
    Column("task", String(48), primary_key=True),
    Column("version", BigInteger, nullable=False, comment="that was measured"),
    Column("document", Text, nullable=False, comment="JSON of storage.variety_registry.VarietyTold"),
    comment="how much the pictures differ that a task's generator draws, measured last",
)

change_counters = Table(
    "change_counters",
    metadata,
    Column("subject", String(16), primary_key=True),
    Column("number", BigInteger, nullable=False),
    comment="counts what operators changed, so that a running coordinator sees when to read it again",
)

leases = Table(
    "leases",
    metadata,
    Column("job", String(64), primary_key=True),
    Column("number", BigInteger, nullable=False, comment="counts holders: every transaction of one compares it"),
    Column("holder", Text, nullable=False, comment="the last one, in words"),
    comment="who alone may do a job on this database (storage.lease)",
)

tasks = Table(
    "tasks",
    metadata,
    Column("name", String(48), primary_key=True),
    Column("bundle", String(64), nullable=False, comment="SHA-256 of task.json"),
    Column("paused", Boolean, nullable=False),
    Column("version_kind", Integer, nullable=False, comment="of the payloads that versions are made from"),
    Column("generation", BigInteger, nullable=False, comment="counts up where devices must follow older versions"),
    Column("first_version", BigInteger, nullable=False, comment="the one that is the bundle's own"),
    Column("removed", Boolean, nullable=False, comment="its rows are deleted; the name keeps its generation"),
    Column("wanted_version", BigInteger, comment="made of what waits, even of too few; null: none was ever wanted"),
    Column("solved_first", BigInteger, comment="of the versions of a solved head that rounds went on from; else null"),
    Column("solved_last", BigInteger, comment="likewise: the one that the bundle's own version was made of"),
)

bundle_files = Table(
    "bundle_files",
    metadata,
    Column("task", ForeignKey("tasks.name"), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("task", ForeignKey("tasks.name"), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("weights", LargeBinary, comment="safetensors; null once the retention rule has dropped it"),
    Column("weights_hash", String(64), nullable=False, index=True),
    Column("moments", LargeBinary, comment="of the server's optimiser: float32, little endian; null like the weights"),
    Column("unrounded", LargeBinary, nullable=False, comment="likewise; empty where `weights` are not rounded"),
    Column("restored", BigInteger, comment="the version that a rollback took its values from; else null"),
    Column("buffer_size", Integer, comment="of the next version, where it follows the fleet; else null"),
    Column("step", Double, nullable=False, comment="factor on the server's learning rate for the next version"),
    Column(
        "given", Text, comment="what its weights are, where no payloads made them (storage.given_versions); else null"
    ),
    Column("clip", Double, comment="of updates in the next version, where it follows their norms; else null"),
    Column("tempers_since", BigInteger, comment="the version behind which devices were harmed last; else null"),
    Column("tempers_until", BigInteger, comment="the last one in which suspicious updates are tempered for it"),
    Column("tempers_not_until", BigInteger, comment="all count until this one, whatever devices declare"),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("task", String(48), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("samples", Integer, nullable=False),
    Column("loss", Double, nullable=False, comment="mean over the held-out samples"),
    Column("accuracy", Double, comment="share of right answers; null where labels are no classes"),
    ForeignKeyConstraint(["task", "version"], ["versions.task", "versions.number"]),
)

payloads = Table(
    "payloads",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False, comment="order of receipt"),
    Column("device", String(48), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("digest", LargeBinary(16), nullable=False, comment="of the envelope"),
    Column("kind", Integer, nullable=False, comment="number of what is in the box, where the payload is encrypted"),
    Column("task", ForeignKey("tasks.name"), nullable=False),
    Column("base_version", BigInteger, nullable=False),
    Column("staleness", BigInteger, nullable=False),
    Column("facts", JSON, nullable=False, comment="what the kind's consumer found out about it"),
    Column("envelope", LargeBinary, comment="null once the retention rule has dropped it"),
    Column("aggregate", BigInteger, comment="number of the one, the version or the query that holds it; else null"),
    Column("set_aside", Text, comment="why it can't be applied, and so no aggregate will hold it; else null"),
    Column("suspicion", Text, comment="why it was found suspicious, whatever has become of it; else null"),
    UniqueConstraint("device", "sequence"),
    # With `set_aside`, so that what waits is counted at each batch without a look at the rows.
    Index("payloads_by_aggregate", "task", "kind", "aggregate", "position", "set_aside"),
)

WAITING = and_(payloads.c.aggregate.is_(None), payloads.c.set_aside.is_(None))
"""A payload that waits for its aggregate."""

HELD_IN_QUARANTINE = "held in quarantine"
"""Why a payload is set aside that an operator may release."""

HELD = payloads.c.set_aside == literal_column(f"'{HELD_IN_QUARANTINE}'")
"""A payload that is held in quarantine. Spelled out, so that SQLite knows that the index of these serves."""

FACTS = cast(payloads.c.facts, Text).label("facts")
"""A payload's facts, unread: what is damaged in one row does not keep the others from being read."""

# What waits, or is set aside, is a small part of what there is.
Index("waiting_payloads", payloads.c.position, sqlite_where=WAITING, postgresql_where=WAITING)
Index(
    "payloads_set_aside",
    payloads.c.task,
    payloads.c.position,
    sqlite_where=payloads.c.set_aside.is_not(None),
    postgresql_where=payloads.c.set_aside.is_not(None),
)

held_payloads = Index(
    "held_payloads", payloads.c.task, payloads.c.base_version, sqlite_where=HELD, postgresql_where=HELD
)

aggregates = Table(
    "aggregates",
    metadata,
    Column("task", ForeignKey("tasks.name"), primary_key=True),
    Column("kind", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("state", LargeBinary, nullable=False, comment="as the kind's consumer writes it"),
    comment="of the kinds that make no versions",
)

cohorts = Table(
    "cohorts",
    metadata,
    Column("name", LargeBinary(32), primary_key=True, comment="SHA-256 of the manifest"),
    Column("task", String(48), nullable=False, index=True),
    Column("number", BigInteger, nullable=False, comment="of the task's cohorts: counts up"),
    Column("state", String(16), nullable=False),
    Column("manifest", LargeBinary, nullable=False, comment="signed, as helpers are shown it"),
    Column("members", LargeBinary, comment="signed: the only set that helpers are asked about; null before"),
    Column("masks", LargeBinary, comment="the sum of the set's masks, uint32, little endian; null unless summed"),
    Column("version", BigInteger, comment="that the sum has made; null unless summed"),
    Column("reason", Text, nullable=False, comment="why it is void; else empty"),
    Column("opened", BigInteger, comment="in seconds since 1970; null where an earlier release opened it"),
    UniqueConstraint("task", "number"),
    comment="of tasks whose updates are summed behind masks (docs/secure-aggregation.md)",
)

version_noise = Table(
    "version_noise",
    metadata,
    Column("task", String(48), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("generation", BigInteger, nullable=False, comment="of the task when the version was made"),
    Column("seed", LargeBinary(32), nullable=False, comment="secret: the version's own noise is drawn from it"),
    comment="of versions that hide each device (docs/privacy.md), and of the bundle's own, which has none",
)

departures = Table(
    "departures",
    metadata,
    Column("task", ForeignKey("tasks.name"), primary_key=True),
    Column("device", String(48), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False, comment="the newest when it left"),
    Column("replayed_from", BigInteger, comment="where the version after it was replayed from without it; else null"),
    Column("since", BigInteger, comment="the first whose updates of it the replay leaves out; null: the first of all"),
    comment="of devices: later versions remember nothing of what they had sent by then",
)

queries = Table(
    "queries",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False, comment="drawn at random"),
    Column("name", String(48), nullable=False),
    Column("task", String(48), nullable=False, index=True),
    Column("state", String(16), nullable=False),
    Column("published", BigInteger, nullable=False, comment="in seconds since 1970"),
    Column("round_begun", BigInteger, nullable=False, comment="likewise"),
    Column("after_position", BigInteger, nullable=False, comment="the journal's last one when the round began"),
    Column("document", Text, nullable=False, comment="JSON of aggregation.analytics.stored_query.StoredQuery"),
    comment="about devices' samples; a payload that answers one has its number as `aggregate`",
)
# A name may be used again once its query is closed.
Index(
    "one_open_query_per_name",
    queries.c.task,
    queries.c.name,
    unique=True,
    sqlite_where=queries.c.state == "open",
    postgresql_where=queries.c.state == "open",
)

rosters = Table(
    "rosters",
    metadata,
    Column("task", String(48), primary_key=True),
    Column("number", BigInteger, nullable=False, comment="counts up"),
    Column("payload", LargeBinary, nullable=False, comment="kinds.Roster, as it was published last"),
    comment="of tasks that devices learn by gossip",
)

refused_payloads = Table(
    "refused_payloads",
    metadata,
    Column("position", BigInteger, nullable=False, unique=True, comment="order of receipt, in one count with payloads"),
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
