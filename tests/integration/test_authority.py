"""The broker's authority for certificates: renewed, switched and dropped, each in its turn, as often as it takes."""

import json
import os
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from broker_coordinator.cli import main
from broker_coordinator.commands import broker_setup, certificates
from broker_coordinator.commands.authority_sets import authority_sets, replace_authorities
from broker_coordinator.mqtt.certificate_watch import CertificateWatch
from broker_coordinator.storage.journal import Journal
from edge_agent.shell.connection.pinned_authorities import PinnedAuthorities, pinned_authorities
from fleet_host import wall_clock
from fleet_host.broker_settings import BrokerSettings, TlsSettings
from fleet_host.certificates import read_authorities, write_authorities
from fleet_protocol.authorities import authorities_id
from fleet_protocol.errors import ProtocolError
from tests.support.broker import free_port


class Server:
    """What `setup --host localhost` makes, and its `authority` verbs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.trusted = folder / "broker-coordinator" / "ca.crt"
        self.authority = folder / "edgeflock-authority"
        self.shown = folder / "mosquitto-edgeflock" / "broker.crt"
        assert self.setup() == 0

    def setup(self) -> int:
        return main(["setup", "--host", "localhost", "--port", str(self.port), "--folder", str(self.folder)])

    def run(self, verb: str) -> int:
        return main(["authority", verb, "--folder", str(self.folder)])


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path / "server")


def test_three_steps_lead_from_one_authority_to_the_next(server: Server, capsys) -> None:
    (first,) = read_authorities(server.trusted)
    certificate = server.shown.read_bytes()
    for early, said in (("switch", "first: authority renew"), ("drop", "there is nothing to drop")):
        assert server.run(early) == 2
        assert said in capsys.readouterr().err
    assert authority_sets(server.trusted) == []
    assert server.run("renew") == 0
    (_, second) = both = read_authorities(server.trusted)
    assert (both[0], server.shown.read_bytes()) == (first, certificate), "the broker still shows the first"
    assert server.run("renew") == 0, "again, if it was interrupted"
    assert read_authorities(server.trusted) == both
    assert server.run("drop") == 2
    assert "first: authority switch" in capsys.readouterr().err
    assert server.run("switch") == 0
    assert server.shown.read_bytes() != certificate
    assert read_authorities(server.authority / "ca.crt") == [second]
    assert read_authorities(server.trusted) == [second, first], "an invitation names the second from now on"
    assert server.setup() == 0, "as after any update"
    assert read_authorities(server.authority / "ca.crt") == [second]
    assert server.run("drop") == 0
    assert authority_sets(server.trusted) == [[first], [second, first], [second]]
    capsys.readouterr()
    main(["authority", "show", "--folder", str(server.folder), "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert (len(shown["believed"]), shown["next"], shown["broker_days_left"] > 3_000) == (1, False, True)


def test_a_backup_from_before_a_change_of_authorities_leaves_the_new_one(
    server: Server, tmp_path: Path, capsys
) -> None:
    Journal.open(server.folder / "broker-coordinator" / "coordinator.db").close()
    backup = [str(tmp_path / "backup.tar"), "--folder", str(server.folder)]
    assert main(["backup", *backup]) == 0
    for verb in ("renew", "switch", "drop"):
        assert server.run(verb) == 0
    (server.authority / "ca.key").unlink()
    capsys.readouterr()
    assert main(["restore", *backup, "--replace"]) == 0
    assert f"is there, and follows that of the backup: {server.authority}" in capsys.readouterr().out
    assert not (server.authority / "ca.key").exists(), "that of the backup belongs to another certificate"
    assert len(authority_sets(server.trusted)) == 3


def test_a_backup_between_two_steps_has_the_next_authority_too(server: Server, tmp_path: Path) -> None:
    Journal.open(server.folder / "broker-coordinator" / "coordinator.db").close()
    assert server.run("renew") == 0
    (_, second) = read_authorities(server.trusted)
    backup = [str(tmp_path / "backup.tar"), "--folder", str(server.folder)]
    assert main(["backup", *backup]) == 0
    shutil.rmtree(server.authority)
    assert main(["restore", *backup, "--replace"]) == 0
    assert (server.authority / "next" / "ca.key").stat().st_mode & 0o777 == 0o600
    assert server.run("switch") == 0
    assert read_authorities(server.authority / "ca.crt") == [second]
    assert server.run("drop") == 0


def test_no_device_is_left_behind_by_steps_out_of_turn(server: Server, capsys) -> None:
    assert server.run("renew") == 0
    (first, _) = read_authorities(server.trusted)
    shutil.rmtree(server.authority / "next")
    assert server.run("drop") == 2
    assert "never go back; first: authority renew" in capsys.readouterr().err
    assert server.run("renew") == 0
    assert server.run("switch") == 0
    assert server.run("renew") == 2, "who was invited since then believes the present one alone"
    assert "first: authority drop" in capsys.readouterr().err
    assert server.run("drop") == 0
    shutil.rmtree(server.authority.with_name("edgeflock-authority.before"))
    for verb in ("renew", "switch", "drop"):
        assert server.run(verb) == 0
    names = [authorities_id(each) for each in authority_sets(server.trusted)]
    assert len(names) == len(set(names)) == 6, "a device follows each set once"
    assert [len(each) for each in authority_sets(server.trusted)] == [1, 2, 3, 1, 2, 1]
    assert authority_sets(server.trusted)[0] == [first]


def test_a_set_that_is_gone_leaves_room_for_the_next(server: Server) -> None:
    for verb in ("renew", "switch"):
        assert server.run(verb) == 0
    server.trusted.with_name("ca-before-0.crt").rename(server.trusted.with_name("ca-before-1.crt"))
    assert server.run("drop") == 0
    assert server.trusted.with_name("ca-before-2.crt").exists()


def test_an_authority_that_could_not_be_written_is_made_when_it_can(server: Server, tmp_path: Path, capsys) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "openssl").write_text("#!/bin/sh\ntouch ca.key.new\necho No space left on device\nexit 1\n")
    (programs / "openssl").chmod(0o755)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        assert server.run("renew") == 2
    assert "No space left" in capsys.readouterr().err
    assert list((server.authority / "next").iterdir()) == []
    assert server.run("renew") == 0


def test_no_certificate_is_made_while_the_clock_is_wrong_and_none_is_shown_that_does_not_count(
    server: Server, monkeypatch, capsys
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(wall_clock, "local_time", lambda: None)
        assert server.run("renew") == 2
    assert "the clock shows" in capsys.readouterr().err
    assert len(read_authorities(server.trusted)) == 1
    assert server.run("renew") == 0
    now = time.time()
    for days in (-1, 3_660):
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", partial(float, now + 86_400 * days))
            assert server.run("switch") == 2
        assert "does not count at" in capsys.readouterr().err
    shutil.rmtree(server.authority / "next")
    for verb in ("renew", "switch", "drop"):
        assert server.run(verb) == 0, "what the error says to do"


def test_an_authority_whose_key_is_missing_is_not_replaced(server: Server, capsys) -> None:
    before = (server.authority / "ca.crt").read_bytes()
    (server.authority / "ca.key").unlink()
    shutil.rmtree(server.shown.parent)
    assert server.setup() == 2
    assert "ca.key: missing, and devices believe" in capsys.readouterr().err
    assert (server.authority / "ca.crt").read_bytes() == before


def test_a_switch_that_was_interrupted_goes_on(server: Server, monkeypatch, capsys) -> None:
    assert server.run("renew") == 0
    (first, second) = read_authorities(server.trusted)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "broker.crt")

    with monkeypatch.context() as patched:
        patched.setattr(broker_setup.BrokerPlan, "_install", full)
        assert server.run("switch") == 2
    assert "make room on that disk" in capsys.readouterr().err
    assert server.run("switch") == 0
    assert read_authorities(server.trusted) == [second, first]
    assert server.run("drop") == 0


def test_a_broker_that_the_present_authority_does_not_vouch_for_is_not_left_alone(server: Server, capsys) -> None:
    assert server.run("renew") == 0
    former = server.shown.read_bytes()
    assert server.run("switch") == 0
    server.shown.unlink()
    server.shown.write_bytes(former)
    assert server.run("drop") == 2
    assert "devices would refuse it" in capsys.readouterr().err


def test_setup_makes_another_certificate_before_the_first_ends(server: Server, monkeypatch, capsys) -> None:
    before = server.shown.read_bytes()
    monkeypatch.setattr(certificates, "RENEWED_DAYS", 10_000.0)
    assert server.setup() == 0
    assert server.shown.read_bytes() != before
    assert "mosquitto-edgeflock" in capsys.readouterr().out.split("now restart")[1]


def test_sets_are_kept_once_each_whenever_the_command_was_killed(server: Server) -> None:
    (first,) = read_authorities(server.trusted)
    before = server.trusted.read_bytes()
    assert server.run("renew") == 0
    (_, second) = read_authorities(server.trusted)
    server.trusted.unlink()
    server.trusted.write_bytes(before)
    assert authority_sets(server.trusted) == [[first]], "killed between the two files"
    replace_authorities(server.trusted, [first, second])
    assert authority_sets(server.trusted) == [[first], [first, second]]


def test_the_log_says_once_a_day_what_ends_before_long(server: Server, caplog) -> None:
    watch = CertificateWatch(BrokerSettings("localhost", tls=TlsSettings(server.trusted)))
    now = time.time()
    dates = subprocess.run(
        ["openssl", "x509", "-in", server.shown, "-noout", "-enddate"], capture_output=True, text=True, check=True
    )
    shown = {"notAfter": dates.stdout.strip().removeprefix("notAfter=")}
    looked = []

    def certificate() -> dict[str, str]:
        looked.append(shown)
        return shown

    watch.look(certificate, now)
    watch.look(certificate, now + 3_600)
    assert (len(looked), caplog.text) == (1, "")
    watch.look(certificate, now + 3_600 * 86_400)
    said = [record.getMessage().split(" days_left")[0] for record in caplog.records]
    assert said == ["event=certificate_ends of=broker", "event=certificate_ends of=authority"]
    watch.look(lambda: None, now + 3_700 * 86_400)
    assert len(caplog.records) == 2, "there is nothing to look at without TLS"


def make_pinned(folder: Path, server: Server) -> tuple[PinnedAuthorities, list[bytes]]:
    """What a device that has joined this server believes, and the set that follows."""
    configured = folder / "ca.crt"
    configured.write_bytes(server.trusted.read_bytes())
    assert server.run("renew") == 0
    return PinnedAuthorities(folder, configured), read_authorities(server.trusted)


def test_a_device_believes_what_followed_over_a_restart_and_never_goes_back(server: Server, tmp_path: Path) -> None:
    pinned, both = make_pinned(tmp_path, server)
    first = read_authorities(tmp_path / "ca.crt")
    pinned.follow(both)
    pinned.follow(both[1:])
    again = PinnedAuthorities(tmp_path, tmp_path / "ca.crt")
    assert (again.newest, read_authorities(again.file)) == (authorities_id(both[1:]), both[1:])
    for replayed in (both, first, both[::-1], both[1:]):
        with pytest.raises(ProtocolError, match="none come back"):
            again.follow(replayed)
    for forged in ([b"\x00" * 100], [both[0], b"none"], [*both, b"x", b"y", b"z"], [both[0] + b"\x00" * 3_000]):
        with pytest.raises(ProtocolError, match="malformed"):
            again.follow(forged)
    assert read_authorities(again.file) == both[1:]


@pytest.mark.parametrize("kept", [0, 10, 26, 300])
def test_a_damaged_file_of_authorities_is_as_none(server: Server, tmp_path: Path, caplog, kept: int) -> None:
    pinned, both = make_pinned(tmp_path, server)
    pinned.follow(both)
    pinned.file.write_bytes(pinned.file.read_bytes()[:kept])
    again = PinnedAuthorities(tmp_path, tmp_path / "ca.crt")
    assert again.file == tmp_path / "ca.crt"
    assert "event=authorities_unreadable" in caplog.text


def test_other_certificates_in_the_configuration_are_the_owners_word(server: Server, tmp_path: Path) -> None:
    pinned, both = make_pinned(tmp_path, server)
    pinned.follow(both)
    (tmp_path / "ca.crt").write_text(write_authorities(both[1:]))
    assert PinnedAuthorities(tmp_path, tmp_path / "ca.crt").file == tmp_path / "ca.crt"


def test_a_device_that_believes_the_authorities_of_the_whole_web_follows_none(server: Server, tmp_path: Path) -> None:
    bundle = tmp_path / "web.crt"
    bundle.write_text(write_authorities(read_authorities(server.trusted)) * 5)
    assert pinned_authorities(tmp_path, BrokerSettings("localhost", tls=TlsSettings(bundle))) is None
    assert pinned_authorities(tmp_path, BrokerSettings("localhost")) is None
