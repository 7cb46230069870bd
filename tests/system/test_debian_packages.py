"""The Debian packages of agent and coordinator in a real system: installed offline, upgraded, removed and purged."""

import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.container import Container
from tests.support.debian_packages import INSTALL, OLDER, Packages, booted_with
from tests.support.served_fleet import installed, invited, is_active, learn_on, main_process, starts, version
from tests.support.waiting import until

pytestmark = [
    pytest.mark.long,
    pytest.mark.quiet,
    pytest.mark.skipif(os.geteuid() != 0, reason="making and entering a root filesystem needs root"),
]

PROGRAMS = ("edge-agent", "broker-coordinator")
PACKAGES = ("edgeflock-agent", "edgeflock-coordinator")
LIMITS = "/etc/systemd/system/edge-agent-worker@.service.d/limits.conf"
KEYS = "/etc/broker-coordinator/coordinator.key /etc/edgeflock-authority/ca.key"
STATE = f"sha256sum {KEYS} /etc/edge-agent/agent.key /etc/*/*.toml"


@pytest.fixture(scope="module")
def container(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with booted_with(packages, tmp_path_factory.mktemp("container")) as system:
        yield system


def test_lintian_finds_no_error_in_the_packages(packages: Packages) -> None:
    checked = ["lintian", "--fail-on", "error", *packages.newer.iterdir()]
    done = subprocess.run(checked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("program", ["edge-agent", "edgeflock-helper"])
def test_package_is_not_installed_over_an_installation_by_hand(container: Container, program: str) -> None:
    by_hand = f"/etc/systemd/system/{program}.service"
    container.run(f"printf '[Service]\\nExecStart=/opt/edgeflock/bin/{program} run\\n' > {by_hand}")
    refused = container.attempt(f"{INSTALL} /newer/edgeflock-agent_*.deb")
    assert refused.returncode != 0
    said = " ".join((refused.stdout + refused.stderr).split())
    assert f"edgeflock-agent: {by_hand} is there, of an installation by hand" in said
    assert f"sudo /usr/local/bin/{program} uninstall-service" in said
    assert container.attempt(f"ls /usr/lib/edgeflock-agent /usr/bin/{program}").stdout == "", "nothing half done"
    container.run(f"rm {by_hand}")

    container.run(f"ln -s /opt/edgeflock/bin/{program} /usr/local/bin/{program}")
    refused = container.attempt(f"{INSTALL} /newer/edgeflock-agent_*.deb")
    assert f"/usr/local/bin/{program} is there" in refused.stdout + refused.stderr
    container.run(f"rm /usr/local/bin/{program}")


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
    container.run(f"edge-agent join {invited(container, 'kitchen-pi')}")
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


@pytest.mark.parametrize("program", ["edge-agent", "edgeflock-helper"])
def test_purge_leaves_what_an_installation_by_hand_uses(container: Container, program: str) -> None:
    container.run(f"{INSTALL} /newer/edgeflock-agent_*.deb")
    container.run(f"echo learned > /etc/{program}/agent.key")
    container.run("apt-get remove --yes edgeflock-agent")
    by_hand = f"/etc/systemd/system/{program}.service"
    container.run(f"printf '[Service]\\nExecStart=/opt/edgeflock/bin/{program} run\\n' > {by_hand}")
    said = container.attempt("apt-get purge --yes edgeflock-agent")
    assert f"stay: what {by_hand} starts uses them" in said.stdout + said.stderr
    assert container.run(f"cat /etc/{program}/agent.key") == "learned\n"
    container.run(f"rm {by_hand}")
