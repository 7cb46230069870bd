"""`broker-coordinator setup --host`: all or nothing, again and again, and what is in its way in plain words."""

import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from broker_coordinator.cli import main
from broker_coordinator.commands import broker_setup
from broker_coordinator.configuration import load_configuration
from fleet_host import wall_clock
from fleet_host.services import shipped_file
from tests.support.broker import free_port


def setup(folder: Path, *options: str, host: str = "localhost", port: int | None = None) -> int:
    return main(["setup", "--host", host, "--port", str(port or free_port()), "--folder", str(folder), *options])


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path: Path, capsys) -> None:
    assert setup(tmp_path / "server", "--dry-run") == 0
    assert "would do: make the broker's certificate for localhost" in capsys.readouterr().out
    assert not (tmp_path / "server").exists()


def test_setup_run_again_changes_nothing(tmp_path: Path, capsys) -> None:
    port = free_port()
    assert setup(tmp_path, port=port) == 0
    first = contents(tmp_path)
    assert load_configuration(tmp_path / "broker-coordinator" / "coordinator.toml").broker_accounts is not None
    capsys.readouterr()
    assert setup(tmp_path, port=port) == 0
    assert contents(tmp_path) == first
    assert "\ndo: " not in capsys.readouterr().out


def test_another_host_gets_another_certificate_of_the_same_authority(tmp_path: Path) -> None:
    port = free_port()
    assert setup(tmp_path, port=port) == 0
    authority = (tmp_path / "edgeflock-authority" / "ca.crt").read_bytes()
    shown = tmp_path / "mosquitto-edgeflock" / "broker.crt"
    before = shown.read_bytes()
    assert setup(tmp_path, host="127.0.0.1", port=port) == 0
    assert (tmp_path / "edgeflock-authority" / "ca.crt").read_bytes() == authority
    assert shown.read_bytes() != before
    assert authority in shown.read_bytes()


def test_setup_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch) -> None:
    port = free_port()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "mosquitto.conf")

    with monkeypatch.context() as patched:
        patched.setattr(broker_setup.BrokerPlan, "_configure", full)
        assert setup(tmp_path, port=port) == 2
    assert setup(tmp_path, port=port) == 0
    assert (tmp_path / "mosquitto-edgeflock" / "mosquitto.conf").exists()


def test_what_is_in_the_way_is_said_before_anything_is_written(tmp_path: Path, capsys) -> None:
    server = tmp_path / "server"
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        assert setup(server, port=port) == 2
        assert f"port {port}: Address already in use" in capsys.readouterr().err
    assert setup(server, "--certificates", str(tmp_path)) == 2
    assert f"{tmp_path}/ca.crt" in capsys.readouterr().err
    assert main(["setup", "--host", "localhost", "--broker", "localhost"]) == 2
    assert not server.exists()


def test_an_authority_that_is_kept_elsewhere_is_not_replaced_by_another(tmp_path: Path, capsys) -> None:
    port = free_port()
    assert setup(tmp_path, port=port) == 0
    authority = tmp_path / "edgeflock-authority"
    authority.rename(tmp_path / "safe")
    shown = (tmp_path / "mosquitto-edgeflock" / "broker.crt").read_bytes()
    assert setup(tmp_path, port=port) == 0
    assert (tmp_path / "mosquitto-edgeflock" / "broker.crt").read_bytes() == shown
    assert not authority.exists()
    assert setup(tmp_path, host="127.0.0.1", port=port) == 2
    assert "authority renew" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("no-such-host.invalid", "name what devices reach this server by"),
        *((host, "without scheme, port or brackets") for host in ("", "mqtts://a", "[::1]", "a b", "a" * 300)),
        *((host, "not a whole IP address") for host in ("1.2", "256.1.1.1", "2130706433", "1::2::3", "a:8883")),
        *((host, "no other machine reaches") for host in ("0.0.0.0", "::", "224.0.0.1", "ff02::1", "fe80::1%eth0")),
    ],
)
def test_a_host_that_no_device_reaches_is_refused_before_anything_is_written(
    tmp_path: Path, capsys, host, words
) -> None:
    assert setup(tmp_path / "server", host=host) == 2
    said = capsys.readouterr().err
    assert f"--host {host[:80]}: " in said
    assert words in said
    assert not (tmp_path / "server").exists()


@pytest.mark.parametrize(
    ("host", "is_said"), [("localhost", True), ("127.0.0.1", True), ("::1", True), ("192.0.2.7", False)]
)
def test_who_names_this_machine_alone_is_told_that_no_device_elsewhere_reaches_it(
    tmp_path: Path, capsys, host, is_said
) -> None:
    assert setup(tmp_path, "--dry-run", host=host) == 0
    assert (f"no device elsewhere reaches {host}" in capsys.readouterr().out) == is_said


def test_a_server_without_the_time_makes_no_certificate_and_no_invitation(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(wall_clock, "local_time", lambda: None)
    assert setup(tmp_path / "server") == 2
    assert "a certificate counts from the day on which it is made; let the machine take" in capsys.readouterr().err
    assert not (tmp_path / "server").exists()
    with monkeypatch.context() as knows:
        knows.setattr(wall_clock, "local_time", time.localtime)
        assert setup(tmp_path) == 0
    invite = ["--config", str(tmp_path / "broker-coordinator/coordinator.toml"), "devices", "invite", "kitchen"]
    assert main(invite) == 2
    assert "an invitation counts until a date; let the machine take" in capsys.readouterr().err


def test_certificates_that_a_full_disk_cut_off_are_made_anew(tmp_path: Path, capsys) -> None:
    """The shell may write so many blocks of 512 bytes to a file, 0 to none; openssl inherits that."""
    script = shipped_file("systemd/mosquitto/certificates.sh")
    folder = tmp_path / "edgeflock-authority"
    for what in (("authority", folder), ("broker", folder, "localhost")):
        cut_off = subprocess.run(
            ["sh", "-c", 'ulimit -f 0; trap "" XFSZ; exec sh "$@"', "sh", script, *what],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert cut_off.returncode
        assert cut_off.stderr
        assert {path.name for path in folder.iterdir()} <= {"ca.crt", "ca.key", "ca.srl"}
        if what[0] == "authority":
            assert list(folder.iterdir()) == []
            subprocess.run(["sh", script, *what], check=True)
    assert setup(tmp_path) == 0


def test_what_was_cut_off_before_its_last_file_is_made_anew(tmp_path: Path) -> None:
    script, authority = shipped_file("systemd/mosquitto/certificates.sh"), tmp_path / "edgeflock-authority"
    authority.mkdir()
    (authority / "ca.crt").write_text("of a key that was never written\n")
    subprocess.run(["sh", script, "authority", authority], check=True)
    port = free_port()
    assert setup(tmp_path, port=port) == 0
    (authority / "broker.crt").unlink()
    assert setup(tmp_path, port=port) == 0
    key = ssl.create_default_context(cafile=authority / "ca.crt")
    key.load_cert_chain(authority / "broker.crt", authority / "broker.key")  # refused where they are not of one another


def test_a_setup_of_another_kind_stays_as_it_is(tmp_path: Path, capsys) -> None:
    file = tmp_path / "broker-coordinator" / "coordinator.toml"
    assert main(["--config", str(file), "setup", "--broker", "broker.example"]) == 0
    assert setup(tmp_path) == 2
    assert "for a broker that somebody else runs" in capsys.readouterr().err
    file.unlink()
    (tmp_path / "mosquitto-edgeflock").mkdir()
    (tmp_path / "mosquitto-edgeflock" / "mosquitto.conf").write_text("listener 8883\nacl_file acl\n")
    assert setup(tmp_path) == 2
    assert "is of another setup" in capsys.readouterr().err
    assert not (tmp_path / "edgeflock-authority").exists()


def test_a_broker_whose_password_is_lost_is_not_given_another_one(tmp_path: Path, capsys) -> None:
    port = free_port()
    assert setup(tmp_path, port=port) == 0
    (tmp_path / "broker-coordinator" / "broker.password").unlink()
    assert setup(tmp_path, port=port) == 2
    assert "the coordinator then makes every account again" in capsys.readouterr().err
