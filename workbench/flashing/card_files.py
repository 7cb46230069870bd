"""The files of a card that joins at its first boot, for each of the two ways in which Raspberry Pi OS begins. Pure."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from enum import StrEnum

from workbench.flashing.order import NO_PASSWORD, Order

FOLDER = "edgeflock"
COMMAND_LINE = "cmdline.txt"
NEEDED = (COMMAND_LINE, "config.txt")
"""What every boot partition of Raspberry Pi OS has."""
SCRIPTS = ("first-boot.sh", "first-boot.service", "firstrun.sh")
RUN_ONCE = (
    "systemd.run=/boot/firmware/firstrun.sh systemd.run_success_action=reboot systemd.unit=kernel-command-line.target"
)
UNIT = "/etc/systemd/system/edgeflock-first-boot.service"
GROUPS = "adm,dialout,audio,video,plugdev,games,users,input,render,netdev,gpio,i2c,spi,sudo"
"""Of the first user of Raspberry Pi OS."""

Files = dict[str, bytes]


class System(StrEnum):
    """How it begins."""

    CLOUD_INIT = "Raspberry Pi OS Trixie (cloud-init)"
    FIRST_RUN = "Raspberry Pi OS Bookworm (firstrun.sh)"


WRITTEN_BY = {System.CLOUD_INIT: ("user-data", "network-config"), System.FIRST_RUN: ("firstrun.sh",)}
"""Files in which somebody else may have written settings, which ours would replace."""


def system_of(names: frozenset[str]) -> System | None:
    """What a partition with files of these names holds; None where it is no boot partition of Raspberry Pi OS."""
    if not names.issuperset(NEEDED):
        return None
    return System.CLOUD_INIT if {"user-data", "meta-data"} <= names else System.FIRST_RUN


def has_settings(content: bytes) -> bool:
    """Whether a file says more than comments do."""
    lines = (line.strip() for line in content.splitlines())
    return any(line and not line.startswith(b"#") for line in lines)


def card_files(
    order: Order, system: System, before: Mapping[str, bytes | None], scripts: Files, wheels: Files
) -> Files:
    """Every file to write, by its path on the boot partition.

    `before` is what the partition had in those that are changed, `scripts` the files of firmware_profiles/first-boot.
    """
    files = {
        f"{FOLDER}/first-boot.sh": scripts["first-boot.sh"],
        f"{FOLDER}/first-boot.service": scripts["first-boot.service"],
        f"{FOLDER}/settings.sh": _settings(order),
        f"{FOLDER}/invitation": f"{order.invitation}\n".encode(),
        **{f"{FOLDER}/wheels/{name}": content for name, content in wheels.items()},
    }
    had = (before[COMMAND_LINE] or b"").decode(errors="surrogateescape").strip()
    command_line = had
    if order.country:
        command_line += f" cfg80211.ieee80211_regdom={order.country}"
    if system is System.FIRST_RUN:
        command_line += f" {RUN_ONCE}"
        files["firstrun.sh"] = scripts["firstrun.sh"]
        if order.ssh_key:
            files[f"{FOLDER}/authorized_keys"] = "".join(f"{key}\n" for key in order.ssh_keys).encode()
        if order.wifi_name:
            files[f"{FOLDER}/wifi.nmconnection"] = _network_manager(order)
    else:
        files["user-data"] = b"#cloud-config\n" + _as_yaml(_user_data(order))
        if order.wifi_name:
            files["network-config"] = _as_yaml(_network(order))
        files["meta-data"] = _as_yaml(_meta_data(order, files))
    if command_line != had:
        files[COMMAND_LINE] = command_line.encode(errors="surrogateescape") + b"\n"
    return files


def _settings(order: Order) -> bytes:
    """Variables for the two scripts, quoted: no value is ever read as a command."""
    values = {
        "host_name": order.host_name,
        "profile": order.profile,
        "package": order.package,
        "offline": "yes" if order.offline else "no",
        "user": order.user,
        "password_hash": order.password_hash or NO_PASSWORD,
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()).encode()


def _as_yaml(value: object) -> bytes:
    """JSON, which is YAML: every text in it is quoted."""
    return json.dumps(value, indent=2).encode() + b"\n"


def _user_data(order: Order) -> dict[str, object]:
    said: dict[str, object] = {"hostname": order.host_name, "manage_etc_hosts": True}
    if order.user:
        account: dict[str, object] = {"name": order.user, "groups": GROUPS, "shell": "/bin/bash"}
        account["lock_passwd"] = not order.password_hash
        if order.password_hash:
            account["passwd"] = order.password_hash
        if order.ssh_key:
            account["ssh_authorized_keys"] = order.ssh_keys
        account["sudo"] = "ALL=(ALL) NOPASSWD:ALL"
        said["users"] = [account]
    commands = [["cp", f"/boot/firmware/{FOLDER}/first-boot.service", UNIT], ["systemctl", "daemon-reload"]]
    if order.ssh_key:
        commands.append(["systemctl", "enable", "--now", "ssh"])
    if order.wifi_name:
        commands.append(["rfkill", "unblock", "wifi"])
    said["runcmd"] = [*commands, ["systemctl", "enable", "--now", "--no-block", "edgeflock-first-boot.service"]]
    return said


def _meta_data(order: Order, files: Files) -> dict[str, object]:
    """Another instance wherever a file differs: cloud-init does all of it again."""
    content = hashlib.sha256(b"".join(name.encode() + files[name] for name in sorted(files)))
    return {"dsmode": "local", "instance-id": f"edgeflock-{order.host_name}-{content.hexdigest()[:16]}"}


def _network(order: Order) -> dict[str, object]:
    wlan = {
        "dhcp4": True,
        "optional": True,
        "regulatory-domain": order.country,
        "access-points": {order.wifi_name: {"password": order.wifi_key}},
    }
    return {
        "network": {"version": 2, "ethernets": {"eth0": {"dhcp4": True, "optional": True}}, "wifis": {"wlan0": wlan}}
    }


def _network_manager(order: Order) -> bytes:
    """A keyfile of NetworkManager; its `ssid` as bytes, which need no quoting."""
    ssid = "".join(f"{byte};" for byte in order.wifi_name.encode())
    return (
        f"[connection]\nid=edgeflock\ntype=wifi\n\n[wifi]\nmode=infrastructure\nssid={ssid}\n\n"
        f"[wifi-security]\nkey-mgmt=wpa-psk\npsk={order.wifi_key}\n\n[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n"
    ).encode()
