"""The helper of the package edgeflock-agent in a real system: it joins, serves a device, is upgraded, and goes."""

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.container import Container
from tests.support.debian_packages import INSTALL, Packages, booted_with
from tests.support.helper import CUT, TASK, copy_split_bundle, sample
from tests.support.served_fleet import (
    LEARN_SECONDS,
    ROUND,
    installed,
    invited,
    is_active,
    main_process,
    starts,
    version,
)
from tests.support.waiting import until

pytestmark = [
    pytest.mark.long,
    pytest.mark.quiet,
    pytest.mark.skipif(os.geteuid() != 0, reason="making and entering a root filesystem needs root"),
]

HELPER = "edgeflock-helper"
OF_HELPER = re.compile(rf"(?!/usr/lib/edgeflock-coordinator/).*{HELPER}")
NO_CAPABILITIES = "0" * 16


@pytest.fixture
def container(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with booted_with(packages, tmp_path_factory.mktemp("container")) as system:
        copy_split_bundle(system.root / "bundle", buffer_size=1)
        yield system


def status(container: Container) -> dict[str, Any]:
    """What the helper says of itself."""
    return dict(json.loads(container.run(f"{HELPER} status --json")))


def teach(container: Container, first: int) -> None:
    """Give the device a round's samples; what it and the helper learn of them makes a version."""
    before = version(container)
    container.feed("".join(json.dumps(sample(number)) + "\n" for number in range(first, first + ROUND)))
    until(lambda: version(container) > before, "the device's update and the helper's make a version", LEARN_SECONDS)


def test_helper_serves_a_device_over_upgrade_and_removal_and_goes_with_what_it_made(container: Container) -> None:
    before = installed(container)
    container.run(f"{INSTALL} /older/*.deb")
    assert container.run(f"systemctl is-enabled {HELPER}") == "enabled\n"
    assert not is_active(container, HELPER), "it has no configuration yet"
    container.run("broker-coordinator setup --host localhost")
    container.run("broker-coordinator tasks publish /bundle")
    said = container.run(f"{HELPER} join {invited(container, 'cellar-pi')}")
    assert "then on the server: broker-coordinator helpers allow cellar-pi" in said
    container.run("broker-coordinator helpers allow cellar-pi")
    container.run(f"edge-agent join {invited(container, 'kitchen-pi')}")
    split = f's/^name = "{TASK}"/&\\nsplit = {{ cut = "{CUT}" }}/'
    container.run(f"sed --in-place '{split}' /etc/edge-agent/agent.toml && systemctl restart edge-agent")
    teach(container, 0)
    assert status(container)["steps"] > 0
    assert "worker_not_confined" not in container.run(f"journalctl --no-pager --unit {HELPER}")
    require_confined(container)

    state = container.run("sha256sum /etc/edgeflock-helper/*")
    started = starts(container, HELPER)
    container.run(f"{INSTALL} /newer/*.deb")
    until(lambda: is_active(container, HELPER), "the helper is back after the upgrade")
    assert starts(container, HELPER) == started + 1
    assert container.run("sha256sum /etc/edgeflock-helper/*") == state
    teach(container, ROUND)
    refused = container.attempt(f"{HELPER} uninstall-service")
    assert (refused.returncode, "sudo apt remove edgeflock-agent" in refused.stderr) == (2, True)

    container.run("apt-get remove --yes edgeflock-agent")
    assert not is_active(container, HELPER)
    assert container.attempt(f"ls /usr/bin/{HELPER}").stdout == ""
    assert container.run("sha256sum /etc/edgeflock-helper/*") == state
    container.run(f"{INSTALL} /newer/edgeflock-agent_*.deb")
    until(lambda: is_active(container, HELPER), "the helper goes on where it was")
    teach(container, 2 * ROUND)

    container.run("apt-get purge --yes edgeflock-agent")
    assert sorted(path for path in installed(container) - before if OF_HELPER.match(path)) == []


def require_confined(container: Container) -> None:
    """It has its own account and a filter of system calls, no capability, and no file to write but its own."""
    program = main_process(container, HELPER)
    account = container.run(f"id --user {HELPER}").strip()
    fields = dict(re.findall(r"^(\w+):\s+(\S+)", container.run(f"cat /proc/{program}/status"), re.MULTILINE))
    found = [fields[name] for name in ("Uid", "CapEff", "NoNewPrivs", "Seccomp")]
    assert found == [account, NO_CAPABILITIES, "1", "2"]
    assert container.attempt(f"nsenter --target {program} --mount touch /etc/written").returncode != 0
