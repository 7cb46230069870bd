"""The shipped coordinators of two shards, on a real Mosquitto and PostgreSQL: one leads, each takes in, any dies."""

import contextlib
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from broker_coordinator.storage.journal_reader import JournalReader
from fleet_protocol.kinds import Outcome, PresenceState
from tests.support.bundles import TASK
from tests.support.connected_device import ConnectedDevice
from tests.support.cut_link import CutLink
from tests.support.process import environment
from tests.support.shard_processes import SHARDS, ShardedCoordinator, ShardProcess, names_in
from tests.support.waiting import until

BUFFER = 3
"""Updates in each version of the tiny task."""
LONGEST_TAKEOVER_SECONDS = 10.0
QUIET_SECONDS = 2.0
"""In which whoever has connected anew says what it has to."""

Connect = Callable[[str], ConnectedDevice]


@pytest.fixture
def fleet(tmp_path, broker, bundle, postgresql) -> Iterator[ShardedCoordinator]:
    fleet = ShardedCoordinator(tmp_path / "c", broker, tmp_path / "bundle", postgresql.database(secrets.token_hex(8)))
    yield fleet
    fleet.kill_all()


@pytest.fixture
def connect(fleet, broker) -> Iterator[Connect]:
    """Connects a device that belongs to a shard, and enrols it."""
    devices: list[ConnectedDevice] = []

    def connect_one(shard: str) -> ConnectedDevice:
        name = names_in(shard, len(devices) + 1)[-1]
        devices.append(ConnectedDevice(name, broker, fleet.public_key, shard=shard))
        devices[-1].enrol()
        return devices[-1]

    yield connect_one
    for device in devices:
        device.close()


class Ledger:
    """What devices have sent, each update until its receipt."""

    def __init__(self, fleet: ShardedCoordinator, *devices: ConnectedDevice) -> None:
        self._fleet = fleet
        self.devices = devices
        self.sent: list[tuple[str, int]] = []

    def send(self, device: ConnectedDevice, sequence: int) -> None:
        update = device.update(sequence, base_version=self._fleet.newest(TASK))
        assert device.publish_until_receipt(update).outcome is Outcome.ACCEPTED
        self.sent.append((device.name, sequence))

    def round(self, sequence: int) -> None:
        for device in self.devices:
            self.send(device, sequence)


def journalled(fleet: ShardedCoordinator) -> list[tuple[str, int]]:
    with JournalReader.open(fleet.database) as journal:
        return sorted((row.device, row.sequence) for row in journal.updates())


def check(fleet: ShardedCoordinator, ledger: Ledger) -> None:
    """Every update is there once, versions hold them all, and each is the journal's replay, bit for bit."""
    assert journalled(fleet) == sorted(ledger.sent)
    until(lambda: fleet.newest(TASK) == len(ledger.sent) // BUFFER, "every version is made")
    assert fleet.tasks("verify", TASK)["equal"]


def test_versions_are_made_of_what_two_processes_take_in(fleet, connect) -> None:
    fleet.start_all()
    devices = [connect(shard) for shard in SHARDS]
    ledger = Ledger(fleet, *devices)
    for sequence in range(1, 7):
        ledger.round(sequence)
    check(fleet, ledger)
    with JournalReader.open(fleet.database) as journal:
        made_of = {row.aggregate: set() for row in journal.updates()}
        for row in journal.updates():
            made_of[row.aggregate].add(row.device)
    assert all(len(names) == 2 for names in made_of.values()), "every version is of devices of both"
    for device in devices:
        until(lambda each=device: each.received.manifests[TASK].version == 4, "everybody hears of the newest")
        assert device.received.manifests[TASK].shards == SHARDS
    (follower,) = fleet.followers()
    assert "version_made" not in follower.log()
    assert "event=follows" in follower.log()


def test_leader_makes_a_version_at_once_of_what_another_shard_takes_in(fleet, connect) -> None:
    fleet.start_all()
    device = connect(fleet.followers()[0].shard)
    begun = time.monotonic()
    Ledger(fleet, device).round(1)
    Ledger(fleet, device).round(2)
    Ledger(fleet, device).round(3)
    until(lambda: device.received.manifests[TASK].version == 1, "its version is announced")
    assert time.monotonic() - begun < LONGEST_TAKEOVER_SECONDS


def test_files_are_served_by_a_shard_that_does_not_lead(fleet, connect) -> None:
    fleet.start_all()
    leader = fleet.leader()
    device = connect(fleet.followers()[0].shard)
    wanted = device.received.manifests[TASK].weights
    device.listen_for(wanted)
    leader.kill()
    device.publish(device.blob_request(wanted, [], 1))
    until(lambda: (wanted, 0) in device.received.chunks, "the chunk comes")


def test_device_that_comes_to_a_follower_hears_how_things_stand(fleet, broker, connect) -> None:
    fleet.start_all()
    device = connect(fleet.followers()[0].shard)
    heard = device.received
    heard.manifests.clear()
    device.publish(device.presence(PresenceState.ONLINE, boot=1), device.state)
    until(lambda: TASK in heard.manifests, "the leader repeats the manifest")


def test_second_process_of_a_shard_waits_and_says_who_has_it(fleet, connect) -> None:
    fleet.start_all()
    first = fleet.processes["1"]
    fleet.start("--shard", "1")
    until(lambda: "waiting_for_database" in fleet.log(), "the second one waits")
    assert f"process {first.pid} on" in fleet.log()
    assert "intake-1" in fleet.log()
    device = connect("1")
    ledger = Ledger(fleet, device)
    for sequence in (1, 2, 3):
        ledger.round(sequence)
    assert "broker_connected" not in fleet.log()
    check(fleet, ledger)


def test_another_shard_leads_when_the_leader_is_killed(fleet, connect) -> None:
    fleet.start_all()
    ledger = Ledger(fleet, *(connect(shard) for shard in SHARDS))
    ledger.round(1)
    for sequence in (2, 3, 4):
        dead = fleet.leader()
        (other,) = fleet.followers()
        dead.kill()
        killed_at = time.monotonic()
        device = next(each for each in ledger.devices if each.shard == other.shard)
        before = fleet.newest(TASK)
        for number in range(BUFFER):
            ledger.send(device, 100 * sequence + number)
        until(lambda was=before: fleet.newest(TASK) > was, "the other one makes the next version")
        assert time.monotonic() - killed_at < LONGEST_TAKEOVER_SECONDS
        assert other.leads()
        dead.start()
        until(dead.is_serving, "the one that was killed takes in again")
        ledger.round(100 * sequence + BUFFER)
        assert not dead.leads()
    check(fleet, ledger)


def test_a_shard_that_is_killed_finds_what_the_broker_has_kept_for_it(fleet, connect) -> None:
    fleet.start_all()
    (follower,) = fleet.followers()
    device = connect(follower.shard)
    follower.kill()
    updates = [device.update(sequence) for sequence in range(1, 7)]
    for update in updates:
        device.hand_over(update)
    follower.start()
    assert {device.receipt(update).outcome for update in updates} == {Outcome.ACCEPTED}
    ledger = Ledger(fleet, device)
    ledger.sent = [(device.name, sequence) for sequence in range(1, 7)]
    check(fleet, ledger)


@contextlib.contextmanager
def revived(fleet: ShardedCoordinator) -> Iterator[None]:
    """Whoever ends as another one has taken over, or an older database, is started again, as a parent or systemd does
    it.
    """
    over = threading.Event()

    def revive() -> None:
        while not over.wait(0.1):
            for process in fleet.processes.values():
                if process.exit_status() == 1:
                    assert process.says("database_taken_over") or process.says("database_set_back"), process.log()
                    process.start()

    thread = threading.Thread(target=revive)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_nothing_is_lost_while_postgresql_is_restarted(fleet, connect, postgresql) -> None:
    fleet.start_all()
    ledger = Ledger(fleet, *(connect(shard) for shard in SHARDS))
    ledger.round(1)
    try:
        postgresql.stop()
        until(lambda: all(each.says("journal_unavailable") for each in fleet.processes.values()), "both say so")
    finally:
        postgresql.start()
    with revived(fleet):
        for sequence in range(2, 7):
            ledger.round(sequence)
        check(fleet, ledger)
    assert all(each.exit_status() is None for each in fleet.processes.values())


def test_leader_whose_database_alone_is_cut_off_publishes_nothing_older_when_its_broker_comes_back(
    fleet, connect, broker, postgresql
) -> None:
    link = CutLink(postgresql.url("any").port)
    behind_link = fleet.configuration.with_name("behind-link.toml")
    behind_link.write_text(fleet.configuration.read_text().replace(f":{link.target}/", f":{link.port}/"))
    former, other = ShardProcess(behind_link, "0"), fleet.processes["1"]
    fleet.processes["0"] = former
    former.start()
    until(former.leads, "it leads")
    other.start()
    until(other.is_serving, "the other one takes in")
    device = connect("1")
    ledger = Ledger(fleet, device)
    for sequence in range(1, BUFFER + 1):
        ledger.send(device, sequence)
    until(lambda: fleet.newest(TASK) == 1, "it makes a version")
    link.close()
    until(other.leads, "the other one leads")
    for sequence in range(1, BUFFER + 1):
        ledger.send(device, 100 + sequence)
    until(lambda: device.received.manifests[TASK].version == 2, "and makes the next version")
    with former.paused():
        broker.stop()
        broker.start()
        until(lambda: other.log().count("event=broker_connected") == 2, "the other one is back")
        watching = connect("1")
        until(lambda: watching.received.manifests[TASK].version == 2, "what is retained is the newest")
    until(lambda: former.log().count("event=broker_connected") == 2, "the former leader is back")
    begun = time.monotonic()
    while time.monotonic() < begun + QUIET_SECONDS:
        assert watching.received.manifests[TASK].version == 2
        time.sleep(0.01)
    check(fleet, ledger)


def test_shards_under_which_the_database_is_put_back_follow_it_in_one_new_generation(
    fleet, connect, postgresql
) -> None:
    fleet.start_all()
    devices = [connect(shard) for shard in SHARDS]
    ledger = Ledger(fleet, *devices)
    for sequence in range(1, 4):
        ledger.round(sequence)
    until(lambda: fleet.newest(TASK) == 2, "versions are made")
    fleet.kill_all()
    database = fleet.database.database
    postgresql.run_sql(f'CREATE DATABASE "{database}-backup" TEMPLATE "{database}"')
    fleet.start_all()
    for sequence in range(4, 7):
        ledger.round(sequence)
    until(lambda: fleet.newest(TASK) == 4, "more are made")
    with revived(fleet):
        postgresql.run_sql(f'DROP DATABASE "{database}" WITH (FORCE)')
        postgresql.run_sql(f'CREATE DATABASE "{database}" TEMPLATE "{database}-backup"')
        for device in devices:
            until(lambda each=device: each.received.manifests[TASK].generation == 1, "devices are told")
        for device in devices:
            for number in range(BUFFER):
                base = device.received.manifests[TASK].version
                update = device.update(100 + number, base_version=base, generation=1, life=1)
                assert device.publish_until_receipt(update).outcome is Outcome.ACCEPTED
        until(lambda: fleet.newest(TASK) == 4, "versions are made of what comes now")
    said = "".join(process.log() for process in fleet.processes.values())
    assert said.count("event=generation_begun") == 1
    assert "event=database_set_back" in said
    assert devices[0].received.manifests[TASK].generation == 1
    assert fleet.tasks("verify", TASK)["equal"]


def test_parent_keeps_a_process_for_each_shard_and_ends_them(fleet, connect) -> None:
    fleet.start("--shards")
    parent = psutil.Process(fleet.pid)
    until(lambda: fleet.log().count("event=broker_connected") == 2, "both shards serve")
    ledger = Ledger(fleet, *(connect(shard) for shard in SHARDS))
    ledger.round(1)
    children = parent.children()
    assert len([child for child in children if "--shard" in child.cmdline()]) == 2
    for child in children:
        child.kill()
    until(lambda: fleet.log().count("event=broker_connected") == 4, "both are started again")
    for sequence in range(2, 7):
        ledger.round(sequence)
    check(fleet, ledger)
    left = parent.children(recursive=True)
    fleet.stop()
    assert fleet.exit_status() == 0
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in left)
    assert fleet.log().count("event=stopped") == 2, "each ends in order"


def test_database_that_is_away_at_the_start_ends_no_shard(fleet, postgresql) -> None:
    postgresql.stop()
    try:
        fleet.start("--shards")
        until(lambda: fleet.log().count("event=journal_unavailable") >= 2, "both shards say so")
        assert fleet.exit_status() is None
    finally:
        postgresql.start()
    until(lambda: fleet.log().count("event=broker_connected") == 2, "both shards serve")


def test_parent_that_is_killed_leaves_no_shard_behind(fleet) -> None:
    fleet.start("--shards")
    until(lambda: fleet.log().count("event=broker_connected") == 2, "both shards serve")
    children = psutil.Process(fleet.pid).children(recursive=True)
    fleet.kill()
    until(lambda: not any(child.is_running() for child in children), "they end with it")


@pytest.mark.parametrize(
    ("arguments", "changed", "said"),
    [
        (["--shard", "2"], {}, "--shard '2' is none of the shards ['0', '1']; name one of them"),
        (["--shards", "3"], {}, 'names 2; devices must know them all: let it say shards = ["0", "1", "2"]'),
        (["--shard", "Nord!"], {}, "--shard"),
        (["--shards", "--metrics-port", "9464"], {}, "--metrics-port is of one shard"),
        (["--shard", "1"], {"postgresql": None}, "2 shards share no SQLite file"),
        (["--shards"], {"postgresql": None}, "2 shards share no SQLite file"),
        (["--shards"], {"bundle = ": "bundle = '/nowhere' #"}, "/nowhere"),
    ],
)
def test_shards_that_can_not_be_served_are_refused_in_words(fleet, arguments, changed, said) -> None:
    text = fleet.configuration.read_text()
    for old, new in changed.items():
        line = next(each for each in text.splitlines() if old in each)
        text = text.replace(line, 'database = "coordinator.db"' if new is None else line.replace(old, new))
    fleet.configuration.write_text(text)
    command = [sys.executable, "-m", "broker_coordinator.cli", "run", "--config", fleet.configuration, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment())
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
