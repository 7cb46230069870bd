"""`broker-coordinator install-service | uninstall-service`: its unit, and that of the Mosquitto beside it."""

import argparse
from pathlib import Path

from fleet_host.command_line import Verbs
from fleet_host.services import Service, add_service_verbs, installer_of

SERVICE = Service(
    program="broker-coordinator",
    package="edgeflock-coordinator",
    configured_by="broker-coordinator setup --host NAME",
    units=("mosquitto-edgeflock.service", "broker-coordinator.service", "broker-coordinator@.service"),
    enabled=("mosquitto-edgeflock.service", "broker-coordinator.service"),
    configuration=Path("/etc/broker-coordinator/coordinator.toml"),
    state=Path("/var/lib/broker-coordinator"),
    more_state=(
        Path("/etc/mosquitto-edgeflock"),
        Path("/var/lib/mosquitto-edgeflock"),
        Path("/etc/edgeflock-authority"),
    ),
)


def add_parser(verbs: Verbs, *_parents: argparse.ArgumentParser) -> None:
    """Both verbs."""
    add_service_verbs(verbs)


def install_service(options: argparse.Namespace) -> None:
    """Install, or bring an installation up to date.

    Raises:
        ConfigurationError: something can't be written or run.
    """
    installer_of(options).install(SERVICE, {})


def uninstall_service(options: argparse.Namespace) -> None:
    """Take it away again.

    Raises:
        ConfigurationError: something can't be deleted or run.
    """
    installer_of(options).uninstall(SERVICE, [])
