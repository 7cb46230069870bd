"""The table `[privacy]` of a task: what it promises about what leaves a device, or the coordinator."""

import msgspec

from fleet_protocol.privacy.device_privacy import DevicePrivacy
from fleet_protocol.privacy.mask_plan import MaskPlan
from fleet_protocol.privacy.sample_privacy import SamplePrivacy


class PrivacyPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is told of what a device has learned (docs/privacy.md)."""

    samples: SamplePrivacy | None = None
    masks: MaskPlan | None = None
    devices: DevicePrivacy | None = None
