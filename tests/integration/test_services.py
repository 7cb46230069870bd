"""Services are installed into a system that does not run, by systemd's own tools, and go again."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from broker_coordinator.cli import main as coordinator
from broker_coordinator.commands.service import SERVICE as COORDINATOR
from edge_agent.cli import main as agent
from edge_agent.verbs.service import LIMITS, SERVICE, worker_limits
from edge_agent.worker.settings import WorkerSettings
from fleet_host.services import Installer
from fleet_protocol.errors import ConfigurationError
from session_relay.helper.cli import main as helper

AGENT_TOML = """
fleet = "home"
device = "kitchen-pi"
coordinator_key = "{key}"
key_file = "agent.key"
state_folder = "/var/lib/edge-agent"
sample_socket = "/run/edge-agent/samples.sock"
[broker]
host = "broker.example"
[worker]
threads = 2
memory_limit_mib = 192
[[tasks]]
name = "digits"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/edge-agent").mkdir(parents=True)
    return tmp_path


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}


def accounts(root: Path) -> str:
    return (root / "etc/passwd").read_text()


def test_helper_is_a_service_of_its_own_beside_the_agent(root) -> None:
    helper(["install-service", "--root", str(root)])
    unit = (root / "etc/systemd/system/edgeflock-helper.service").read_text()
    assert "ExecStart=/opt/edgeflock/bin/edgeflock-helper run" in unit
    assert "etc/systemd/system/multi-user.target.wants/edgeflock-helper.service" in files(root)
    assert (root / "usr/local/bin/edgeflock-helper").readlink() == Path("/opt/edgeflock/bin/edgeflock-helper")
    assert "edgeflock-helper:" in accounts(root)
    agent(["install-service", "--root", str(root)])
    helper(["uninstall-service", "--root", str(root)])
    assert not (root / "etc/systemd/system/edgeflock-helper.service").exists()
    assert (root / "etc/systemd/system/edge-agent.service").exists()


def test_agent_is_installed_and_enabled_and_again_changes_nothing(root, capsys) -> None:
    agent(["install-service", "--root", str(root)])
    installed = {path: (root / path).read_bytes() for path in files(root) if (root / path).is_file()}
    assert "ExecStart=/opt/edgeflock/bin/edge-agent run" in (root / "etc/systemd/system/edge-agent.service").read_text()
    assert "etc/systemd/system/multi-user.target.wants/edge-agent.service" in files(root)
    assert (root / "usr/local/bin/edge-agent").readlink() == Path("/opt/edgeflock/bin/edge-agent")
    assert "edge-agent:" in accounts(root)
    capsys.readouterr()
    agent(["install-service", "--root", str(root)])
    assert {path: (root / path).read_bytes() for path in files(root) if (root / path).is_file()} == installed
    assert "write" not in capsys.readouterr().out


def test_agent_goes_without_a_trace_but_its_configuration_state_and_account(root, capsys) -> None:
    (root / "etc/edge-agent/agent.toml").write_text(AGENT_TOML.format(key="0" * 64))
    state = root / "var/lib/edge-agent/agent.db"
    state.parent.mkdir(parents=True)
    state.write_text("learned")
    before = files(root)
    agent(["install-service", "--root", str(root)])
    capsys.readouterr()
    agent(["uninstall-service", "--root", str(root)])
    left = {path for path in files(root) - before if Path(path).name.strip(".-") not in {"passwd", "group", "pwd.lock"}}
    assert left - {"etc/shadow", "etc/gshadow"} == set()
    assert not (root / LIMITS).parent.exists()
    assert not (root / "usr/local/share/bash-completion").exists(), "nor an empty folder of its own"
    assert "these stay, with the account edge-agent that they belong to: /etc/edge-agent, /var/lib/edge-agent" in (
        capsys.readouterr().out
    )
    agent(["uninstall-service", "--root", str(root)])


def test_worker_is_kept_to_what_the_configuration_allows(root) -> None:
    (root / "etc/edge-agent/agent.toml").write_text(AGENT_TOML.format(key="0" * 64))
    agent(["install-service", "--root", str(root)])
    assert (root / LIMITS).read_text() == worker_limits(WorkerSettings(threads=2, memory_limit_mib=192))
    assert "MemoryMax=320M\nCPUQuota=200%" in (root / LIMITS).read_text()
    (root / "etc/edge-agent/agent.toml").unlink()
    agent(["install-service", "--root", str(root)])
    assert not (root / LIMITS).exists()


def test_configuration_that_is_wrong_is_refused_before_anything_is_written(root, capsys) -> None:
    (root / "etc/edge-agent/agent.toml").write_text("fleet = 3")
    before = files(root)
    with pytest.raises(SystemExit):
        agent(["install-service", "--root", str(root)])
    assert "agent.toml" in capsys.readouterr().err
    assert files(root) == before


def test_dry_run_says_what_would_be_done_and_does_nothing(root, capsys) -> None:
    before = files(root)
    coordinator(["install-service", "--root", str(root), "--dry-run"])
    said = capsys.readouterr().out
    assert f"write {root}/etc/systemd/system/broker-coordinator.service" in said
    assert f"systemctl --root={root} enable --quiet mosquitto-edgeflock.service broker-coordinator.service" in said
    assert files(root) == before


def test_coordinator_is_installed_with_the_unit_of_its_broker(root) -> None:
    assert coordinator(["install-service", "--root", str(root)]) == 0
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    assert {path.name for path in wanted.iterdir()} == set(COORDINATOR.enabled)
    assert coordinator(["uninstall-service", "--root", str(root)]) == 0
    assert not list(root.rglob("*.service"))


def test_folder_that_is_not_there_is_named(tmp_path, capsys) -> None:
    assert coordinator(["install-service", "--root", str(tmp_path / "none")]) == 2
    assert f"--root {tmp_path}/none: no such folder" in capsys.readouterr().err


def installer(root: Path, programs: str, run: list[Sequence[str]]) -> Installer:
    return Installer(root, lambda _line: None, run.append, Path(programs))


@pytest.mark.parametrize("folder", ["/home/pi/venv/bin", "/root/venv/bin", "/tmp/venv/bin"])
def test_program_that_its_unit_could_not_see_is_refused_before_anything_is_written(root, folder) -> None:
    ran: list[Sequence[str]] = []
    with pytest.raises(ConfigurationError, match=r"a service sees nothing in /.*; install edgeflock elsewhere"):
        installer(root, folder, ran).install(SERVICE, {})
    assert (files(root), ran) == (set(), [])


def test_command_of_somebody_elses_is_not_replaced(root) -> None:
    other = root / "usr/local/bin/edge-agent"
    other.parent.mkdir(parents=True)
    other.write_text("theirs")
    with pytest.raises(ConfigurationError, match="no link of ours; move it away"):
        installer(root, "/opt/edgeflock/bin", []).install(SERVICE, {})
    assert files(root) == {"usr/local/bin/edge-agent"}
    installer(root, "/opt/edgeflock/bin", []).uninstall(SERVICE, [])
    assert other.read_text() == "theirs"


def test_program_of_a_package_writes_what_follows_from_its_configuration_and_nothing_else(root) -> None:
    ran: list[Sequence[str]] = []
    (root / "etc/edge-agent/agent.toml").write_text(AGENT_TOML.format(key="0" * 64))
    before = files(root)
    packaged = installer(root, "/usr/lib/edgeflock-agent/bin", ran)
    packaged.install(SERVICE, {LIMITS: "[Service]\n"})
    assert (files(root) - before, ran) == ({str(LIMITS)}, [])
    with pytest.raises(ConfigurationError, match="sudo apt remove edgeflock-agent takes it away"):
        packaged.uninstall(SERVICE, [LIMITS])
    assert (root / LIMITS).exists()


def test_service_of_a_package_is_not_hidden_by_an_installation_by_hand(root) -> None:
    unit = root / "usr/lib/systemd/system/edge-agent.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("the package's")
    with pytest.raises(ConfigurationError, match="the package edgeflock-agent has installed this service"):
        installer(root, "/opt/edgeflock/bin", []).install(SERVICE, {LIMITS: "[Service]\n"})
    assert files(root) == {"usr/lib/systemd/system/edge-agent.service"}


def test_live_service_is_started_anew_unless_it_is_told_not_to() -> None:
    service = replace(SERVICE, configuration=Path(__file__))
    for starts in (True, False):
        ran: list[Sequence[str]] = []
        packaged = Path("/usr/lib/edgeflock-agent/bin")
        Installer(Path("/"), lambda _line: None, ran.append, packaged, starts=starts).install(service, {})
        assert (("systemctl", "restart", "edge-agent.service") in ran) is starts
