"""What is in a masked update stays in agent.db until its cohort is settled, and is never sent."""

import numpy as np
import pytest

from edge_agent.core.outbox import SpooledPayload
from edge_agent.producers import given_back
from edge_agent.shell.storage.device_database import DeviceDatabase, SpooledRound
from edge_agent.training.compression import remember
from fleet_protocol.kinds import MASKED_UPDATE, Outcome
from tests.support.device import SigningDevice
from tests.support.masked_task import MaskHelperOnDisk, masked_bundle

PLAIN = np.linspace(-0.5, 0.5, 36, dtype=np.float32)
DEVICE = SigningDevice("pi")


def spooled(path, payload=b"masked"):
    database = DeviceDatabase(path)
    payloads = (SpooledPayload(MASKED_UPDATE.number, b"", payload, PLAIN.tobytes()),)
    database.spool(SpooledRound("tiny", "0b" * 32, 0, 4, payloads, b""), DEVICE.identity.sign_row)
    return database


def row_of(database):
    (number,) = database.waiting_numbers()
    return database.read(number)


def returned(database):
    return database.memory("tiny", "0b" * 32).returned


def test_void_cohorts_update_is_in_the_next_residual_after_a_kill_and_a_new_number(tmp_path):
    database = spooled(tmp_path / "agent.db")
    database.close()
    database = DeviceDatabase(tmp_path / "agent.db")
    row = database.renumber(row_of(database), 77, DEVICE.identity.sign_row)
    assert PLAIN.tobytes() not in DEVICE.identity.sign_row(row)
    database.settle(row, Outcome.REJECTED, "void_cohort", returned=True)
    database.close()
    database = DeviceDatabase(tmp_path / "agent.db")
    (taken,) = given_back(returned(database)).values()
    helpers = [MaskHelperOnDisk(f"mask-{number}", tmp_path) for number in range(2)]
    task = masked_bundle(tmp_path / "bundle", helpers).description
    feedback = remember(task, b"", [taken], 1)
    assert np.array_equal(feedback.offer(np.zeros(36, np.float32)), PLAIN)


@pytest.mark.parametrize("counts", [True, False])
def test_nothing_is_kept_of_what_is_settled_and_taken_back(tmp_path, counts):
    database = spooled(tmp_path / "agent.db")
    row = row_of(database)
    if counts:
        database.settle(row, Outcome.ACCEPTED, "")
    else:
        database.settle(row, Outcome.REJECTED, "void_cohort", returned=True)
        again = SpooledRound("tiny", "0b" * 32, 0, 4, (), b"", returned=(row.sequence,))
        database.spool(again, DEVICE.identity.sign_row)
    database.close()
    assert PLAIN.tobytes() not in (tmp_path / "agent.db").read_bytes()
    assert returned(DeviceDatabase(tmp_path / "agent.db")) == ()
