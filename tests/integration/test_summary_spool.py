"""What a helper says of a device waits in its outbox, or is lost and said where there is no room."""

import sqlite3
from pathlib import Path

import msgspec
import pytest

from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.shell.versions.version_follower import ReadyVersion
from fleet_protocol.activation_plan import summary_values
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.keys import SigningKey, write_verify_key
from fleet_protocol.kinds import ENCRYPTED_ACTIVATION_SUMMARY, ActivationSummary, decode_payload
from fleet_protocol.kinds.activation_summary import FLOAT_BYTES
from session_relay.helper.compute_contract import Seen
from session_relay.helper.summary_spool import SummarySpool
from tests.support.fleet import FLEET, SHARD
from tests.support.split_session import shipped

TASK = msgspec.structs.replace(shipped().description, clusters=ClusterPlan(2, activations="4"))
VERSION = ReadyVersion(3, "ab" * 32, TASK, {}, Path("weights"))
assert TASK.clusters and TASK.split
MEAN = bytes(FLOAT_BYTES * summary_values(TASK.clusters, TASK.split))
SEEN = Seen(b"s" * 16, 16, MEAN)


def spool_of(database: DeviceDatabase, *, encrypt_updates: bool = False) -> SummarySpool:
    coordinator = write_verify_key(SigningKey.generate().verify_key)
    identity = Identity(FLEET, SHARD, "cellar-pi", SigningKey.generate(), coordinator, encrypt_updates=encrypt_updates)
    return SummarySpool(database, address=identity.encrypted_address, sign=identity.sign_row)


@pytest.mark.parametrize("encrypt_updates", [False, True])
def test_a_summary_waits_encrypted_with_the_version_that_its_session_began_with(tmp_path, encrypt_updates):
    database = DeviceDatabase(tmp_path / "agent.db")
    assert spool_of(database, encrypt_updates=encrypt_updates).put(VERSION, "kitchen-pi", SEEN)
    (number,) = database.waiting_numbers()
    row = database.read(number)
    assert row.kind == ENCRYPTED_ACTIVATION_SUMMARY.number
    assert row.recipient, "whatever the helper does with its updates"
    assert (row.task, row.bundle, row.base_version) == (TASK.task, VERSION.bundle, 3)
    assert decode_payload(row.payload, ActivationSummary) == ActivationSummary("kitchen-pi", 16, MEAN)


def test_a_full_outbox_takes_no_more_and_nothing_that_the_task_does_not_ask_for(tmp_path):
    database = DeviceDatabase(tmp_path / "agent.db", maximum_waiting_bytes=3 * len(MEAN))
    spool = spool_of(database)
    taken = [spool.put(VERSION, "kitchen-pi", SEEN) for _ in range(20)]
    assert taken == sorted(taken, reverse=True)
    assert 0 < sum(taken) < 20
    assert not spool_of(DeviceDatabase(tmp_path / "other.db")).put(VERSION, "kitchen-pi", Seen(b"s" * 16))


def test_what_a_full_disk_keeps_out_is_said_and_costs_nothing_else(tmp_path, monkeypatch, caplog):
    database = DeviceDatabase(tmp_path / "agent.db")

    def full(*_: object) -> bool:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(database, "spool_beside", full)
    assert not spool_of(database).put(VERSION, "kitchen-pi", SEEN)
    assert "summary_lost" in caplog.text
    assert "kitchen-pi" in caplog.text
