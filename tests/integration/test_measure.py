"""`edge-agent measure` and `edgeflock profiles`: this machine as a profile, which an agent can then name."""

import os

import pytest
from typer.testing import CliRunner

from edge_agent import cli as agent_cli
from edge_agent.profiles import Board, read_profile
from edge_agent.verbs import measure as measuring
from fleet_protocol.errors import ConfigurationError
from workbench.cli import app


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(measuring, "RATE_SECONDS", 0.01)
    monkeypatch.setattr(measuring, "DISK_BLOCKS", 2)


NOBODY = 65534


def test_measured_machine_is_a_profile_that_fits_it(tmp_path, capsys):
    file = tmp_path / "attic.toml"
    if os.geteuid() == 0:
        os.chown(tmp_path, NOBODY, NOBODY)
    agent_cli.main(["measure", "--out", str(file)])
    assert f'profile = "{file}"' in capsys.readouterr().out
    assert file.stat().st_uid == tmp_path.stat().st_uid, "whoever owns the folder can read it"
    profile = read_profile(str(file))
    assert profile.measured is not None
    assert profile.measured.step_seconds > 0
    assert profile.device.source[0].startswith("measured by edge-agent measure on 20")
    assert profile.worker.threads <= profile.device.cores
    before = file.read_text()
    with pytest.raises(SystemExit):
        agent_cli.main(["measure", "--out", str(file)])
    assert "exists and stays as it is" in capsys.readouterr().err
    assert file.read_text() == before


def test_small_board_is_given_no_more_than_it_has(tmp_path):
    board = Board("Raspberry Pi 4 Model B Rev 1.5", "aarch64", 1, 400.0)
    profile = measuring.measured_profile(board, tmp_path, "2026-01-01")
    assert (profile.worker.threads, profile.worker.memory_limit_mib, profile.device.cpu) == (1, 160, "cortex-a53")
    assert profile.inherits == "raspberry-pi"


def test_machine_on_which_no_step_runs_is_told_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "BUNDLES", (tmp_path,))
    with pytest.raises(ConfigurationError, match=r"no training step runs here: .*edge-agent doctor"):
        measuring.measure(tmp_path / "attic.toml", "2026-01-01", print)
    monkeypatch.setattr(measuring, "BUNDLES", (tmp_path / "none",))
    with pytest.raises(ConfigurationError, match="install edgeflock again"):
        measuring.measure(tmp_path / "attic.toml", "2026-01-01", print)
    assert not any(tmp_path.iterdir())


def test_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigurationError, match="none: No such file or directory; name another --out"):
        measuring.measure(tmp_path / "none" / "attic.toml", "2026-01-01", print)


def edgeflock(*words: str) -> str:
    result = CliRunner().invoke(app, ["profiles", *words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_profiles_are_listed_shown_and_checked(tmp_path):
    assert "Raspberry Pi Zero 2 W" in edgeflock("list")
    shown = tmp_path / "shown.toml"
    shown.write_text(edgeflock("show", "pi-4-8gb"))
    assert read_profile(str(shown)) == read_profile("pi-4-8gb")
    assert f"{shown}: 4 cores, 8192 MiB" in edgeflock("check", str(shown))
    site = tmp_path / "site.toml"
    site.write_text("[worker]\nthreads = 1\n")
    assert "threads = 1\n" in edgeflock("show", "pi-5", "--site", str(site))
    with pytest.raises(ConfigurationError, match="did you mean 'pi-5'"):
        edgeflock("check", "pi-4", "pi5")
