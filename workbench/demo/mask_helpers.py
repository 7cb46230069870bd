"""The mask helpers of a demo in which nobody sees an update by itself: their files, and the task that names them."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from bundle_runtime.bundle import written
from fleet_host.key_files import read_key_file
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import write_verify_key
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from session_relay.helper.mask_claims import FILE_NAME, MaskClaims
from session_relay.helper.status import HelperStatus, ask_helper
from workbench.demo.brokers import BrokerPlan
from workbench.demo.fleet_files import FleetFiles
from workbench.demo.helper import ASK_SECONDS, READY_SECONDS, HelperFiles, write_helper
from workbench.privacy_modes.modes import COLLUDING, MASK_HELPERS, masked, usual_masks

FEWEST_DEVICES = 2
WAIT_SECONDS = 4.0
PATIENCE_SECONDS = 3.0

MASKS = """
[masks]
fewest_devices = {fewest}

[masks.roster]
{roster}
"""
OWNER = """
[privacy]
at_least = "masks"
trusted_mask_helpers = {keys}
fewest_devices = {fewest}
fewest_colluding = {colluding}
"""


async def write_mask_helpers(
    files: FleetFiles, sockets: Path, broker: BrokerPlan, coordinator_key: str, bundle: Path
) -> list[HelperFiles]:
    """Make their keys and configurations, and have `bundle` and the devices' owners name them.

    Raises:
        CommandFailedError: one of edgeflock's commands failed.
        ConfigurationError: the task can't be summed behind masks, and why.
    """
    helpers = await asyncio.gather(
        *(write_helper(files, sockets, broker, coordinator_key, name) for name in MASK_HELPERS)
    )
    roster = "\n".join(f'{device.name} = "{_public_key(device.folder)}"' for device in files.devices)
    for helper in helpers:
        with helper.configuration.open("a") as file:
            file.write(MASKS.format(fewest=FEWEST_DEVICES, roster=roster))
    keys = {helper.name: _mask_key(helper) for helper in helpers}
    _name_in_task(bundle, keys, len(files.devices))
    _name_in_owners_settings(files, list(keys.values()))
    return helpers


def _public_key(folder: Path) -> str:
    return write_verify_key(read_key_file(folder / "device.key", "edge-agent").verify_key)


def _mask_key(helper: HelperFiles) -> str:
    """That of its claims, which its first start would make."""
    claims = MaskClaims(helper.database.parent / FILE_NAME)
    try:
        return write_verify_key(claims.key.verify_key)
    finally:
        claims.close()


def _name_in_task(bundle: Path, keys: Mapping[str, str], devices: int) -> None:
    path = bundle / DESCRIPTION_FILE
    usual = usual_masks(keys, FEWEST_DEVICES)
    plan = msgspec.structs.replace(usual, wait_seconds=WAIT_SECONDS, patience_seconds=PATIENCE_SECONDS)
    text = written(masked(parse_description(path.read_bytes()), PrivacyPlan(masks=plan), devices))
    parse_description(text, "the task with --privacy masks")
    path.write_bytes(text)


def _name_in_owners_settings(files: FleetFiles, keys: Sequence[str]) -> None:
    words = OWNER.format(
        keys=msgspec.json.encode(keys).decode(),  # JSON's texts are TOML's too
        fewest=FEWEST_DEVICES,
        colluding=COLLUDING,
    )
    for device in files.devices:
        with device.configuration.open("a") as file:
            file.write(words)


async def until_enrolled(helper: HelperFiles) -> None:
    """Wait until the coordinator knows it.

    Raises:
        ConfigurationError: it does not within `READY_SECONDS`.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_SECONDS):
            while not await asyncio.to_thread(_is_enrolled, helper.socket):  # noqa: ASYNC110 - no event: a process
                await asyncio.sleep(ASK_SECONDS)
            return
    raise ConfigurationError(
        f"{helper.name} is not enrolled (waited {READY_SECONDS:g} s); see {helper.folder}/helper.log"
    )


def _is_enrolled(socket: Path) -> bool:
    with contextlib.suppress(ConfigurationError):
        return msgspec.json.decode(ask_helper(socket), type=HelperStatus).enrolled
    return False
