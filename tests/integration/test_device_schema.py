"""A database of version 1 becomes one of this release in one transaction: nothing is lost, the same bytes go out."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from nacl.public import SealedBox

from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.postbox import Postbox
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.shell.storage.device_schema import COLUMNS_OF_VERSION_3, SCHEMA_VERSION
from fleet_protocol.envelope import digest, sign_envelope
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import SigningKey, key_id, write_verify_key
from fleet_protocol.kinds import (
    ENCRYPTED_UPDATE,
    UPDATE,
    EncryptedPayload,
    Outcome,
    Receipt,
    Update,
    decode_payload,
    encode_payload,
)

VERSION_1 = """
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE tasks (
    task TEXT PRIMARY KEY, bundle TEXT NOT NULL, rounds INTEGER NOT NULL, trained_through INTEGER NOT NULL,
    residual BLOB NOT NULL
);
CREATE TABLE manifests (
    task TEXT PRIMARY KEY, version INTEGER NOT NULL, bundle TEXT NOT NULL, weights TEXT NOT NULL
);
CREATE TABLE held_versions (
    task TEXT PRIMARY KEY, version INTEGER NOT NULL, bundle TEXT NOT NULL, weights TEXT NOT NULL
);
CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY, task TEXT NOT NULL, bundle TEXT NOT NULL, base_version INTEGER NOT NULL,
    packed BLOB NOT NULL, payload BLOB NOT NULL, envelope BLOB NOT NULL, digest BLOB NOT NULL
);
CREATE TABLE returned (
    sequence INTEGER PRIMARY KEY, task TEXT NOT NULL, bundle TEXT NOT NULL, packed BLOB NOT NULL
);
CREATE TABLE settled (
    sequence INTEGER PRIMARY KEY, digest BLOB NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL
);
"""
"""As edgeflock wrote it before it numbered its layouts."""

BUNDLE = "0f" * 32
KEY, COORDINATOR = SigningKey(bytes(range(32))), SigningKey(bytes(range(1, 33)))
IDENTITY = Identity("home", "0", "pi", KEY, write_verify_key(COORDINATOR.verify_key), encrypt_updates=True)
PLAIN, SECRET = (encode_payload(Update(8, 40, 0.5, packed)) for packed in (b"plain", b"secret"))
BOX = EncryptedPayload(
    key_id(COORDINATOR.verify_key), SealedBox(COORDINATOR.verify_key.to_curve25519_public_key()).encrypt(SECRET)
)
ENVELOPES = {
    3: sign_envelope(KEY, IDENTITY.up_topic, UPDATE, PLAIN, sequence=3, task="digits", base_version=7),
    4: sign_envelope(
        KEY, IDENTITY.up_topic, ENCRYPTED_UPDATE, encode_payload(BOX), sequence=4, task="digits", base_version=7
    ),
}


@pytest.fixture
def path(tmp_path) -> Path:
    """Update 1 was accepted, 2 rejected and not taken back yet, 3 and 4 wait."""
    path = tmp_path / "agent.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(VERSION_1)
        connection.executemany(
            "INSERT INTO counters VALUES (?, ?)",
            [("boot", 5), ("update_sequence", 4), ("updates_made", 4), ("enrolled", 1)],
        )
        connection.execute("INSERT INTO tasks VALUES ('digits', ?, 4, 40, x'01020304')", (BUNDLE,))
        connection.execute("INSERT INTO manifests VALUES ('digits', 7, ?, ?)", (BUNDLE, "aa" * 32))
        connection.execute("INSERT INTO returned VALUES (2, 'digits', ?, x'61')", (BUNDLE,))
        for sequence, packed, payload in ((3, b"plain", PLAIN), (4, b"secret", SECRET)):
            envelope = ENVELOPES[sequence]
            connection.execute(
                "INSERT INTO outbox VALUES (?, 'digits', ?, 7, ?, ?, ?, ?)",
                (sequence, BUNDLE, packed, payload, envelope, digest(envelope)),
            )
        connection.execute("INSERT INTO settled VALUES (1, x'aa', 'accepted', '')")
        connection.execute("INSERT INTO settled VALUES (2, x'bb', 'rejected', 'too_stale')")
    return path


def sent(database: DeviceDatabase) -> list[bytes]:
    postbox = Postbox(database, IDENTITY.sign_row, publish=None)
    return [postbox._delivery.envelope(number) for number in database.waiting_numbers()]


def check_everything_is_there(database: DeviceDatabase) -> None:
    assert sent(database) == list(ENVELOPES.values())
    memory = database.memory("digits", BUNDLE)
    assert (memory.rounds, memory.trained_through, memory.residual) == (4, 40, bytes([1, 2, 3, 4]))
    (returned,) = memory.returned
    assert (returned.sequence, decode_payload(returned.payload, Update).packed) == (2, b"a")
    assert database.known_version("digits").version == 7
    assert database.is_enrolled()


def test_what_waits_goes_out_with_the_same_bytes_and_what_was_returned_is_taken_back(path):
    for boot in (6, 7):
        database = DeviceDatabase(path)
        check_everything_is_there(database)
        assert database.boot == boot
        database.close()


@pytest.mark.parametrize("sequence", [3, 4])
def test_rejected_update_of_version_1_comes_back_to_the_residual(path, sequence):
    database = DeviceDatabase(path)
    postbox = Postbox(database, IDENTITY.sign_row, publish=None)
    assert postbox.receive(Receipt(digest(ENVELOPES[sequence]), Outcome.REJECTED, "too_stale", "", 4, 5))
    returned = {row.sequence: row.payload for row in database.memory("digits", BUNDLE).returned}
    assert decode_payload(returned[sequence], Update).packed == {3: b"plain", 4: b"secret"}[sequence]
    database.close()


def test_renumbered_update_of_version_1_is_encrypted_again(path):
    database = DeviceDatabase(path)
    postbox = Postbox(database, IDENTITY.sign_row, publish=None)
    assert postbox.receive(Receipt(digest(ENVELOPES[4]), Outcome.REJECTED, "sequence_reused", "", 90, 5))
    row = database.read(91)
    assert (row.payload, row.envelope) == (SECRET, b"")
    assert digest(sent(database)[-1]) == row.digest
    database.close()


def test_killed_while_it_is_brought_up_to_date_it_begins_again(path):
    program = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from edge_agent.shell.storage import device_schema\n"
        "from edge_agent.shell.storage.device_database import DeviceDatabase\n"
        "device_schema._move_returned = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"DeviceDatabase(Path({str(path)!r}))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=False)
    assert ended.returncode == -signal.SIGKILL
    database = DeviceDatabase(path)
    check_everything_is_there(database)
    database.close()


def test_file_of_version_2_is_of_generation_0_and_nothing_is_lost(path):
    DeviceDatabase(path).close()
    with closing(sqlite3.connect(path)) as connection:
        for table, column in COLUMNS_OF_VERSION_3:
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.execute("DROP TABLE sample_use")
        connection.execute("PRAGMA user_version = 2")
        connection.commit()
    database = DeviceDatabase(path)
    check_everything_is_there(database)
    assert database.known_version("digits").generation == 0
    assert [database.read(number).generation for number in database.waiting_numbers()] == [0, 0]
    database.close()


def test_file_of_version_3_has_been_trained_on_and_may_go_on(path):
    DeviceDatabase(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE sample_use")
        connection.execute("PRAGMA user_version = 3")
        connection.commit()
    for withheld in (0, 1):
        database = DeviceDatabase(path)
        memory = database.memory("digits", BUNDLE)
        assert (memory.rounds, memory.trained_through, memory.epochs) == (4 + withheld, 40 + withheld, 5.0 * withheld)
        assert memory.residual == bytes([1, 2, 3, 4])
        database.withhold("digits", BUNDLE, 41, 5.0)
        database.close()


def test_file_of_a_later_release_is_refused_and_left_alone(path):
    DeviceDatabase(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="update edgeflock"):
        DeviceDatabase(path)
    assert path.read_bytes() == before
