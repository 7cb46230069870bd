"""Devices selected by what they are worth: what the coordinator asks for survives its restart, and ends in time; what a
device knows of itself survives its own.
"""

import msgspec
import pytest

from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.task_registry import TaskRegistry
from edge_agent.core.outbox import SpooledPayload
from edge_agent.core.selection import RoundFigures
from edge_agent.core.version_choice import known_from
from edge_agent.shell.storage.device_database import DeviceDatabase, SpooledRound
from edge_agent.shell.versions.version_follower import NotAskedError
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle_files import blob_hash
from fleet_protocol.cohort import EVERYONE
from fleet_protocol.kinds import UPDATE, Manifest, Selection
from fleet_protocol.selection_plan import SelectionPlan
from tests.support.bench import Bench
from tests.support.bundles import write_bundle
from tests.support.device import SigningDevice
from tests.support.jumping_clock import run
from tests.unit.test_version_follower import TASK as DIGITS
from tests.unit.test_version_follower import WEIGHTS, Device

PLAN = SelectionPlan(share=0.3, exploration=0.5)
PATIENCE = 3 * (10.0 + 20.0 + 20.0) / 3
"""Seconds; three times as long as a version took while everybody was asked: the first three, each with six devices
known at most. The first one was begun with its first update."""
DEVICES = [SigningDevice(f"pi-{number}") for number in range(10)]


@pytest.fixture
def bench(database, tmp_path) -> Bench:
    plan = AggregationPlan(buffer_size=2, max_staleness=100, averaged_versions=1)
    return Bench(database, write_bundle(tmp_path / "bundle", aggregation=plan, selection=PLAN))


def all_have_sent(bench: Bench) -> None:
    """Twice: everybody is asked for the first versions."""
    for device in DEVICES:
        bench.handle(device, device.enrolment())
    for sequence in (1, 2):
        send_in_turn(bench, sequence)


def send_in_turn(bench: Bench, sequence: int) -> None:
    for number, device in enumerate(DEVICES):
        bench.now += 10.0
        bench.handle(device, device.update(sequence, loss=1.0 + number))
        bench.make_versions()


def test_a_manifest_asks_for_what_the_best_have_told(bench) -> None:
    bench.make_versions()
    assert [manifest.selection for manifest in bench.manifests()] == [None]
    all_have_sent(bench)
    *open_ones, manifest = bench.manifests()
    assert all(each.selection.takes_everybody for each in open_ones)
    assert manifest.version == 10
    assert manifest.selection == Selection(8 * 8.0, round(EVERYONE * PLAN.new_drawn(10)), 2.0, 20.1), (
        "three of ten devices"
    )


def test_after_a_restart_it_asks_everybody_until_it_knows_again_how_fast_versions_come(bench) -> None:
    all_have_sent(bench)
    bench.handle(DEVICES[0], DEVICES[0].update(3))
    bench.make_versions()
    bench.restart()
    bench.make_versions()
    after = bench.manifests()[-1].selection
    assert after == Selection(0.0, EVERYONE, 2.0, 0.0), "what waits counts in the mean with its version"
    send_in_turn(bench, 4)
    send_in_turn(bench, 5)
    manifest = bench.manifests()[-1]
    assert (manifest.version, manifest.selection.least) == (20, 8 * 8.0)


def test_a_revoked_device_sets_no_threshold_after_a_restart(bench) -> None:
    all_have_sent(bench)
    for device in DEVICES[8:]:
        DeviceRegistry(bench.journal.engine).revoke(device.name)
    bench.restart()
    for sequence in (3, 4):
        for device in DEVICES[:8]:
            bench.handle(device, device.update(sequence, loss=1.0 + DEVICES.index(device)))
            bench.make_versions()
    assert bench.manifests()[-1].selection.least == 8 * 6.0, "three of eight"


def operator_changes_tasks(bench: Bench) -> None:
    registry = TaskRegistry(bench.journal.engine)
    for paused in (True, False):
        registry.set_paused(bench.description.task, paused=paused)


def test_another_task_changes_nothing(bench) -> None:
    """Whatever an operator changes, tasks are read again."""
    all_have_sent(bench)
    made, before = bench.now, bench.manifests()[-1].selection
    bench.now = made + PATIENCE - 1
    operator_changes_tasks(bench)
    bench.make_versions()
    assert bench.manifests()[-1].selection == before
    assert bench.coordinator.next_due() == made + PATIENCE
    bench.now = made + PATIENCE
    bench.make_versions()
    assert bench.manifests()[-1].selection.takes_everybody
    operator_changes_tasks(bench)
    bench.make_versions()
    assert bench.manifests()[-1].selection.takes_everybody


def test_everybody_is_asked_where_nobody_comes(bench) -> None:
    all_have_sent(bench)
    made = bench.now
    assert not bench.manifests()[-1].selection.takes_everybody
    assert bench.coordinator.next_due() == made + PATIENCE
    bench.now = made + PATIENCE - 1
    bench.make_versions()
    assert bench.manifests() == []
    bench.now = made + PATIENCE
    bench.make_versions()
    (manifest,) = bench.manifests()
    assert (manifest.version, manifest.selection) == (10, Selection(0.0, EVERYONE, 2.0, 19.0))
    bench.make_versions()
    assert bench.manifests() == [], "once"
    for device in DEVICES[:2]:
        bench.handle(device, device.update(3, base_version=10))
    bench.make_versions()
    newest = bench.manifests()[-1]
    assert newest.version == 11
    assert not newest.selection.takes_everybody, "until there is a version"


def test_what_waits_does_not_end_the_patience_nor_make_a_version_by_it(bench) -> None:
    all_have_sent(bench)
    made = bench.now
    bench.handle(DEVICES[0], DEVICES[0].update(3, base_version=10))
    bench.now = made + PATIENCE
    bench.make_versions()
    newest = bench.manifests()[-1]
    assert (newest.version, newest.selection.takes_everybody) == (10, True)


def play(database: DeviceDatabase, bundle: str, figures: RoundFigures | None) -> None:
    payload = SpooledPayload(UPDATE.number, b"", b"update")
    database.spool(SpooledRound("digits", bundle, 7, 1, (payload,), b"", figures=figures), lambda row: row.payload)


def test_what_a_device_knows_of_its_last_round_is_kept_with_its_update(tmp_path) -> None:
    figures = RoundFigures(8, 0.5, 20.25, 3, 1.5)
    database = DeviceDatabase(tmp_path / "agent.db")
    assert database.round_figures("digits", "0f" * 32) is None
    play(database, "0f" * 32, figures)
    play(database, "0f" * 32, None)
    database.close()
    database = DeviceDatabase(tmp_path / "agent.db")
    assert database.round_figures("digits", "0f" * 32) == figures
    assert database.round_figures("digits", "f0" * 32) is None, "another bundle begins anew"
    database.close()


def test_a_damaged_row_makes_a_new_device(tmp_path) -> None:
    database = DeviceDatabase(tmp_path / "agent.db")
    play(database, "0f" * 32, RoundFigures(8, 0.5, 20.25, 3, 1.5))
    for event in ("insert", "update", "delete"):
        database._connection.execute(f"DROP TRIGGER seal_round_figures_{event}")
    database._connection.execute("UPDATE round_figures SET loss = 1e300")
    database.close()
    database = DeviceDatabase(tmp_path / "agent.db")
    assert database.round_figures("digits", "0f" * 32) is None
    database.close()


def test_a_device_fetches_nothing_for_a_version_that_asks_others(tmp_path) -> None:
    selecting = msgspec.structs.replace(DIGITS, selection=PLAN)
    bundle = msgspec.json.encode(selecting)
    device = Device(tmp_path)
    device.blobs[blob_hash(bundle)] = bundle
    play(device.database, blob_hash(bundle), RoundFigures(8, 0.5, 20.0, 3, 0.0))
    manifest = Manifest(4, blob_hash(bundle), WEIGHTS, selection=Selection(5.0, 0, 1.0, 0.0))

    everyone = Selection(0.0, EVERYONE, 1.0, 0.0)

    async def scenario():
        device.database.set_known_version("digits", known_from(manifest))
        with pytest.raises(NotAskedError, match="no manifest of digits has come since the start"):
            await device.versions.ready_version("digits")
        assert device.versions.receive_manifest("digits", manifest)
        with pytest.raises(NotAskedError, match="asks for a utility of 5, and this device's is 4"):
            await device.versions.ready_version("digits")
        assert not device.versions.receive_manifest("digits", manifest)
        assert device.versions.receive_manifest("digits", msgspec.structs.replace(manifest, selection=everyone)), (
            "its patience is over"
        )
        assert (await device.versions.ready_version("digits")).number == 4

    try:
        run(scenario())
    finally:
        device.database.close()
