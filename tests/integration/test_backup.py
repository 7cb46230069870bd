"""`backup` and `restore`: all of a coordinator in one file, put back whole or not at all, and nothing counts twice."""

import hashlib
import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import URL, inspect, update

from broker_coordinator.admission.fleet_view import DeviceState
from broker_coordinator.admission.invited import InvitationState, Invited
from broker_coordinator.cli import main
from broker_coordinator.commands import backup
from broker_coordinator.commands.backup_file import CONTENTS, DATABASE, MAX_SMALL_BYTES
from broker_coordinator.commands.verify import verify_versions
from broker_coordinator.storage.cluster_registry import ClusterRegistry
from broker_coordinator.storage.database import Database, writing
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.helper_registry import HelperRegistry
from broker_coordinator.storage.invitation_registry import InvitationRegistry
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.lease import VERSIONS, Lease
from broker_coordinator.storage.query_registry import QueryRegistry
from broker_coordinator.storage.restores import last_restore
from broker_coordinator.storage.schema import schema_number
from broker_coordinator.storage.task_registry import TaskRegistry
from broker_coordinator.storage.variety_registry import VarietyRegistry
from fleet_protocol.errors import Reason
from fleet_protocol.keys import SigningKey, write_signing_key
from fleet_protocol.kinds import Outcome
from tests.support.bench import KEY, Bench
from tests.support.bundles import TASK
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET

NOW = 1_000_000_000.0
TEMPERS = ("tempers_since", "tempers_until", "tempers_not_until")
"""Columns of schema 24."""
TOKENS = [SigningKey(bytes([number]) * 32) for number in (1, 2)]


class Place:
    """A coordinator's folders, as `setup --folder` makes them, with a database of either kind."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder, self.database = folder, database
        self.configuration = folder / "broker-coordinator" / "coordinator.toml"
        self.key = self.configuration.with_name("coordinator.key")
        self.backup = folder.parent / "backup.tar"
        self.configuration.parent.mkdir(parents=True)
        (folder / "edgeflock-authority").mkdir()
        (folder / "edgeflock-authority" / "ca.crt").write_text("authority")
        self.write_configuration(FLEET)
        self.key.touch(mode=0o600)
        self.key.write_text(write_signing_key(KEY))

    def write_configuration(self, fleet: str) -> None:
        named = self.database.render_as_string() if isinstance(self.database, URL) else str(self.database)
        text = f'fleet = "{fleet}"\nkey_file = "coordinator.key"\ndatabase = "{named}"\n[broker]\nhost = "localhost"\n'
        self.configuration.write_text(text)

    def run(self, verb: str, *options: str) -> int:
        return main([verb, str(self.backup), "--folder", str(self.folder), *options])


@pytest.fixture
def place(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Place:
    if isinstance(database, URL):
        monkeypatch.setenv("PGPASSWORD", str(database.password or ""))
    return Place(tmp_path / "server", database)


@pytest.fixture
def bench(place: Place, bundle) -> Bench:
    return Bench(place.database, bundle)


def states(bench: Bench) -> dict[str, DeviceState]:
    return {each.name: each.state for each in DeviceRegistry(bench.journal.engine).devices()}


def test_restored_coordinator_is_followed_and_takes_nothing_twice(place: Place, bench: Bench, bundle, capsys) -> None:
    device, late = SigningDevice("kitchen-pi"), SigningDevice("attic-pi")
    bench.handle(device, device.enrolment(), *(device.update(number) for number in range(1, 4)))
    bench.make_versions()
    invitations = InvitationRegistry(bench.journal.engine)
    invitations.add(Invited("shed-pi", TOKENS[0].verify_key, 2**33), NOW)
    assert place.run("backup") == 0, "while it runs"
    assert place.backup.stat().st_mode & 0o077 == 0
    lost = [device.update(number, base_version=1) for number in range(4, 7)]
    bench.handle(device, *lost)
    bench.handle(late, late.enrolment())
    bench.make_versions()
    assert bench.journal.newest_number(TASK) == 2
    DeviceRegistry(bench.journal.engine).revoke("kitchen-pi")
    bench.journal.close()

    assert place.run("restore") == 2
    assert "run this again with --replace" in capsys.readouterr().err
    assert place.run("restore", "--replace") == 0
    said = capsys.readouterr().out
    assert "revoked again, as the database before had them revoked: kitchen-pi" in said
    assert "the invitations of shed-pi" in said

    bench = Bench(place.database, bundle)
    assert states(bench) == {"kitchen-pi": DeviceState.REVOKED}
    (shed,) = InvitationRegistry(bench.journal.engine).invitations(NOW)
    assert shed.state is InvitationState.WITHDRAWN
    task = TaskRegistry(bench.journal.engine).task(TASK)
    assert (task.generation, bench.journal.newest_number(TASK)) == (1, 1)
    assert verify_versions(bench.journal, TASK).difference is None
    DeviceRegistry(bench.journal.engine).approve("kitchen-pi", device.key.verify_key)
    bench.said()
    bench.handle(device, *lost)
    assert {receipt.reason for receipt in bench.receipts()} == {Reason.OLD_GENERATION}, "a replay counts nothing"
    bench.handle(device, device.update(7, base_version=1, generation=1, life=8))
    assert bench.receipts()[-1].outcome is Outcome.ACCEPTED
    main(["--config", str(place.configuration), "tasks", "show", TASK, "--json"])
    assert "this database was put back to" in json.loads(capsys.readouterr().out)["advice"][0]


def test_a_backup_that_is_restored_again_is_followed_again(place: Place, bench: Bench) -> None:
    bench.journal.close()
    assert place.run("backup") == 0
    for generation in (1, 2, 3):  # devices may know versions of the one before, and the broker may have lost them
        assert place.run("restore", "--replace") == 0
        with Journal.open(place.database) as journal:
            assert TaskRegistry(journal.engine).task(TASK).generation == generation


def test_a_backup_of_either_kind_of_database_goes_into_one_of_sqlite(
    place: Place, bench: Bench, bundle, tmp_path: Path
) -> None:
    device = SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment(), *(device.update(number) for number in range(1, 4)))
    bench.make_versions()
    bench.journal.close()
    assert place.run("backup") == 0
    other = Place(tmp_path / "other", tmp_path / "other.db")
    assert other.run("restore") == 0
    with Journal.open(other.database) as journal:
        assert journal.newest_number(TASK) == 1
        assert verify_versions(journal, TASK).difference is None


def test_moved_coordinator_goes_on_as_if_nothing_had_happened(place: Place, bench: Bench, bundle, tmp_path) -> None:
    device = SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment(), device.update(1))
    InvitationRegistry(bench.journal.engine).add(Invited("shed-pi", TOKENS[0].verify_key, 2**33), NOW)
    bench.journal.close()
    assert place.run("backup") == 0
    other = tmp_path / "other"
    arguments = [str(place.backup), "--folder", str(other)]
    if isinstance(place.database, Path):
        place.database.rename(tmp_path / "gone.db")
    assert main(["restore", *arguments, "--moving", *([] if isinstance(place.database, Path) else ["--replace"])]) == 0
    assert (other / "broker-coordinator" / "coordinator.key").stat().st_mode & 0o777 == 0o600
    assert (other / "edgeflock-authority" / "ca.crt").read_text() == "authority"
    moved = Bench(place.database, bundle)
    assert last_restore(moved.journal.engine) is None
    (shed,) = InvitationRegistry(moved.journal.engine).invitations(NOW)
    assert shed.state is InvitationState.OPEN
    moved.handle(device, device.update(1), device.update(2))
    assert [receipt.outcome for receipt in moved.receipts()] == [Outcome.ACCEPTED] * 2


def test_nothing_is_restored_under_a_running_coordinator(place: Place, bench: Bench, capsys) -> None:
    assert place.run("backup") == 0
    lease = Lease(bench.journal.engine, [VERSIONS])
    assert lease.take() is None
    assert place.run("restore", "--replace") == 2
    assert "stop that coordinator first" in capsys.readouterr().err
    lease.release()


@pytest.fixture
def backed_up(tmp_path: Path, bundle) -> Place:
    place = Place(tmp_path / "server", tmp_path / "coordinator.db")
    Bench(place.database, bundle).journal.close()
    assert place.run("backup") == 0
    return place


def test_what_is_there_stays_and_another_coordinators_is_not_mixed_with_it(backed_up: Place, capsys) -> None:
    place = backed_up
    place.key.write_text(write_signing_key(SigningKey.generate()))
    assert place.run("restore", "--replace") == 2
    assert f"{place.key} is another coordinator's" in capsys.readouterr().err
    place.key.write_text(write_signing_key(KEY))
    assert main(["--config", str(place.configuration), "rotate-key"]) == 0
    rotated = place.key.read_text()
    capsys.readouterr()
    assert place.run("restore", "--replace") == 0
    assert place.key.read_text() == rotated, "devices have followed it since the backup"
    assert f"is there, and differs: it stays: {place.key}" in capsys.readouterr().out
    authority = place.folder / "edgeflock-authority" / "ca.crt"
    authority.write_text("another")
    assert place.run("restore", "--replace") == 2
    assert "is another authority's" in capsys.readouterr().err
    authority.unlink()
    place.write_configuration("cabin")
    assert place.run("restore", "--replace") == 2
    assert f"is of fleet 'cabin', the backup of {FLEET!r}" in capsys.readouterr().err
    assert not authority.exists(), "nothing was written before all was looked at"


def test_a_backup_is_not_overwritten_and_leaves_nothing_half_done(backed_up: Place, capsys) -> None:
    before = backed_up.backup.read_bytes()
    assert backed_up.run("backup") == 2
    assert "never overwritten" in capsys.readouterr().err
    assert backed_up.backup.read_bytes() == before
    missing = backed_up.folder / "nowhere" / "backup.tar"
    assert main(["backup", str(missing), "--folder", str(backed_up.folder)]) == 2
    assert "No such file or directory" in capsys.readouterr().err
    assert [path.name for path in backed_up.backup.parent.iterdir() if path.name.startswith(".")] == []


def test_a_backup_that_was_cut_off_is_refused_and_changes_nothing(backed_up: Place, capsys) -> None:
    whole, before = backed_up.backup.read_bytes(), backed_up.database.read_bytes()
    for kept in (0, 100, 512, 5_000, -20_000, -11_000):
        backed_up.backup.write_bytes(whole[:kept])
        assert backed_up.run("restore", "--replace") == 2, kept
        assert str(backed_up.backup) in capsys.readouterr().err
        assert backed_up.database.read_bytes() == before


def rewritten(place: Place, **changed: object) -> None:
    """The same backup, with other contents and other members."""
    with tarfile.open(place.backup) as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive.getmembers()}
    told = json.loads(members[CONTENTS])
    told |= {name: value for name, value in changed.items() if name in told}
    members[CONTENTS] = msgspec.json.encode(told)
    members |= changed.get("members", {})
    place.backup.unlink()
    source = place.backup.with_name("member")
    with tarfile.open(place.backup, "w") as archive:
        for name, content in members.items():
            source.write_bytes(content)
            archive.add(source, name)


def test_a_forged_backup_writes_nowhere_else(backed_up: Place, capsys) -> None:
    for name in ("../../evil", "/etc/cron.d/evil", "configuration/../evil", "configuration/.ssh", "x"):
        rewritten(backed_up, hashes={name: "0" * 64}, members={name: b"evil"})
        assert backed_up.run("restore", "--replace") == 2, name
        assert "it names files that no backup has" in capsys.readouterr().err


def test_a_backup_of_a_newer_release_or_with_an_altered_member_says_so(backed_up: Place, capsys) -> None:
    rewritten(backed_up, members={"configuration/coordinator.key": b"0" * 64})
    assert backed_up.run("restore", "--replace") == 2
    assert "configuration/coordinator.key in it is cut off or altered" in capsys.readouterr().err
    rewritten(backed_up, members={"configuration/coordinator.key": b"0" * (MAX_SMALL_BYTES + 1)})
    assert backed_up.run("restore", "--replace") == 2
    assert "is cut off or altered" in capsys.readouterr().err
    rewritten(backed_up, format=99)
    assert backed_up.run("restore", "--replace") == 2
    assert "update edgeflock" in capsys.readouterr().err
    rewritten(backed_up, format=1, made=2**62)
    assert backed_up.run("restore", "--replace") == 2
    assert "can't be read" in capsys.readouterr().err


def written_sparse(name: str, size: int) -> bytes:
    """The header of a member that is `size` zeros and takes no room; old GNU form, which tarfile reads."""
    member = tarfile.TarInfo(name)
    member.type, member.size = tarfile.GNUTYPE_SPARSE, 0
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[386:398] = header[398:410] = b"0" * 11 + b"\0"
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize("target", [DATABASE, "configuration/coordinator.key", "/etc/passwd"])
def test_a_backup_with_links_or_holes_is_refused_before_anything_is_written(
    backed_up: Place, capsys, target: str
) -> None:
    linked = tarfile.TarInfo(DATABASE)
    linked.type, linked.linkname = tarfile.SYMTYPE, target
    before = [linked.tobuf(tarfile.PAX_FORMAT), written_sparse(DATABASE, 2**40)]
    with tarfile.open(backed_up.backup) as archive:
        at = archive.getmember(DATABASE).offset
    whole = backed_up.backup.read_bytes()
    backed_up.key.unlink()
    for header in before:
        backed_up.backup.write_bytes(whole[:at] + header + bytes(10_240))
        assert backed_up.run("restore", "--replace") == 2
        assert f"{DATABASE} in it is no plain file" in capsys.readouterr().err
        assert not backed_up.key.exists()


def test_a_damaged_database_or_key_in_a_backup_is_found_before_anything_is_written(backed_up: Place, capsys) -> None:
    whole = backed_up.backup.read_bytes()
    backed_up.key.unlink()
    backed_up.backup.write_bytes(whole[:-12_000] + b"x" + whole[-11_999:])
    assert backed_up.run("restore", "--replace") == 2
    assert "the database in it is cut off or altered" in capsys.readouterr().err
    garbage = b"garbage"
    backed_up.backup.write_bytes(whole)
    hashes = {"configuration/coordinator.key": hashlib.sha256(garbage).hexdigest()}
    rewritten(backed_up, hashes=told_hashes(backed_up) | hashes, members={"configuration/coordinator.key": garbage})
    assert backed_up.run("restore", "--replace") == 2
    assert "the backup's key" in capsys.readouterr().err
    backed_up.backup.write_bytes(whole.replace(b'"edgeflock":"', b'"edgeflock":"\xff', 1))
    assert backed_up.run("restore", "--replace") == 2
    assert "can't be read" in capsys.readouterr().err
    assert not backed_up.key.exists()


def told_hashes(place: Place) -> dict[str, str]:
    with tarfile.open(place.backup) as archive:
        return json.loads(archive.extractfile(CONTENTS).read())["hashes"]


def test_all_that_a_backup_takes_a_restore_takes(backed_up: Place, capsys, monkeypatch) -> None:
    authority = backed_up.folder / "edgeflock-authority"
    for number in range(150):  # as of devices with certificates of their own
        (authority / f"pi-{number}.key").write_text(f"{number}")
    backed_up.backup.unlink()
    assert backed_up.run("backup") == 0
    (authority / "pi-149.key").unlink()
    assert backed_up.run("restore", "--replace") == 0
    assert (authority / "pi-149.key").read_text() == "149"
    backed_up.backup.unlink()
    monkeypatch.setattr(backup, "MAX_SMALL_FILES", 100)
    assert backed_up.run("backup") == 2
    assert "153 files belong into a backup, at most 100" in capsys.readouterr().err
    assert not backed_up.backup.exists()


def test_a_backup_that_is_tried_in_another_folder_leaves_the_servers_database(backed_up: Place, capsys) -> None:
    before = backed_up.database.read_bytes()
    tried = backed_up.folder.with_name("tried")
    restore = ["restore", str(backed_up.backup), "--folder", str(tried), "--replace"]
    assert main(restore) == 2
    assert f"names the database {backed_up.database}" in capsys.readouterr().err
    assert not tried.exists()
    configuration = tried / "broker-coordinator" / "coordinator.toml"
    configuration.parent.mkdir(parents=True)
    text = backed_up.configuration.read_text()
    configuration.write_text(text.replace(str(backed_up.database), str(tried / "coordinator.db")))
    assert main(restore) == 0
    assert f"database {tried / 'coordinator.db'} is now that of" in capsys.readouterr().out
    assert backed_up.database.read_bytes() == before


def test_what_is_no_backup_at_all_is_named(backed_up: Place, capsys, tmp_path: Path) -> None:
    for name, said in (("gone.tar", "No such file"), ("folder", "Is a directory"), ("notes.txt", "no backup")):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "notes.txt").write_text("shopping: milk, a Raspberry Pi\n" * 100)
        assert main(["restore", str(tmp_path / name), "--folder", str(backed_up.folder)]) == 2
        assert said in capsys.readouterr().err


def test_a_database_of_a_newer_release_stays_as_it_is(backed_up: Place, capsys) -> None:
    with closing(sqlite3.connect(backed_up.database)) as connection:
        connection.execute("UPDATE schema_number SET number = 99")
        connection.commit()
    for command in (["devices", "list"], ["backup", str(backed_up.folder / "new.tar")]):
        assert main(["--config", str(backed_up.configuration), *command, *_where(command, backed_up)]) == 2
        assert "a newer edgeflock has made them; update this one" in capsys.readouterr().err


def _where(command: list[str], place: Place) -> list[str]:
    return ["--folder", str(place.folder)] if command[0] == "backup" else []


def test_a_database_of_the_release_before_is_brought_up_to_date(place: Place, bench: Bench, capsys) -> None:
    with writing(bench.journal.engine) as connection:
        connection.exec_driver_sql("DROP TABLE helpers")
        connection.exec_driver_sql("DROP TABLE clusters")
        connection.exec_driver_sql("DROP TABLE findings")
        connection.exec_driver_sql("DROP TABLE pulls")
        connection.exec_driver_sql("DROP TABLE pulls_read")
        connection.exec_driver_sql("DROP TABLE rosters")
        connection.exec_driver_sql("DROP TABLE varieties")
        connection.exec_driver_sql("DROP TABLE cohorts")
        connection.exec_driver_sql("DROP TABLE version_noise")
        connection.exec_driver_sql("DROP TABLE queries")
        connection.exec_driver_sql("DROP TABLE restores")
        connection.exec_driver_sql("ALTER TABLE invitations DROP COLUMN coordinator_key")
        connection.exec_driver_sql("ALTER TABLE departures DROP COLUMN since")
        connection.exec_driver_sql("DROP INDEX held_payloads")
        connection.exec_driver_sql("ALTER TABLE payloads DROP COLUMN suspicion")
        for column in ("given", "clip", *TEMPERS):
            connection.exec_driver_sql(f"ALTER TABLE versions DROP COLUMN {column}")
        for column in ("wanted_version", "solved_first", "solved_last"):
            connection.exec_driver_sql(f"ALTER TABLE tasks DROP COLUMN {column}")
        connection.execute(update(schema_number).values(number=9))
    bench.journal.close()
    assert place.run("backup") == 2
    assert "start this edgeflock's coordinator once" in capsys.readouterr().err
    with Journal.open(place.database) as journal:
        InvitationRegistry(journal.engine).add(Invited("shed-pi", TOKENS[1].verify_key, 2**33), NOW)
        HelperRegistry(journal.engine).allow("gateway")
        assert last_restore(journal.engine) is None
        assert QueryRegistry(journal.engine).all() == []
        assert ClusterRegistry(journal.engine).assigned() == {}
        assert VarietyRegistry(journal.engine).last("digits") is None
        assert [task.wanted_version for task in TaskRegistry(journal.engine).tasks()] == [None]
    assert place.run("backup") == 0


def test_what_a_backup_leaves_out_is_said(backed_up: Place, capsys, tmp_path: Path) -> None:
    with backed_up.configuration.open("a") as file:
        file.write(f'[[evaluations]]\ntask = "digits"\nfile = "{tmp_path}/held-out.npz"\n')
    odd = backed_up.folder / "edgeflock-authority" / "ca (old).crt"
    odd.write_text("odd")
    backed_up.backup.unlink()
    capsys.readouterr()
    assert backed_up.run("backup") == 0
    said = capsys.readouterr().out
    assert f"not in it: {tmp_path}/held-out.npz" in said
    assert f"not in it: {odd}" in said
    assert backed_up.run("restore", "--replace") == 0
    other = backed_up.configuration.with_name("another.toml")
    assert main(["--config", str(other), "restore", str(backed_up.backup)]) == 2
    assert "name the file as it was then" in capsys.readouterr().err


def test_a_database_with_cohorts_of_before_gets_when_they_were_opened(place: Place, bench: Bench) -> None:
    with writing(bench.journal.engine) as connection:
        connection.exec_driver_sql("DROP TABLE version_noise")
        connection.exec_driver_sql("DROP TABLE pulls")
        connection.exec_driver_sql("DROP TABLE pulls_read")
        connection.exec_driver_sql("DROP TABLE rosters")
        connection.exec_driver_sql("ALTER TABLE cohorts DROP COLUMN opened")
        connection.exec_driver_sql("ALTER TABLE departures DROP COLUMN since")
        for column in ("clip", *TEMPERS):
            connection.exec_driver_sql(f"ALTER TABLE versions DROP COLUMN {column}")
        connection.exec_driver_sql("DROP INDEX held_payloads")
        connection.exec_driver_sql("ALTER TABLE payloads DROP COLUMN suspicion")
        connection.execute(update(schema_number).values(number=17))
    bench.journal.close()
    with Journal.open(place.database) as journal:
        tables = inspect(journal.engine)
        assert {"version_noise", "pulls", "pulls_read", "rosters"} <= set(tables.get_table_names())
        assert "opened" in {column["name"] for column in tables.get_columns("cohorts")}
        assert {"clip", *TEMPERS} <= {column["name"] for column in tables.get_columns("versions")}
        assert "since" in {column["name"] for column in tables.get_columns("departures")}
        assert "suspicion" in {column["name"] for column in tables.get_columns("payloads")}
        assert "held_payloads" in {index["name"] for index in tables.get_indexes("payloads")}
