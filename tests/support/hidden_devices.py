"""A tiny task whose versions hide each device."""

from pathlib import Path
from typing import Any

import msgspec

from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.privacy.device_privacy import DevicePrivacy, with_device_noise
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from tests.support.bundles import write_bundle

PLAN: dict[str, Any] = {"epsilon": 4.0, "clip": 0.5, "versions": 6, "at_most": 3, "versions_between": 2}
AGGREGATION = AggregationPlan(buffer_size=2, staleness_weighting="constant", max_staleness=10)


def hiding_plan(**changed: Any) -> DevicePrivacy:
    """The plan with its noise, as an export finds it."""
    return with_device_noise(DevicePrivacy(**(PLAN | changed)), "task.toml")


def hiding_bundle(folder: Path, buffer_size: int = 2, **changed: Any) -> Bundle:
    """The tiny task of so many updates a version."""
    plain = write_bundle(folder, aggregation=msgspec.structs.replace(AGGREGATION, buffer_size=buffer_size))
    training = msgspec.structs.replace(plain.description.training, validation_share=0.0)
    privacy = PrivacyPlan(devices=hiding_plan(**changed))
    description = msgspec.structs.replace(plain.description, training=training, privacy=privacy)
    (folder / DESCRIPTION_FILE).write_bytes(msgspec.json.encode(description))
    return load_bundle(folder)
