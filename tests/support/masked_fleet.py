"""Mask helpers as processes of their own, and devices whose updates nobody may see alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE, KEY_HOLDER_FILE, blob_hash
from fleet_protocol.keys import VerifyKey, write_verify_key
from fleet_protocol.privacy.mask_plan import MASKED_UPDATE_NAME, MaskPlan, with_noise_of_shares
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from session_relay.helper.mask_claims import FILE_NAME, MaskClaims
from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import Broker
from tests.support.helper import HelperProcess

OWNER = """
[privacy]
at_least = "{at_least}"
trusted_mask_helpers = {keys}
fewest_devices = {fewest}
fewest_colluding = {colluding}
"""


class MaskHelperProcess(HelperProcess):
    """A helper whose configuration makes it a mask helper; it has its mask key before it first starts."""

    def __init__(
        self, folder: Path, name: str, broker: Broker, coordinator_key: VerifyKey, *, holds_key: bool = False
    ) -> None:
        super().__init__(folder, name, broker, coordinator_key, task="digits")
        self.holds_key = holds_key
        claims = MaskClaims(folder / "state" / FILE_NAME)
        self.mask_key = write_verify_key(claims.key.verify_key)
        self.key_file = claims.encryption_key()[1] if holds_key else b""
        claims.close()

    def knows(self, devices: Sequence[AgentProcess]) -> None:
        """Write its roster."""
        roster = "".join(f'{device.name} = "{device.public_key}"\n' for device in devices)
        text, held = self.configuration.read_text(), str(self.holds_key).lower()
        self.configuration.write_text(
            f"{text}\n[masks]\nfewest_devices = 2\nkey_holder = {held}\n[masks.roster]\n{roster}"
        )


def masked_digits(
    folder: Path,
    helpers: Sequence[MaskHelperProcess],
    devices: int,
    *,
    staleness_weighting: Any = "constant",
    **plan: Any,
) -> Path:
    """The shipped digits whose updates are summed over `devices`, at least two of them."""
    copy_digits_bundle(folder)
    description = parse_description((folder / DESCRIPTION_FILE).read_bytes())
    usual: dict[str, Any] = {"clip": 0.2, "fewest_devices": 2, "wait_seconds": 20.0, "patience_seconds": 4.0}
    holders = [helper for helper in helpers if helper.holds_key]
    if holders:
        usual["key_holder"] = holders[0].name
    masks = MaskPlan(helpers={helper.name: helper.mask_key for helper in helpers}, **(usual | plan))
    masks = with_noise_of_shares(masks, description.trained_count, "digits")
    keys = {KEY_HOLDER_FILE: holders[0].key_file} if holders else {}
    for name, content in keys.items():
        (folder / name).write_bytes(content)
    changed = msgspec.structs.replace(
        description,
        files=description.files | {name: blob_hash(content) for name, content in keys.items()},
        aggregation=msgspec.structs.replace(
            description.aggregation, strategy="fedbuff", buffer_size=devices, staleness_weighting=staleness_weighting
        ),
        training=msgspec.structs.replace(description.training, validation_share=0.0),
        privacy=PrivacyPlan(masks=masks),
        versions_from=MASKED_UPDATE_NAME,
    )
    (folder / DESCRIPTION_FILE).write_bytes(msgspec.json.encode(changed))
    load_bundle(folder)
    return folder


def owned(device: AgentProcess, helpers: Sequence[MaskHelperProcess], fewest: int = 2, at_least: str = "masks") -> None:
    """Let the device's owner demand masks of these helpers."""
    keys = [helper.mask_key for helper in helpers]
    text = device.configuration.read_text()
    device.configuration.write_text(
        text
        + OWNER.format(
            keys=msgspec.json.encode(keys).decode(),
            fewest=fewest,
            at_least=at_least,
            colluding=min(1, len(helpers) - 1),
        )
    )
