"""Versions that hide each device, over a real Mosquitto: kills of the coordinator, a device that waits, and the end."""

from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select

from broker_coordinator.storage.schema import version_noise
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Outcome
from fleet_protocol.privacy.adaptive_clip import AdaptiveClip
from fleet_protocol.privacy.device_privacy import DevicePrivacy, with_device_noise
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import Broker
from tests.support.connected_device import ConnectedDevice
from tests.support.coordinator import CoordinatorProcess
from tests.support.replay import versions_replayed
from tests.support.waiting import until

PLAN = DevicePrivacy(epsilon=8.0, clip=1.0, versions=4, at_most=2, versions_between=2)
FOLLOWING = msgspec.structs.replace(PLAN, epsilon=100.0, noise="independent", adaptive_clip=AdaptiveClip(at_most=10.0))


def hiding_digits(folder: Path, plan: DevicePrivacy):
    plain = copy_digits_bundle(folder, strategy="fedbuff", buffer_size=2, staleness_weighting="constant").description
    training = msgspec.structs.replace(plain.training, validation_share=0.0)
    privacy = PrivacyPlan(devices=with_device_noise(plan, "task.toml"))
    described = msgspec.structs.replace(plain, training=training, privacy=privacy)
    (folder / DESCRIPTION_FILE).write_bytes(msgspec.json.encode(described))
    return load_bundle(folder)


def seeds(coordinator: CoordinatorProcess) -> dict[int, bytes]:
    with coordinator.journal() as journal, journal.engine.connect() as connection:
        return {row.version: row.seed for row in connection.execute(select(version_noise))}


@pytest.mark.parametrize("plan", [PLAN, FOLLOWING], ids=["fixed clip", "clip that follows"])
def test_coordinator_killed_between_versions_keeps_their_noise_and_devices_wait_for_their_turn(
    tmp_path: Path, broker: Broker, plan: DevicePrivacy
) -> None:
    bundle = hiding_digits(tmp_path / "digits", plan)
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [tmp_path / "digits"])
    coordinator.start_serving()
    kitchen = AgentProcess(tmp_path / "kitchen", "kitchen", broker, coordinator.public_key)
    others = [ConnectedDevice(name, broker, coordinator.public_key) for name in ("garden", "hall", "porch", "shed")]
    garden, hall, porch, shed = others
    sequences = dict.fromkeys((device.name for device in others), 0)

    def newest() -> int:
        with coordinator.journal() as journal:
            return journal.newest_number("digits")

    def tell(device: ConnectedDevice, number: int):
        sequences[device.name] += 1
        shapes = bundle.description.shapes
        receipt = device.tell(
            device.update(sequences[device.name], task="digits", shapes=shapes, base_version=newest())
        )
        if receipt.outcome is Outcome.ACCEPTED:
            until(lambda: newest() == number, f"version {number} is there")
        return receipt

    def killed() -> None:
        before = seeds(coordinator)
        coordinator.kill()
        coordinator.start_serving()
        assert seeds(coordinator) == before

    try:
        for device in others:
            device.tell(device.enrolment())
        kitchen.start()
        kitchen.feed(4)
        until(lambda: kitchen.status()["accepted_updates"] == 1, "the first update is accepted")
        killed()
        assert tell(garden, 1).outcome is Outcome.ACCEPTED
        kitchen.ask({"command": "train"})
        until(lambda: "event=not_yet task=digits" in kitchen.log(), "the device waits and does not train in vain")
        assert tell(garden, 1).reason == Reason.TOO_SOON
        assert tell(hall, 1).outcome is Outcome.ACCEPTED
        killed()
        assert tell(porch, 2).outcome is Outcome.ACCEPTED
        until(lambda: kitchen.status()["accepted_updates"] == 2, "its turn has come", seconds=120)
        killed()
        assert tell(garden, 3).outcome is Outcome.ACCEPTED
        assert tell(hall, 3).outcome is Outcome.ACCEPTED
        assert tell(porch, 4).outcome is Outcome.ACCEPTED
        killed()
        assert tell(shed, 4).reason == Reason.PRIVACY_SPENT
        shown = coordinator.tasks("show", "digits")["device_privacy"]
        assert (shown["versions_told"], shown["versions_planned"]) == (4, 4)
        assert 0 < shown["epsilon"] <= plan.epsilon
        assert "all 4 versions" in shown["ended"]
        found = seeds(coordinator)
        assert sorted(found) == [0, 1, 2, 3, 4]
        assert len(set(found.values())) == 5
        with coordinator.journal() as journal:
            assert versions_replayed(journal, "digits") == 4
            clips = [version.clip for version in journal.versions("digits", after=0)]
        if plan is PLAN:
            assert clips == [None] * 4
        else:
            assert len(set(clips)) == 4
            assert shown["clip_now"] == clips[-1]
    finally:
        for device in others:
            device.close()
        kitchen.kill()
        coordinator.kill()
