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


@pytest.mark.parametrize(
    ("database", "words"),
    [
        ("{folder}", "let `database` name a SQLite file of its own, or none yet"),
        ("/dev/null", "let `database` name a SQLite file of its own, or none yet"),
        ("{folder}/coordinator.key", "file is not a database; let `database` name a SQLite file of its own"),
        ("postgresql+psycopg://127.0.0.1:1/none", "compare `database` with where PostgreSQL listens"),
        ("://", "write postgresql+psycopg://..."),
    ],
)
def test_database_that_can_not_be_is_one_line_with_what_to_do(tmp_path: Path, capsys, database, words) -> None:
    assert main(["keygen", str(tmp_path / "coordinator.key")]) == 0
    text = CONFIGURATION.replace("coordinator.db", database.format(folder=tmp_path)) + 'host = "localhost"'
    (tmp_path / "coordinator.toml").write_text(text)
    capsys.readouterr()
    assert main(["tasks", "--config", str(tmp_path / "coordinator.toml"), "publish", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
