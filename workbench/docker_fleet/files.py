"""The folder of a fleet in containers: keys, profiles and configurations, as an operator would write them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_agent.verbs.measure import as_toml
from fleet_host.key_files import make_key_file
from fleet_protocol.errors import ConfigurationError, why_unreadable
from fleet_protocol.keys import write_verify_key
from workbench.demo.brokers import MOSQUITTO_CONFIGURATION
from workbench.demo.fleet_files import COORDINATOR, FLEET, TASK, DeviceFiles, FleetFiles
from workbench.docker_fleet.compose import BROKER_PORT, BUNDLE_FOLDER, SOCKET_FILE, SOCKET_FOLDER, STATE_FOLDER, Places
from workbench.docker_fleet.devices import PlannedDevice
from workbench.docker_fleet.names import BROKER
from workbench.recipe_folder import find_recipe

ROOTS_STAND_IN = 990
"""Account and group of the containers where root runs the fleet: `edge-agent` in the image."""

AGENT = """\
fleet = "{fleet}"
device = "{device}"
key_file = "device.key"
coordinator_key = "{coordinator_key}"
state_folder = "{state_folder}"
sample_socket = "{socket}"
profile = {profile}

[broker]
host = "{host}"
port = {port}
keepalive_seconds = 10

[guards]
minimum_samples = {new_samples}
recheck_seconds = 1.0
maximum_temperature_celsius = 200.0 # the host's sensors say nothing of a device

[[tasks]]
name = "{task}"
trigger = {{ new_samples = {new_samples} }}
"""


@dataclass(frozen=True, slots=True)
class Account:
    """Owns a fleet's files, and runs its containers."""

    user: int
    group: int


def own_account() -> Account:
    """That of whoever runs the fleet; never root's."""
    user = os.getuid()
    return Account(user, os.getgid()) if user else Account(ROOTS_STAND_IN, ROOTS_STAND_IN)


def write_fleet(
    folder: Path, sockets: Path, devices: Sequence[PlannedDevice], account: Account, new_samples: int
) -> tuple[FleetFiles, Places]:
    """Make every folder and key, and write every configuration.

    Raises:
        ConfigurationError: a file can't be written.
    """
    places = Places(
        folder / BROKER,
        folder / "coordinator",
        folder / "devices",
        sockets,
        find_recipe(TASK) / "bundle",
        account.user,
        account.group,
    )
    files = FleetFiles(
        places.coordinator,
        [
            DeviceFiles(device.name, places.devices / device.name, sockets / device.name / SOCKET_FILE)
            for device in devices
        ],
    )
    try:
        _write(files, places, devices, new_samples)
        for path in _owned(places):
            os.chown(path, account.user, account.group)
    except OSError as error:
        raise ConfigurationError(f"{folder}: {why_unreadable(error, 'name a folder that can be written')}") from error
    return files, places


def _write(files: FleetFiles, places: Places, devices: Sequence[PlannedDevice], new_samples: int) -> None:
    for folder in (places.broker, places.coordinator, places.devices):
        folder.mkdir()
    (places.broker / "mosquitto.conf").write_text(MOSQUITTO_CONFIGURATION.format(listener=BROKER_PORT))
    address = {"fleet": FLEET, "host": BROKER, "port": BROKER_PORT}
    key = write_verify_key(make_key_file(places.coordinator / "coordinator.key", "broker-coordinator"))
    files.coordinator_configuration.write_text(COORDINATOR.format(bundle=BUNDLE_FOLDER, protocol="5", **address))
    for device, own in zip(devices, files.devices, strict=True):
        own.folder.mkdir()
        own.socket.parent.mkdir()
        make_key_file(own.folder / "device.key", "edge-agent")
        (own.folder / f"{device.kind}.toml").write_text(as_toml(device.profile))
        own.configuration.write_text(
            AGENT.format(
                device=device.name,
                profile=msgspec.json.encode(f"{device.kind}.toml").decode(),  # JSON's texts are TOML's too
                coordinator_key=key,
                state_folder=STATE_FOLDER,
                socket=f"{SOCKET_FOLDER}/{SOCKET_FILE}",
                new_samples=new_samples,
                task=TASK,
                **address,
            )
        )


def _owned(places: Places) -> Iterator[Path]:
    """Everything that a container reads or writes."""
    for folder in (places.broker, places.coordinator, places.devices, places.sockets):
        yield from (folder, *folder.rglob("*"))
