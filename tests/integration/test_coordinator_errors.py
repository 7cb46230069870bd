"""What an operator sees of a coordinator.toml whose broker can't be reached like that: one line, and exit status 2."""

from pathlib import Path

import pytest

from broker_coordinator.cli import main

CONFIGURATION = 'fleet = "home"\nkey_file = "coordinator.key"\ndatabase = "coordinator.db"\n[broker]\n'


@pytest.mark.parametrize(
    ("broker", "named"),
    [
        ('host = ""', "broker.host"),
        ('host = "broker..example"', "broker.host"),
        (f'host = "{"a" * 64}"', "broker.host"),
        ('host = "localhost"\ntls = { authority = "none.pem" }', "none.pem"),
        ('host = "localhost"\nusername = "us"\npassword_file = "none"', "broker.password_file"),
    ],
)
def test_broker_that_can_not_be_is_one_line_and_exit_status_2(tmp_path: Path, capsys, broker, named) -> None:
    assert main(["keygen", str(tmp_path / "coordinator.key")]) == 0
    (tmp_path / "coordinator.toml").write_text(CONFIGURATION + broker)
    capsys.readouterr()
    assert main(["run", "--config", str(tmp_path / "coordinator.toml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
