"""Which process leads, what shards tell one another, and which fleets can have several shards."""

from pathlib import Path

import msgspec
import pytest

from broker_coordinator.commands.leadership import BROKERLESS_SECONDS, Leadership
from broker_coordinator.commands.shard_rules import require_no_masks, serving
from broker_coordinator.configuration import load_configuration
from broker_coordinator.serving.other_shards import OtherShards
from broker_coordinator.storage.change_counters import ARRIVALS, ENROLMENTS
from broker_coordinator.storage.lease import LeaseLostError
from fleet_protocol.errors import ConfigurationError
from tests.support.masked_task import MaskHelperOnDisk, masked_bundle

SHARDS = ("0", "1")


class OneLease:
    """What `Leadership` asks of a lease: who has it."""

    def __init__(self) -> None:
        self.holder: str | None = "another process"
        self.asked = 0

    def take_also(self, _job: str) -> str | None:
        self.asked += 1
        return self.holder


def test_a_process_asks_once_a_second_until_it_leads_and_then_no_more() -> None:
    now, lease = 100.0, OneLease()
    leadership = Leadership(lease, "1", lambda: now)
    leadership.has_broker = lambda: True
    assert not leadership.may_lead()
    now = 100.5
    assert not leadership.may_lead()
    assert lease.asked == 1
    lease.holder, now = None, 101.0
    assert leadership.may_lead()
    lease.holder, now = "a later one", 200.0
    assert leadership.may_lead(), "who has lost it is told by the lease itself"
    assert lease.asked == 2


def test_who_has_no_broker_does_not_lead_and_a_leader_ends_without_one() -> None:
    now, lease, connected = 100.0, OneLease(), False
    lease.holder = None
    leadership = Leadership(lease, "1", lambda: now)
    leadership.has_broker = lambda: connected
    for now in (101.0, 150.0):  # noqa: B007 - the clock reads it
        assert not leadership.may_lead()
    assert lease.asked == 0, "another process may have a broker"
    connected, now = True, 151.0
    assert leadership.may_lead()
    connected, now = False, 151.0 + BROKERLESS_SECONDS
    assert leadership.may_lead(), "brokers come back"
    now += 1.0
    with pytest.raises(LeaseLostError, match="given up by shard 1, whose broker has been away for 30 s"):
        leadership.may_lead()


def test_news_of_other_shards_are_told_from_own_ones() -> None:
    others = OtherShards(SHARDS)
    assert others.to_count(has_come=True, has_enrolled=False) == [ARRIVALS]
    assert others.has_news(ARRIVALS, {ARRIVALS: 7}), "nothing is known of before"
    others.counted([ARRIVALS])
    assert not others.has_news(ARRIVALS, {ARRIVALS: 8}), "that was here"
    assert others.has_news(ARRIVALS, {ARRIVALS: 9})
    assert not others.has_news(ARRIVALS, {ARRIVALS: 9}), "once"
    assert others.has_news(ENROLMENTS, {ARRIVALS: 10})
    assert not others.has_news(ENROLMENTS, {ARRIVALS: 10})
    others.counted([ARRIVALS])
    assert others.has_news(ARRIVALS, {ARRIVALS: 12}), "both at once"


def test_a_fleet_with_one_shard_counts_nothing() -> None:
    alone = OtherShards(("0",))
    assert alone.to_count(has_come=True, has_enrolled=True) == []
    alone.has_news(ARRIVALS, {})
    assert not alone.has_news(ARRIVALS, {ARRIVALS: 1})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "coordinator.toml"
    path.write_text(
        'fleet = "home"\nshards = ["0", "1"]\nkey_file = "key"\ndatabase = "postgresql+psycopg://a@b/c"\n'
        '[broker]\nhost = "broker"\n[metrics]\nport = 9464\n'
    )
    return path


def test_each_shard_has_a_port_of_its_own_for_metrics(file: Path) -> None:
    configuration = load_configuration(file)
    ports = [serving(configuration, shard, file).metrics_port for shard in SHARDS]
    assert ports == [9464, 9465]
    file.write_text(file.read_text().replace("9464", "65535"))
    with pytest.raises(ConfigurationError, match="leaves none for the last of 2 shards: 65536 exceeds 65535"):
        load_configuration(file)


def test_shards_that_can_not_be_served_are_refused(file: Path) -> None:
    configuration = load_configuration(file)
    with pytest.raises(ConfigurationError, match=r"--shard '2' is none of the shards \['0', '1'\]; name one of them"):
        serving(configuration, "2", file)
    with pytest.raises(ConfigurationError, match="2 shards share no SQLite file"):
        serving(msgspec.structs.replace(configuration, database="here.db"), None, file)
    alone = msgspec.structs.replace(configuration, database="here.db", shards=())
    assert serving(alone, None, file).shard == "0"


def test_masked_tasks_are_refused_in_a_fleet_with_several_shards(tmp_path: Path) -> None:
    helpers = [MaskHelperOnDisk(f"mask-{number}", tmp_path) for number in range(2)]
    description = masked_bundle(tmp_path / "bundle", helpers).description
    require_no_masks([description], ("0",))
    with pytest.raises(ConfigurationError, match=r"has \[privacy.masks\], whose cohorts need a fleet with one shard"):
        require_no_masks([description], SHARDS)
