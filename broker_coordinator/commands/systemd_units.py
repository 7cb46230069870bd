"""Restarts this server's services where systemd runs them; elsewhere it says what to restart."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from fleet_protocol.errors import ConfigurationError

BROKER_UNIT = "mosquitto-edgeflock"
SYSTEMD_RUNS = Path("/run/systemd/system")
"""Exists where systemd is what started the machine."""


def restart_or_say(units: Sequence[str], *, starts: bool) -> str:
    """Restart those of the services that run, unless not `starts`; returns what was done, or what is to be done.

    Raises:
        ConfigurationError: systemd refuses.
    """
    command = ["systemctl", "try-restart", *units]
    if not (starts and SYSTEMD_RUNS.exists()):
        return f"now restart {' and '.join(units)} (with systemd: {' '.join(command)})"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigurationError(
            f"{' '.join(command)}: {done.stderr.strip()}; everything is written, so mend that and restart them"
        )
    return f"restarted: {' and '.join(units)}"
