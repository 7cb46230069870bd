"""Devices selected by what they are worth: what the coordinator asks for survives its restart, and ends in time; what a
device knows of itself survives its own.
"""

import msgspec
import pytest

from edge_agent.core.outbox import SpooledPayload
from edge_agent.core.selection import RoundFigures
from edge_agent.shell.storage.device_database import DeviceDatabase, SpooledRound
from edge_agent.shell.versions.version_follower import NotAskedError
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle_files import blob_hash
from fleet_protocol.kinds import UPDATE, Manifest, Selection
from fleet_protocol.selection_plan import SelectionPlan
from tests.support.bench import Bench
from tests.support.bundles import write_bundle
from tests.support.device import SigningDevice
from tests.support.jumping_clock import run
from tests.unit.test_version_follower import TASK as DIGITS
from tests.unit.test_version_follower import WEIGHTS, Device

PATIENCE = 500.0
PLAN = SelectionPlan(share=0.3, exploration=0.5, patience_seconds=PATIENCE)
DEVICES = [SigningDevice(f"pi-{number}") for number in range(10)]


@pytest.fixture
def bench(database, tmp_path) -> Bench:
    plan = AggregationPlan(buffer_size=2, max_staleness=100, averaged_versions=1)
    return Bench(database, write_bundle(tmp_path / "bundle", aggregation=plan, selection=PLAN))


def all_have_sent(bench: Bench) -> None:
    for device in DEVICES:
        bench.handle(device, device.enrolment())
    for number, device in enumerate(DEVICES):
        bench.now += 10.0
        bench.handle(device, device.update(1, loss=1.0 + number))
        bench.make_versions()


def test_a_manifest_asks_for_what_the_best_have_told(bench) -> None:
    bench.make_versions()
    assert [manifest.selection for manifest in bench.manifests()] == [None]
    all_have_sent(bench)
    manifest = bench.manifests()[-1]
    assert manifest.version == 5
    selection = manifest.selection
    assert selection is not None
    assert selection.least == 8 * 8.0, "three of ten devices"
    assert selection.mean_updates == 1.0
    assert selection.version_seconds == 20.0


def test_it_asks_for_the_same_after_a_restart(bench) -> None:
    all_have_sent(bench)
    before = bench.manifests()[-1].selection
    bench.restart()
    bench.make_versions()
    after = bench.manifests()[-1].selection
    assert before is not None
    assert after == msgspec.structs.replace(before, version_seconds=0.0), "it does not know yet how fast versions come"


def test_everybody_is_asked_where_nobody_comes(bench) -> None:
    all_have_sent(bench)
    made = bench.now
    assert bench.manifests()[-1].selection is not None
    assert bench.coordinator.next_due() == made + PATIENCE
    bench.now = made + PATIENCE - 1
    bench.make_versions()
    assert bench.manifests() == []
    bench.now = made + PATIENCE
    bench.make_versions()
    (manifest,) = bench.manifests()
    assert (manifest.version, manifest.selection) == (5, None)
    bench.make_versions()
    assert bench.manifests() == [], "once"
    for device in DEVICES[:2]:
        bench.handle(device, device.update(2, base_version=5))
    bench.make_versions()
    newest = bench.manifests()[-1]
    assert newest.version == 6
    assert newest.selection is not None, "until there is a version"


def test_what_waits_does_not_end_the_patience_nor_make_a_version_by_it(bench) -> None:
    all_have_sent(bench)
    made = bench.now
    bench.handle(DEVICES[0], DEVICES[0].update(2, base_version=5))
    bench.now = made + PATIENCE
    bench.make_versions()
    assert [(each.version, each.selection) for each in bench.manifests()][-1] == (5, None)


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

    async def scenario():
        assert device.versions.receive_manifest("digits", manifest)
        with pytest.raises(NotAskedError, match="asks for a utility of 5, and this device's is 4"):
            await device.versions.ready_version("digits")
        assert not device.versions.receive_manifest("digits", manifest)
        assert device.versions.receive_manifest("digits", msgspec.structs.replace(manifest, selection=None)), (
            "its patience is over"
        )
        assert (await device.versions.ready_version("digits")).number == 4

    try:
        run(scenario())
    finally:
        device.database.close()
