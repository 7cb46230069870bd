"""What `edgeflock inspect` says of a bundle's privacy has its numbers, in words."""

import pytest

from fleet_protocol.privacy.device_privacy import DevicePrivacy, with_device_noise
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from tests.support.masked_task import MaskHelperOnDisk, masked_bundle
from tests.unit.test_noise_shares import plan_of
from tests.unit.test_private_tasks import PROMISE, TRAINING
from workbench.inspection.promises import promises

STEPS = TRAINING.steps
ROUND = PROMISE.epsilon_after(STEPS)
DEVICES = with_device_noise(DevicePrivacy(epsilon=2.0, clip=0.5, versions=40, at_most=5), "task.toml")


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (None, []),
        (PrivacyPlan(), []),
        (
            PrivacyPlan(samples=PROMISE),
            [
                "of a sample: epsilon 4 at delta 1e-05, by noise of",
                f"one round tells {PROMISE.epsilon_after(STEPS):.3g}",
            ],
        ),
        (PrivacyPlan(devices=DEVICES), ["to all but the coordinator: epsilon 2 at delta 1e-05 in 40 versions, banded"]),
        (
            PrivacyPlan(masks=plan_of(deviation=217)),
            ["of an update: sums of 70 devices or more", "to the coordinator too: epsilon", "noise of 217 levels"],
        ),
    ],
)
def test_each_table_is_a_promise(plan, words):
    said = "\n".join(promises(plan, STEPS))
    assert all(each in said for each in words)
    assert bool(said) == bool(words)


def test_masks_without_noise_promise_none(tmp_path):
    helpers = [MaskHelperOnDisk(f"mask-{number}", tmp_path) for number in range(2)]
    task = masked_bundle(tmp_path / "bundle", helpers).description
    (said,) = promises(task.privacy, STEPS)
    assert said.endswith("if at most 1 of 2 mask helpers collude")
