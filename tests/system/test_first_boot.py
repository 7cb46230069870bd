"""A card from `edgeflock flash` at its first boot: a real cloud-init, and a real systemd with the card's command line.

The device has no network but a server's; its packages come from the card. Its processor alone is another one than a
Raspberry Pi's, so that the card's wheels are exchanged for this machine's.
"""

import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.agent import sample
from tests.support.cards import BOOKWORM, TRIXIE, flash_offline, image_of, read_back, wheel_of_tree
from tests.support.container import TREE, Container, copy_of_base
from tests.support.inviting_server import InvitingServer
from tests.support.waiting import until
from workbench.flashing.packages import download_command

pytestmark = [
    pytest.mark.long,
    pytest.mark.quiet,
    pytest.mark.skipif(os.geteuid() != 0, reason="making and entering a root filesystem needs root"),
]

SUITES = {"bookworm": (BOOKWORM, "3.11"), "trixie": (TRIXIE, "3.13")}
"""What its boot partition has before it is flashed, and its Python."""
CARD_MIB = 256
"""Half of what Raspberry Pi OS has."""
PROFILE = "generic"
"""Its board is any machine: this one is no Raspberry Pi."""
SEED = "datasource_list: [NoCloud, None]\ndatasource:\n  NoCloud:\n    seedfrom: file:///boot/firmware\n"
"""What Raspberry Pi OS tells its cloud-init."""
FIRST_USER = "useradd --create-home --uid 1000 pi"
USERCONF = '#!/bin/sh\nusermod --login "$1" --home "/home/$1" --move-home pi\necho "$1:$2" | chpasswd --encrypted\n'
"""Raspberry Pi OS has it, and Debian has not: its first user becomes another."""
WIFI_NAME = "Café 'x'; $(id)"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8vVt5nGl1mZg0zv6c1x2Wc5Y9rEoQ7bq4d3u2h1k0s ada@example"
SENSORS = """
set -e
for each in thermal power_supply; do mount -t tmpfs none /sys/class/$each; done
mkdir /sys/class/thermal/thermal_zone0 /sys/class/power_supply/BAT0
cd /sys/class/thermal/thermal_zone0; echo cpu-thermal > type; echo 81500 > temp
cd /sys/class/power_supply/BAT0; echo Battery > type; echo System > scope; echo 1 > present; echo 90 > capacity
"""
SITE = "[guards]\nmaximum_temperature_celsius = 70\nminimum_battery_percent = 20\n"
SAMPLES = 40
"""More than the shipped trigger waits for."""
JOIN_SECONDS = 400.0
"""Packages, and a minute more where the first attempt came before the server."""
LEARN_SECONDS = 120.0


@pytest.fixture(scope="module")
def server() -> Iterator[InvitingServer]:
    folder = Path(tempfile.mkdtemp(prefix="edgeflock-"))  # pytest's own are closed to Mosquitto's account
    folder.chmod(0o755)
    server = InvitingServer(folder)
    server.publish(TREE / "models/digits/bundle")
    yield server
    shutil.rmtree(folder)


@pytest.fixture
def devices() -> Iterator[list[Container]]:
    """Those that tests start."""
    started: list[Container] = []
    yield started
    for device in started:
        device.kill()
        subprocess.run(["rm", "--recursive", "--force", device.root], check=True)


@contextmanager
def joined(device: Container, server: InvitingServer) -> Iterator[None]:
    """A device that has been started, with a server in its network, from when it has joined."""
    server.start(network_of=device.leader)
    try:
        until(lambda: is_joined(device), "it has joined", JOIN_SECONDS)
        yield
    finally:
        server.stop()


def flashed(folder: Path, server: InvitingServer, device: Path, suite: str) -> None:
    """Flash an image, and let it be the boot partition of the system in `device`."""
    before, python = SUITES[suite]
    image = image_of(folder / "card.img", before, mib=CARD_MIB)
    (folder / "key.pub").write_text(f"{KEY}\n")
    flash_offline(
        profile=PROFILE,
        name=f"{suite}-pi",
        invitation=server.invite(f"{suite}-pi"),
        image=image,
        package=wheel_of_tree(folder),
        wifi_name=WIFI_NAME,
        wifi_passphrase="correct horse \"'$(id)",
        country="DE",
        user="ada",
        ssh_key=folder / "key.pub",
    )
    card = device / "boot/firmware"
    card.mkdir(parents=True)
    read_back(image, card)
    exchange_processor(card / "edgeflock/wheels", python)


def exchange_processor(wheels: Path, python: str) -> None:
    """Put wheels for this machine in the place of those for a Raspberry Pi."""
    of_a_pi = [wheel for wheel in wheels.iterdir() if not wheel.name.endswith("-none-any.whl")]
    assert all("aarch64" in wheel.name for wheel in of_a_pi)
    for wheel in of_a_pi:
        wheel.unlink()
    (ours,) = wheels.glob("edgeflock-*.whl")
    command = download_command(str(ours), python, str(wheels))
    here = [word.replace("aarch64", platform.machine()) for word in command]
    subprocess.run(here, check=True, capture_output=True)


def is_joined(device: Container) -> bool:
    found = "test -e /etc/edge-agent/agent.toml && test ! -e /boot/firmware/edgeflock/invitation"
    return device.attempt(f"{found} && systemctl is-active edge-agent").returncode == 0


def feed(device: Container) -> None:
    device.feed("".join(json.dumps(sample(number)) + "\n" for number in range(SAMPLES)))


def learns(server: InvitingServer, before: int) -> None:
    until(lambda: server.task()["accepted"] > before, "its update is accepted", LEARN_SECONDS)


def test_trixie_is_set_up_by_cloud_init_joins_offline_and_delivers_an_update(
    server: InvitingServer, devices: list[Container], tmp_path: Path
) -> None:
    device = Container(copy_of_base(tmp_path / "device", "trixie"))
    devices.append(device)
    (device.root / "etc/cloud/cloud.cfg.d/99_raspberry-pi.cfg").write_text(SEED)
    flashed(tmp_path, server, device.root, "trixie")
    device.start()
    with joined(device, server):
        for kind, file in (("cloud-config", "user-data"), ("network-config", "network-config")):
            device.run(f"cloud-init schema --schema-type {kind} --config-file /boot/firmware/{file}")
        said = json.loads(device.attempt("cloud-init status --wait --format json").stdout)
        assert (said["status"], said["errors"], said["recoverable_errors"]) == ("done", [], {})
        assert WIFI_NAME in device.run("netplan generate && netplan get")
        assert device.run("hostname").strip() == "trixie-pi"
        assert device.run("cat /home/ada/.ssh/authorized_keys").strip() == KEY
        assert device.run("passwd --status ada").split()[1] == "L"
        assert device.run("systemctl is-active ssh").strip() == "active"
        before = server.task()["accepted"]
        feed(device)
        learns(server, before)
        assert device.attempt("systemctl is-enabled edgeflock-first-boot").stdout.strip() == "disabled"


def test_bookworm_runs_its_script_once_joins_offline_and_delivers_an_update_unless_the_board_is_hot(
    server: InvitingServer, devices: list[Container], tmp_path: Path
) -> None:
    device = Container(copy_of_base(tmp_path / "device"))
    devices.append(device)
    subprocess.run(["chroot", device.root, "sh", "-c", FIRST_USER], check=True)
    (device.root / "etc/hosts").write_text("127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n")
    userconf = device.root / "usr/lib/userconf-pi/userconf"
    userconf.parent.mkdir()
    userconf.write_text(USERCONF)
    userconf.chmod(0o755)
    flashed(tmp_path, server, device.root, "bookworm")
    command_line = device.root / "boot/firmware/cmdline.txt"
    # A container that is rebooted comes back with the command line that it had.
    words = command_line.read_text().replace("run_success_action=reboot", "run_success_action=poweroff").split()
    device.start(*(word for word in words if word.startswith("systemd.")))
    device.wait_for_end()
    assert command_line.read_text() == BOOKWORM["cmdline.txt"].decode().rstrip() + " cfg80211.ieee80211_regdom=DE\n"
    device.start()
    with joined(device, server):
        assert device.run("hostname").strip() == "bookworm-pi"
        assert device.run("cat /home/ada/.ssh/authorized_keys").strip() == KEY
        assert device.attempt("systemctl is-enabled edgeflock-first-boot").stdout.strip() == "disabled"
        before = server.task()["accepted"]
        refuses_while_a_sensor_says_so(device)
        learns(server, before)


def refuses_while_a_sensor_says_so(device: Container) -> None:
    """In its unit's sandbox. A container has no sensors: these files stand where the kernel shows a board's."""
    device.run(SENSORS)
    site = device.root / "etc/edge-agent/site.toml"
    site.write_text(SITE)
    device.run("systemctl restart edge-agent")
    feed(device)
    for charge, reason in ((17, "17 percent of battery (BAT0)"), (90, "81.5 degrees Celsius (cpu-thermal)")):
        device.run(f"echo {charge} > /sys/class/power_supply/BAT0/capacity && systemctl restart edge-agent")
        until(lambda r=reason: r in device.run("journalctl --no-pager --unit edge-agent"), f"it refuses: {reason}")
    site.unlink()
    device.run("systemctl restart edge-agent")
