"""Whether the machine's link costs by volume: what NetworkManager says, else whether it is a modem."""

import subprocess
from pathlib import Path

ASKED = (
    *("busctl", "get-property", "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"),
    *("org.freedesktop.NetworkManager", "Metered"),
)
"""busctl comes with systemd; it prints a type and a value, such as `u 4`."""
ANSWER_SECONDS = 2.0
METERED = {"u 1": True, "u 2": False, "u 3": True, "u 4": False}
"""NMMetered: yes, no, guessed yes, guessed no; 0 is unknown. A guess is from the kind of link and the access point."""
ROUTES, INTERFACES = Path("/proc/net/route"), Path("/sys/class/net")
DEFAULT_DESTINATION = "00000000"
MODEMS = ("wwan", "ppp")


def metered(routes: Path = ROUTES, interfaces: Path = INTERFACES) -> bool | None:
    """Whether it does; None where this machine can't tell."""
    said = _of_network_manager()
    if said is not None:
        return said
    return True if _is_modem(_default_interface(routes), interfaces) else None


def _of_network_manager() -> bool | None:
    try:
        asked = subprocess.run(ASKED, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return METERED.get(asked.stdout.strip())


def _default_interface(routes: Path) -> str:
    """The name of the interface that the default route (IPv4) goes over; empty where there is none."""
    rows = [line.split() for line in _lines(routes)]
    return next((row[0] for row in rows if len(row) > 1 and row[1] == DEFAULT_DESTINATION), "")


def _is_modem(interface: str, interfaces: Path) -> bool:
    if not interface:
        return False
    return interface.startswith(MODEMS) or "DEVTYPE=wwan" in _lines(interfaces / interface / "uevent")


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
