"""The Debian packages of agent and coordinator in a real system: installed offline, upgraded, removed and purged."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet_protocol.device_invitation import PREFIX
from tests.support.container import SUITE, TREE, Container, copy_of_base
from tests.support.served_fleet import installed, is_active, learn_on, main_process, version
from tests.support.waiting import until

pytestmark = [
    pytest.mark.long,
    pytest.mark.quiet,
    pytest.mark.skipif(os.geteuid() != 0, reason="making and entering a root filesystem needs root"),
]

INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install --yes"
PROGRAMS = ("edge-agent", "broker-coordinator")
PACKAGES = ("edgeflock-agent", "edgeflock-coordinator")
OLDER = "0.0.9"
LIMITS = "/etc/systemd/system/edge-agent-worker@.service.d/limits.conf"
KEYS = "/etc/broker-coordinator/coordinator.key /etc/edgeflock-authority/ca.key"
STATE = f"sha256sum {KEYS} /etc/edge-agent/agent.key /etc/*/*.toml"


@dataclass(frozen=True, slots=True)
class Packages:
    """Folders with both packages: as the tree makes them, and the same as an older release."""

    newer: Path
    older: Path


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Packages]:
    folder = tmp_path_factory.mktemp("packages")
    build = ["sh", "packaging/debian/build.sh", folder / "newer", ".venv/bin/python", SUITE]
    done = subprocess.run(build, cwd=TREE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for deb in (folder / "newer").iterdir():
        make_older(deb, folder / "older")
    yield Packages(folder / "newer", folder / "older")
    shutil.rmtree(folder)


def make_older(deb: Path, folder: Path) -> None:
    """The same program, packed as an older release."""
    unpacked = folder / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    subprocess.run(["dpkg-deb", "--raw-extract", deb, unpacked], check=True)
    (metadata,) = unpacked.glob("usr/lib/edgeflock-*/lib/python*/site-packages/edgeflock-*.dist-info/METADATA")
    for file in (unpacked / "DEBIAN/control", metadata):
        file.write_text(re.sub(r"^Version: [0-9.]+", f"Version: {OLDER}", file.read_text(), flags=re.MULTILINE))
    subprocess.run(["dpkg-deb", "--build", "-Znone", unpacked, folder / deb.name], check=True, capture_output=True)
    shutil.rmtree(unpacked)


@pytest.fixture(scope="module")
def container(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    root = copy_of_base(tmp_path_factory.mktemp("container") / "root")
    shutil.copytree(packages.newer, root / "newer")
    shutil.copytree(packages.older, root / "older")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    system = Container(root)
    system.boot()
    yield system
    system.kill()
    subprocess.run(["rm", "--recursive", "--force", root], check=True)


def starts(container: Container, unit: str) -> int:
    return container.run(f"journalctl --no-pager --output cat --unit {unit}").count("Started ")


def test_lintian_finds_no_error_in_the_packages(packages: Packages) -> None:
    checked = ["lintian", "--fail-on", "error", *packages.newer.iterdir()]
    done = subprocess.run(checked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_package_is_not_installed_over_an_installation_by_hand_and_the_other_way_round(container: Container) -> None:
    by_hand = "/etc/systemd/system/edge-agent.service"
    container.run(f"printf '[Service]\\nExecStart=/opt/edgeflock/bin/edge-agent run\\n' > {by_hand}")
    refused = container.attempt(f"{INSTALL} /newer/edgeflock-agent_*.deb")
    assert refused.returncode != 0
    said = " ".join((refused.stdout + refused.stderr).split())
    assert f"edgeflock-agent: {by_hand} is there, of an installation by hand" in said
    assert "sudo /usr/local/bin/edge-agent uninstall-service" in said
    assert container.attempt("ls /usr/lib/edgeflock-agent /usr/bin/edge-agent").stdout == "", "nothing half done"
    container.run(f"rm {by_hand}")

    container.run("ln -s /opt/edgeflock/bin/edge-agent /usr/local/bin/edge-agent")
    refused = container.attempt(f"{INSTALL} /newer/edgeflock-agent_*.deb")
    assert "/usr/local/bin/edge-agent is there" in refused.stdout + refused.stderr
    container.run("rm /usr/local/bin/edge-agent")


def test_packages_keep_keys_and_state_over_upgrade_and_removal_and_purge_takes_what_they_made(
    container: Container,
) -> None:
    before = installed(container)
    container.run(f"{INSTALL} /older/*.deb")
    assert container.run("edge-agent --version") == f"edge-agent {OLDER}\n"
    for unit in PROGRAMS:
        assert container.run(f"systemctl is-enabled {unit}") == "enabled\n"
        assert not is_active(container, unit), "it has no configuration yet"
    container.run("broker-coordinator setup --host localhost")
    container.run("broker-coordinator tasks publish /usr/share/edgeflock-coordinator/digits/bundle")
    said = container.run("broker-coordinator devices invite kitchen-pi")
    (invitation,) = (line for line in said.splitlines() if line.startswith(PREFIX))
    container.run(f"edge-agent join {invitation}")
    learn_on(container, 0)
    assert "edge-agent-worker@" in container.run("journalctl --no-pager --unit 'edge-agent-worker@*'")

    state = container.run(STATE)
    made = version(container)
    broker = main_process(container, "mosquitto-edgeflock")
    started = {unit: starts(container, unit) for unit in PROGRAMS}
    limits = container.run(f"cat {LIMITS}")
    container.run(f"echo old > {LIMITS}")
    container.run(f"{INSTALL} /newer/*.deb")
    assert container.run("edge-agent --version") != f"edge-agent {OLDER}\n"
    for unit in PROGRAMS:
        until(lambda u=unit: is_active(container, u), f"{unit} is back after the upgrade")
        assert starts(container, unit) == started[unit] + 1
    assert main_process(container, "mosquitto-edgeflock") == broker, "devices stay connected"
    assert container.run(f"cat {LIMITS}") == limits
    assert (container.run(STATE), version(container)) == (state, made)
    learn_on(container, 400)

    for program, package in zip(PROGRAMS, PACKAGES, strict=True):
        container.run(f"{program} install-service")
        refused = container.attempt(f"{program} uninstall-service")
        assert (refused.returncode, f"sudo apt remove {package}" in refused.stderr) == (2, True)

    made = version(container)
    container.run(f"apt-get remove --yes {' '.join(PACKAGES)}")
    for unit in (*PROGRAMS, "mosquitto-edgeflock"):
        assert not is_active(container, unit)
    gone = " ".join(f"/usr/lib/{package}" for package in PACKAGES)
    assert container.attempt(f"ls --directory {gone} /usr/bin/edge-agent").stdout == ""
    assert container.run(STATE) == state
    container.run(f"{INSTALL} /newer/*.deb")
    for unit in PROGRAMS:
        until(lambda u=unit: is_active(container, u), f"{unit} goes on where it was")
    assert version(container) == made

    said = container.attempt(f"apt-get purge --yes {' '.join(PACKAGES)}")
    assert said.returncode == 0, said.stderr
    assert "keys and authorities in /etc/edgeflock-authority stay" in said.stdout + said.stderr
    container.run(f"ls {KEYS}")
    kept = re.compile(
        r"/etc/(edgeflock-authority|broker-coordinator$|broker-coordinator/(coordinator\.key|ca[^/]*\.crt)$)"
    )
    accounts = re.compile(r"/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$|/etc/\.pwd\.lock$")
    system = re.compile(
        r"/var/lib/(systemd|apt|dpkg|private|dbus|mosquitto)\b|/run/(dbus|lock|user|utmp|nologin|motd)\b"
    )
    left = {
        path for path in installed(container) - before if not any(each.match(path) for each in (kept, accounts, system))
    }
    assert sorted(left) == []


def test_purge_leaves_what_an_installation_by_hand_uses(container: Container) -> None:
    container.run(f"{INSTALL} /newer/edgeflock-agent_*.deb")
    container.run("echo learned > /etc/edge-agent/agent.key")
    container.run("apt-get remove --yes edgeflock-agent")
    by_hand = "/etc/systemd/system/edge-agent.service"
    container.run(f"printf '[Service]\\nExecStart=/opt/edgeflock/bin/edge-agent run\\n' > {by_hand}")
    said = container.attempt("apt-get purge --yes edgeflock-agent")
    assert f"stay: the agent of {by_hand} uses them" in said.stdout + said.stderr
    assert container.run("cat /etc/edge-agent/agent.key") == "learned\n"
