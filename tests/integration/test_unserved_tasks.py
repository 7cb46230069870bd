"""A task that can't be served here holds up no other one."""

import logging

import numpy as np
import pytest
from sqlalchemy import update

from broker_coordinator.storage.database import writing
from broker_coordinator.storage.schema import bundle_files, tasks, versions
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_protocol.codec import write_weights
from fleet_protocol.kinds import Outcome
from fleet_protocol.parameter import Parameter
from tests.kinds.delta.kind import DELTA
from tests.kinds.installed import installed
from tests.support.bench import Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice

DEVICE = SigningDevice("kitchen-pi")


def publish_other_kind(bench: Bench, folder) -> None:
    with installed():
        TaskRegistry(bench.journal.engine).publish(write_bundle(folder, task="other", versions_from=DELTA.name))


def publish_damaged(bench: Bench, folder) -> None:
    TaskRegistry(bench.journal.engine).publish(write_bundle(folder, task="other"))
    with writing(bench.journal.engine) as connection:
        connection.execute(update(bundle_files).where(bundle_files.c.task == "other").values(data=b"{"))
        connection.execute(update(tasks).where(tasks.c.name == "other").values(bundle="0" * 64))


@pytest.mark.parametrize("publish", [publish_other_kind, publish_damaged])
def test_intake_and_version_maker_go_on_without_a_task_that_they_cant_read(tmp_path, caplog, publish) -> None:
    bench = Bench(tmp_path / "fleet.db", write_bundle(tmp_path / "bundle"))
    bench.handle(DEVICE, DEVICE.enrolment())
    publish(bench, tmp_path / "other")
    bench.receipts()
    with caplog.at_level(logging.ERROR):
        bench.restart()
        for begin in (1, 4):
            bench.handle(
                DEVICE, *(DEVICE.update(number, base_version=begin // 4) for number in range(begin, begin + 3))
            )
            bench.make_versions()
            TaskRegistry(bench.journal.engine).set_paused(TASK, paused=False)
    assert {receipt.outcome for receipt in bench.receipts()} == {Outcome.ACCEPTED}
    assert bench.journal.newest_number(TASK) == 2
    assert caplog.text.count("event=task_not_served task=other") == 1, "said once"


@pytest.mark.parametrize("column", ["weights", "moments"])
def test_a_task_whose_newest_version_is_none_of_its_bundle_holds_up_no_other(tmp_path, caplog, column) -> None:
    """As one that another edgeflock made, which reads the same bundle otherwise; or damage."""
    bench = Bench(tmp_path / "fleet.db", write_bundle(tmp_path / "bundle"))
    bench.handle(DEVICE, DEVICE.enrolment())
    TaskRegistry(bench.journal.engine).publish(write_bundle(tmp_path / "other", task="other"))
    with writing(bench.journal.engine) as connection:
        wrong = {"weights": write_weights(np.zeros(4, np.float32), [Parameter("other", [4])]), "moments": b"abcd"}
        connection.execute(update(versions).where(versions.c.task == "other").values({column: wrong[column]}))
    bench.receipts()
    with caplog.at_level(logging.ERROR):
        bench.restart()
        bench.handle(DEVICE, *(DEVICE.update(number) for number in range(1, 4)))
        bench.make_versions()
    assert {receipt.outcome for receipt in bench.receipts()} == {Outcome.ACCEPTED}
    assert bench.journal.newest_number(TASK) == 1
    assert "event=versions_stopped task=other" in caplog.text
