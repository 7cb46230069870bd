"""Server, device and helper as services of a real systemd: installed from wheels, watched, rebooted, taken away."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support.container import TREE, Container, copy_of_base, wheels
from tests.support.served_fleet import installed, invited, is_active, learn_on, main_process
from tests.support.waiting import until

pytestmark = [
    pytest.mark.long,
    pytest.mark.quiet,
    pytest.mark.skipif(os.geteuid() != 0, reason="making and entering a root filesystem needs root"),
]

SERVER = (
    "python3 -m venv /opt/edgeflock",
    "/opt/edgeflock/bin/pip install --quiet --no-index --find-links /wheels edgeflock[coordinator]",
    "/opt/edgeflock/bin/broker-coordinator setup --host localhost",
    "broker-coordinator tasks publish /tree/models/digits/bundle",
)
SERVICES = ("edge-agent", "edgeflock-helper", "broker-coordinator")
QUICK = "[Service]\nWatchdogSec=6\nRestartSec=1\n"
"""The test's own: three minutes are for a Pi Zero whose card hangs."""


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    root = copy_of_base(tmp_path_factory.mktemp("container") / "root")
    shutil.copytree(wheels("coordinator"), root / "wheels")
    for folder in ("systemd", "models/digits/bundle"):
        shutil.copytree(TREE / folder, root / "tree" / folder)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    for unit in SERVICES:
        drop_in = root / f"etc/systemd/system/{unit}.service.d"
        drop_in.mkdir(parents=True)
        (drop_in / "quick.conf").write_text(QUICK)
    system = Container(root)
    system.boot()
    yield system
    system.kill()
    subprocess.run(["rm", "--recursive", "--force", root], check=True)


def test_device_helper_and_server_are_services_that_come_back_and_go_without_a_trace_but_their_state(
    container: Container,
) -> None:
    before = installed(container)
    began = time.monotonic()
    for command in SERVER:
        container.run(command)
    container.run(f"/opt/edgeflock/bin/edge-agent join {invited(container, 'kitchen-pi')}")
    learn_on(container, 0)
    print(f"{len(SERVER)} + 2 commands, {time.monotonic() - began:.0f} s to the first applied update")  # noqa: T201

    container.run(f"/opt/edgeflock/bin/edgeflock-helper join {invited(container, 'cellar-pi')}")
    worker = container.run("journalctl --no-pager --unit 'edge-agent-worker@*'")
    assert "Started edge-agent-worker@" in worker, "it trains in its own unit"
    assert "worker_not_confined" not in container.run("journalctl --no-pager --unit edge-agent")

    for unit in SERVICES:
        stopped = main_process(container, unit)
        container.run(f"kill -STOP {stopped}")
        until(lambda u=unit, s=stopped: main_process(container, u) not in {0, s}, f"{unit} is started again")
        until(lambda u=unit: is_active(container, u), f"{unit} serves")
        assert "Watchdog timeout" in container.run(f"journalctl --no-pager --unit {unit}")
    learn_on(container, 400)

    container.power_off()
    container.boot()
    for unit in ("mosquitto-edgeflock", *SERVICES):
        until(lambda u=unit: is_active(container, u), f"{unit} is back after a reboot")
    learn_on(container, 800)

    for program in SERVICES:
        container.run(f"{program} install-service")
        assert f"/var/lib/{program}" in container.run(f"{program} uninstall-service")
        container.run(f"/opt/edgeflock/bin/{program} uninstall-service")
        assert not is_active(container, program)
    folders = "|".join((*SERVICES, "mosquitto-edgeflock", "edgeflock-authority"))
    state = re.compile(rf"/(etc|var/lib)/({folders})\b")
    accounts = re.compile(r"/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$|/etc/\.pwd\.lock$")
    system = re.compile(r"/var/lib/(systemd|apt|private|dbus|mosquitto)\b|/run/(dbus|lock|user|utmp|nologin|motd)\b")
    left = {path for path in installed(container) - before if not (state.match(path) or accounts.match(path))}
    assert sorted(path for path in left if not system.match(path)) == []
