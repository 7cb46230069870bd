"""A tiny task whose updates are summed behind masks, its devices and its mask helpers, each as shipped."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import nacl.utils
import numpy as np

from bundle_runtime.bundle import Bundle
from fleet_host.seal import encryptions_of_zero
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle_files import KEY_HOLDER_FILE
from fleet_protocol.keys import VerifyKey, write_verify_key
from fleet_protocol.kinds import (
    MASK_REPLY,
    MASKED_UPDATE,
    MaskReply,
    MaskRequest,
    Signed,
    decode_payload,
    encode_payload,
)
from fleet_protocol.privacy.encryption_plan import chunks_of
from fleet_protocol.privacy.mask_plan import MASKED_UPDATE_NAME, MaskPlan, with_noise_of_shares
from fleet_protocol.privacy.noise_shares import NoisedUpdates
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.training_plan import TrainingPlan
from secure_aggregation.device import MaskedRound, masked_round
from secure_aggregation.helper.mask_helper import MaskHelper
from secure_aggregation.helper.set_checks import HelperPolicy
from secure_aggregation.messages import CohortManifest
from secure_aggregation.positions import shared_positions
from secure_aggregation.signatures import read_unverified
from session_relay.helper.mask_claims import MaskClaims
from session_relay.helper.mask_serving import key_holder_of, reply_to
from tests.support.bundles import PARAMETERS, TASK, write_bundle
from tests.support.device import SigningDevice

POLICY = HelperPolicy(fewest_devices=2, fewest_per_weight=2)


class MaskHelperOnDisk:
    """A mask helper without a network: its claims are on the disk, its answers the shipped ones."""

    def __init__(self, name: str, folder: Path, *, holds_key: bool = False) -> None:
        self.member, self._path, self._holds_key = SigningDevice(name), folder / f"{name}.db", holds_key
        self._start()
        self.heard: list[MaskRequest] = []

    @property
    def key(self) -> VerifyKey:
        """That boxes are made for."""
        return self.claims.key.verify_key

    def restart(self) -> None:
        """Be killed, and start again."""
        self.claims.close()
        self._start()

    def _start(self) -> None:
        self.claims = MaskClaims(self._path)
        self.holder = key_holder_of(self.claims) if self._holds_key else None

    def reply(self, request: MaskRequest, coordinator: VerifyKey, devices: Sequence[SigningDevice]) -> MaskReply | None:
        """What it says, with these devices in its roster."""
        self.heard.append(request)
        roster = {device.name: device.key.verify_key for device in devices}
        helper = MaskHelper(self.claims.key, coordinator, roster, POLICY, self.claims, holder=self.holder)
        return reply_to(request, helper)

    def sent(self, reply: MaskReply, sequence: int) -> bytes:
        """The signed message."""
        return self.member.sign(MASK_REPLY, encode_payload(reply), sequence=sequence)


def masked_bundle(
    folder: Path,
    helpers: Sequence[MaskHelperOnDisk],
    /,
    devices: int = 3,
    *,
    aggregation: AggregationPlan | None = None,
    **plan: Any,
) -> Bundle:
    """The tiny task with sums of at most so many devices, at least two; with `noise`, as its export would find it."""
    usual: dict[str, Any] = {
        "clip": 0.5,
        "bits": 12,
        "fewest_devices": 2,
        "wait_seconds": 60.0,
        "patience_seconds": 20.0,
    }
    keys = {helper.member.name: write_verify_key(helper.key) for helper in helpers}
    held = [helper.claims.encryption_key()[1] for helper in helpers if helper.member.name == plan.get("key_holder")]
    masks = with_noise_of_shares(MaskPlan(helpers=keys, **(usual | plan)), sum(each.size for each in PARAMETERS), TASK)
    training = TrainingPlan(steps=25, batch_size=4, learning_rate=0.1, validation_share=0.0)
    usual_aggregation = AggregationPlan(buffer_size=devices, averaged_versions=1, staleness_weighting="constant")
    return write_bundle(
        folder,
        aggregation=aggregation or usual_aggregation,
        privacy=PrivacyPlan(masks=masks),
        versions_from=MASKED_UPDATE_NAME,
        training=training if masks.noise else None,
        more_files={KEY_HOLDER_FILE: held[0]} if held else None,
    )


class MaskedDevice(SigningDevice):
    """Makes masked updates of random changes, and keeps what is in them. One that `spoils` sends values that don't have
    the masks of its seeds. Where they have noise, `noised` is of its task; where they are encrypted, `public` is the
    key.
    """

    spoils = False
    noised: NoisedUpdates | None = None
    public = b""

    def masked(self, cohort: bytes, sequence: int, version: int = 0) -> bytes:
        """Its message to the cohort that a manifest of the task names."""
        manifest = read_unverified(decode_payload(cohort, Signed), CohortManifest)
        generator = np.random.default_rng(int.from_bytes(self.name.encode(), "big") + sequence)
        vector = generator.normal(0, 0.1, manifest.parameters).astype(np.float32)
        self.made: MaskedRound = masked_round(
            manifest,
            shared_positions(manifest),
            vector,
            key=self.key,
            device=self.name,
            sequence=sequence,
            base_version=version,
            random_bytes=nacl.utils.random,
            noised=self.noised,
            zeros=encryptions_of_zero(self.public, chunks_of(manifest.entries)) if self.public else None,
        )
        update = self.made.update
        if self.spoils:
            update = msgspec.structs.replace(update, values=bytes(len(update.values)))
        payload = encode_payload(update)
        return self.sign(MASKED_UPDATE, payload, sequence=sequence, task=TASK, base_version=version)
