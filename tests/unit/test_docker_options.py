"""`edgeflock simulate` has two kinds of fleet: options of one are refused for the other before anything is started."""

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleet_protocol.errors import ConfigurationError
from workbench.cli import app
from workbench.docker_fleet.show import usable_port

FLEET = '[[devices]]\nprofile = "pi-4"\n'


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--docker"], "--docker: --fleet FILE missing"),
        (["--docker", "--fleet", "fleet.toml", "--hours", "3"], "--hours is for a fleet in virtual time"),
        (["--docker", "--fleet", "fleet.toml", "--devices", "100"], "--devices is for a fleet in virtual time"),
        (["--docker", "--fleet", "fleet.toml", "--json"], "--json is for a fleet in virtual time"),
        (["--docker", "--fleet", "fleet.toml", "--buffer-size", "2"], "--buffer-size is for a fleet in virtual time"),
        (["--keep"], "--keep is for a fleet in containers: add --docker"),
        (["--fleet", "fleet.toml"], "--fleet is for a fleet in containers"),
        (["--fault", "pause pi-4 after 3 s"], "--fault is for a fleet in containers"),
        (["--docker", "--fleet", "other.toml"], "other.toml: No such file or directory; write one"),
        (["--docker", "--fleet", "fleet.toml", "--fault", "melt pi-4 after 3 s"], "no fault 'melt'"),
    ],
)
def test_option_that_does_not_fit_is_named(tmp_path: Path, monkeypatch, options: list[str], words: str) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["simulate", *options])
    assert isinstance(result.exception, ConfigurationError)
    assert words in str(result.exception)


def test_machine_without_docker_is_told_what_to_install(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET)
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(app, ["simulate", "--docker", "--fleet", str(tmp_path / "fleet.toml")])
    assert isinstance(result.exception, ConfigurationError)
    assert "docker is not installed; on Debian and its like: sudo apt-get install docker.io" in str(result.exception)


def test_port_that_another_program_has_is_refused_with_the_remedy() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"broker_port = {taken}: Address already in use; choose another"):
            usable_port(taken)
    assert usable_port(taken) == taken
    assert usable_port(None) > 0
