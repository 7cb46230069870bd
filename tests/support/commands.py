"""A command of `broker-coordinator` on the database of a bench, while its coordinator runs."""

import json
from pathlib import Path
from typing import Any

from broker_coordinator import cli
from fleet_protocol.keys import write_signing_key
from tests.support.bench import KEY, Bench
from tests.support.fleet import FLEET


def configuration_of(bench: Bench, folder: Path) -> Path:
    """A coordinator.toml in `folder` that names its database and key."""
    configuration, key_file = folder / "coordinator.toml", folder / "key"
    configuration.write_text(
        f'fleet = "{FLEET}"\nkey_file = "key"\ndatabase = "{bench.database}"\n[broker]\nhost = "localhost"\n'
    )
    key_file.touch(mode=0o600)
    key_file.write_text(write_signing_key(KEY))
    return configuration


def command(bench: Bench, folder: Path, capsys: Any, *words: str) -> Any:
    """What it says in JSON; `words` are a noun, a verb and its arguments.

    Raises:
        AssertionError: it failed, with what it said.
    """
    noun, *others = words
    status = cli.main([noun, "--config", str(configuration_of(bench, folder)), *others, "--json"])
    said = capsys.readouterr()
    assert status == 0, said.err
    return json.loads(said.out)
