"""One device can neither make all versions nor outdate the others; nothing is lost, and nobody waits for anybody."""

import pytest

from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Outcome, PresenceState, Receipt
from tests.support.bench import Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice

PLAN = AggregationPlan(buffer_size=4)
FLOOD, SLOW = SigningDevice("flood-pi"), SigningDevice("slow-pi")
HOUR = 3600


class Fleet:
    """A coordinator and what each device has sent it so far."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._sent: dict[str, int] = {}

    def enrol(self, device: SigningDevice, *, online: bool = True) -> None:
        self.bench.handle(device, device.enrolment())
        self.bench.present(device, device.presence(PresenceState.ONLINE if online else PresenceState.OFFLINE, 1))

    def send(self, device: SigningDevice, base: int | None = None) -> Receipt:
        """One update; where it is to be kept, its number is used again."""
        self.bench.receipts()
        number = self._sent.get(device.name, 0) + 1
        base = self.version if base is None else base
        self.bench.handle(device, device.update(number, base_version=base))
        self.bench.make_versions()
        (receipt,) = self.bench.receipts()
        if receipt.outcome is Outcome.ACCEPTED:
            self._sent[device.name] = number
        return receipt

    def flood(self, seconds: int, times: int = 5) -> int:
        """How many of the updates that a device offers in this time were accepted."""
        begun = self.bench.now
        accepted = 0
        while self.bench.now < begun + seconds:
            for _ in range(times):
                accepted += self.send(FLOOD).outcome is Outcome.ACCEPTED
            self.bench.now = round(self.bench.now) + seconds // 20
        return accepted

    @property
    def version(self) -> int:
        return self.bench.journal.newest_number(TASK)


@pytest.fixture
def fleet(tmp_path) -> Fleet:
    fleet = Fleet(Bench(tmp_path / "fleet.db", write_bundle(tmp_path / "bundle", aggregation=PLAN)))
    fleet.enrol(FLOOD)
    return fleet


def test_device_that_trains_while_another_floods_is_not_too_stale(fleet) -> None:
    """5,640 updates in 60 seconds made 264 versions."""
    fleet.enrol(SLOW)
    base = fleet.version
    fleet.flood(60, times=10)
    assert fleet.version - base <= 10
    assert fleet.send(SLOW, base).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("restarts", [False, True])
def test_flood_gets_no_more_than_its_share_of_the_updates(fleet, restarts) -> None:
    honest = [SigningDevice(f"honest-{number}") for number in range(10)]
    for device in honest:
        fleet.enrol(device)
    for _ in range(40):
        for device in honest:
            assert fleet.send(device).outcome is Outcome.ACCEPTED
            fleet.send(FLOOD)
            fleet.bench.now += 1
        if restarts:
            fleet.bench.restart()
    last = [row.device for row in fleet.bench.journal.updates()][-100:]
    assert last.count(FLOOD.name) <= (25 if not restarts else 60)


def test_what_is_beyond_the_share_is_kept_and_accepted_later(fleet) -> None:
    fleet.enrol(SLOW)
    fleet.flood(60, times=10)
    while (refused := fleet.send(FLOOD)).outcome is Outcome.ACCEPTED:
        pass
    assert refused.reason == Reason.RATE_LIMITED.value
    assert "others come first; keep the update and send it later" in refused.detail
    assert fleet.bench.journal.decided(FLOOD.name, fleet._sent[FLOOD.name] + 1) is None, "its number stays unused"
    fleet.bench.now += HOUR
    assert fleet.send(FLOOD).outcome is Outcome.ACCEPTED


def test_fleet_of_one_makes_versions_as_fast_as_it_likes(fleet) -> None:
    assert {fleet.send(FLOOD).outcome for _ in range(100)} == {Outcome.ACCEPTED}
    assert fleet.version == 25


def test_device_alone_goes_on_while_others_only_listen_or_are_gone(fleet) -> None:
    fleet.enrol(SLOW)
    fleet.flood(60, times=10)
    version = fleet.version
    fleet.flood(HOUR)
    assert 12 <= fleet.version - version <= 20, "about a version in four minutes"
    fleet.bench.present(SLOW, SLOW.presence(PresenceState.OFFLINE, 1))
    assert {fleet.send(FLOOD).outcome for _ in range(50)} == {Outcome.ACCEPTED}


def test_flood_in_one_batch_is_bounded_too(fleet) -> None:
    fleet.enrol(SLOW)
    fleet.bench.receipts()
    fleet.bench.handle(FLOOD, *(FLOOD.update(number) for number in range(1, 200)))
    fleet.bench.make_versions()
    assert fleet.version <= 10
    outcomes = [receipt.outcome for receipt in fleet.bench.receipts()]
    assert outcomes == sorted(outcomes, key=lambda each: each is not Outcome.ACCEPTED)


def test_versions_that_are_not_made_make_nobody_stale(tmp_path) -> None:
    """They may be stopped: no device could train from them."""
    plan = AggregationPlan(buffer_size=1, max_staleness=2)
    bench = Bench(tmp_path / "fleet.db", write_bundle(tmp_path / "bundle", aggregation=plan))
    bench.handle(SLOW, SLOW.enrolment())
    bench.receipts()
    for sequence in range(1, 9):
        bench.handle(SLOW, SLOW.update(sequence))
    assert {receipt.outcome for receipt in bench.receipts()} == {Outcome.ACCEPTED}
    assert [row.staleness for row in bench.journal.updates()] == list(range(8)), "what it will be when they are made"
    bench.make_versions()
    assert bench.journal.newest_number(TASK) == 8
    bench.handle(SLOW, SLOW.update(9))
    assert bench.receipts()[-1].reason == Reason.TOO_STALE.value
