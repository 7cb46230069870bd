"""The configuration of a helper: a device's, with what it does for others, and without what it has not."""

import socket
from pathlib import Path

import pytest

from fleet_protocol.errors import ConfigurationError
from session_relay.helper.configuration import HelperSettings, load_helper_configuration
from session_relay.helper.status import ask_helper

KEY, OTHER_KEY = "ab" * 32, "cd" * 32
HELPER_TOML = f"""
fleet = "home"
device = "cellar-pi"
coordinator_key = "{"ab" * 32}"
key_file = "agent.key"
state_folder = "state"
sample_socket = "status.sock"
[broker]
host = "broker.example"
[[tasks]]
name = "digits"
"""


def written(folder: Path, more: str = "") -> Path:
    (folder / "helper.toml").write_text(HELPER_TOML + more)
    return folder / "helper.toml"


def test_what_an_invitation_makes_is_a_whole_configuration(tmp_path) -> None:
    assert load_helper_configuration(written(tmp_path)).helper == HelperSettings()


def test_who_asks_a_helper_that_does_not_run_reads_how_to_start_it(tmp_path) -> None:
    with pytest.raises(ConfigurationError, match="start the helper: systemctl start edgeflock-helper"):
        ask_helper(tmp_path / "status.sock")
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "status.sock"))
        with pytest.raises(ConfigurationError, match="no helper listens; start it: systemctl start edgeflock-helper"):
            ask_helper(tmp_path / "status.sock")


def test_helper_has_settings_of_its_own(tmp_path) -> None:
    configuration = load_helper_configuration(written(tmp_path, "[helper]\nsessions = 4\nsettle_seconds = 0.5\n"))
    assert (configuration.helper.sessions, configuration.helper.settle_seconds) == (4, 0.5)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            '[[sources]]\nkind = "folder"\ntask = "digits"\n',
            "a helper takes no samples; leave \\[\\[sources\\]\\] out",
        ),
        ("[helper]\nsessions = 0\n", "sessions"),
        ("[helper]\nsession = 4\n", "session"),
        ('[[tasks]]\nname = "digits"\n', "listed twice"),
        (f'[masks.roster]\nattic = "{KEY}"\n', "masks.roster"),
        (
            f'[masks]\nfewest_devices = 3\n[masks.roster]\nattic = "{KEY}"\nkitchen = "{OTHER_KEY}"\n',
            "roster has 2 devices of different keys, and fewest_devices is 3: no sum would ever be told",
        ),
        (
            f'[masks]\nfewest_devices = 2\n[masks.roster]\nattic = "{KEY}"\nkitchen = "{KEY}"\n',
            "roster has 1 devices of different keys",
        ),
    ],
)
def test_what_a_helper_can_not_have_is_named(tmp_path, more, words) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load_helper_configuration(written(tmp_path, more))
