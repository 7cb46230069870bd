"""Tasks in rounds: who is asked, when a round is over, and that late comers are told so."""

import msgspec
import pytest

from edge_agent.shell.versions.version_follower import NotAskedError
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle_files import blob_hash
from fleet_protocol.cohort import EVERYONE, asking, is_asked
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Manifest, PresenceState
from tests.support.bench import Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice
from tests.support.jumping_clock import run
from tests.unit.test_version_follower import TASK as DIGITS
from tests.unit.test_version_follower import WEIGHTS, Device

ROUND_SECONDS = 60.0
PLAN = AggregationPlan(
    buffer_size=3, strategy="fedavg", max_staleness=0, round_seconds=ROUND_SECONDS, over_selection=1.5
)


@pytest.fixture
def bench(database, tmp_path) -> Bench:
    return Bench(database, write_bundle(tmp_path / "bundle", aggregation=PLAN))


def enrolled(bench: Bench, count: int) -> list[SigningDevice]:
    devices = [SigningDevice(f"pi-{number}") for number in range(count)]
    for device in devices:
        bench.handle(device, device.enrolment())
    bench.make_versions()
    bench.said()
    return devices


def held(bench: Bench) -> list[int]:
    """Updates by version, from version 1 on."""
    return [summary.updates for summary in bench.journal.overview.version_summaries(TASK, 100)[1:]]


def test_round_ends_with_enough_reports_and_refuses_the_others(bench) -> None:
    devices = enrolled(bench, 5)
    for device in devices:
        bench.handle(device, device.update(1))
        bench.make_versions()
    receipts = bench.receipts()
    assert [receipt.reason for receipt in receipts] == ["", "", "", *[Reason.TOO_STALE.value] * 2]
    assert held(bench) == [3]


def test_round_ends_at_its_deadline_with_those_that_have_reported(bench) -> None:
    devices = enrolled(bench, 3)
    began = bench.now - 1
    bench.handle(devices[0], devices[0].update(1))
    assert bench.coordinator.next_due() == began + ROUND_SECONDS
    bench.now = began + ROUND_SECONDS - 0.1
    bench.make_versions()
    assert held(bench) == []
    bench.now = began + ROUND_SECONDS
    bench.make_versions()
    assert held(bench) == [1]
    assert bench.coordinator.next_due() == bench.now + ROUND_SECONDS, "the next round has its own"
    bench.said()
    bench.handle(devices[1], devices[1].update(1))
    bench.handle(devices[2], devices[2].update(1, base_version=1))
    assert [receipt.reason for receipt in bench.receipts()] == [Reason.TOO_STALE.value, ""]


def test_round_in_which_nobody_reports_asks_everyone_and_ends_with_the_first_report(bench) -> None:
    device, *_ = enrolled(bench, 9)
    bench.coordinator.announce_all()
    assert bench.manifests()[-1].selection_threshold < EVERYONE
    bench.now += 10 * ROUND_SECONDS
    for _ in range(2):
        bench.make_versions()
    assert held(bench) == []
    assert bench.coordinator.next_due() is None
    assert [manifest.selection_threshold for manifest in bench.manifests()] == [EVERYONE]
    bench.handle(device, device.update(1))
    bench.make_versions()
    assert held(bench) == [1]
    assert bench.manifests()[-1].selection_threshold < EVERYONE, "the next round draws its devices again"


def test_deadline_starts_again_with_the_coordinator(bench) -> None:
    device, _ = enrolled(bench, 2)
    bench.handle(device, device.update(1))
    bench.now += 10 * ROUND_SECONDS
    bench.restart()
    bench.make_versions()
    assert held(bench) == []
    bench.now += ROUND_SECONDS
    bench.make_versions()
    assert held(bench) == [1]


def test_manifest_asks_as_many_of_those_present_as_the_round_needs_and_some_more(bench) -> None:
    devices = enrolled(bench, 9)

    def asked() -> set[str]:
        bench.coordinator.announce_all()
        below = bench.manifests()[-1].selection_threshold
        return {device.name for device in devices if is_asked(TASK, 0, device.name, below)}

    assert len(asked()) == 5, "before a presence all approved ones count: 1.5 times 3, rounded up"
    for device in devices[:6]:
        bench.present(device, device.presence(PresenceState.ONLINE, 1))
    assert len(asked() & {device.name for device in devices[:6]}) == 5
    bench.present(devices[0], devices[0].presence(PresenceState.OFFLINE, 1))
    assert {device.name for device in devices[1:6]} <= asked()


def test_every_version_asks_so_many_and_others() -> None:
    names = [f"pi-{number}" for number in range(1000)]
    cohorts = []
    for version in range(20):
        below = asking(300, "digits", version, names)
        cohorts.append({name for name in names if is_asked("digits", version, name, below)})
    assert all(len(cohort) == 300 for cohort in cohorts)
    assert len(set.union(*cohorts)) > 990
    assert asking(1000, "digits", 1, names) == asking(7, "digits", 1, []) == EVERYONE
    assert all(is_asked("digits", 1, name, EVERYONE) for name in names)


def test_device_trains_once_in_a_round_and_only_where_it_is_asked(tmp_path) -> None:
    in_rounds = msgspec.structs.replace(DIGITS, aggregation=PLAN)
    bundle = msgspec.json.encode(in_rounds)
    device = Device(tmp_path)
    device.blobs[blob_hash(bundle)] = bundle
    asked = next(version for version in range(100) if is_asked("digits", version, "attic-pi", 2**31))
    skipped = next(version for version in range(asked, 100) if not is_asked("digits", version, "attic-pi", 2**31))

    def receive_manifest(version: int, below: int) -> None:
        device.versions.receive_manifest("digits", Manifest(version, blob_hash(bundle), WEIGHTS, below))

    async def scenario():
        receive_manifest(asked, 2**31)
        device.versions.hold(await device.versions.ready_version("digits"))
        with pytest.raises(NotAskedError, match=f"has had its part in the round of version {asked}"):
            await device.versions.ready_version("digits")
        receive_manifest(skipped, 2**31)
        with pytest.raises(NotAskedError, match=f"round of version {skipped} asks other devices"):
            await device.versions.ready_version("digits")
        assert not device.versions.receive_manifest("digits", Manifest(skipped, blob_hash(bundle), WEIGHTS, 2**31))
        assert device.versions.receive_manifest("digits", Manifest(skipped, blob_hash(bundle), WEIGHTS)), (
            "a wider round"
        )
        assert (await device.versions.ready_version("digits")).number == skipped

    try:
        run(scenario())
    finally:
        device.database.close()
