"""A cohort of secure aggregation, byte for byte, for `write.py`: two devices, three helpers of whom two may collude.

Every draw is a counter: the n-th one that a device asks for is bytes of the value n.
"""

from itertools import count

import numpy as np

from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import SumRequest, encode_payload
from secure_aggregation.coordinator import AdmittedUpdate, admitted, proposed_set, unmasked, weighted_mean
from secure_aggregation.device import masked_round
from secure_aggregation.helper.claims import ClaimsInMemory
from secure_aggregation.helper.mask_helper import MaskHelper
from secure_aggregation.helper.set_checks import HelperPolicy
from secure_aggregation.messages import CohortManifest, SetSignature, message_hash
from secure_aggregation.positions import shared_positions
from secure_aggregation.signatures import signed

COORDINATOR = SigningKey(bytes([1]) * 32)
DEVICES = {"attic-pi": SigningKey(bytes([2]) * 32), "kitchen-pi": SigningKey(bytes([3]) * 32)}
HELPERS = [SigningKey(bytes([seed]) * 32) for seed in (4, 5, 6)]
MANIFEST = CohortManifest(
    number=7, task="digits", generation=0, oldest_version=3, newest_version=5, parameters=12, entries=5,
    positions="random", positions_seed=11, top_positions=b"", clip=0.5, bits=8, weights=(1, 2),
    fewest_devices=2, most_devices=20, fewest_per_weight=2,
    helpers=tuple(bytes(key.verify_key) for key in HELPERS), colluding=2,
)  # fmt: skip


def masked_vectors() -> list[dict[str, object]]:
    """From two updates to their sum: each message with what it is made of."""
    updates = {"attic-pi": np.linspace(-0.6, 0.6, 12), "kitchen-pi": np.linspace(0.4, -0.4, 12)}
    positions = shared_positions(MANIFEST)
    vectors: list[dict[str, object]] = [
        {
            "name": "manifest",
            "signing_seed": bytes(COORDINATOR).hex(),
            "cohort": message_hash(MANIFEST).hex(),
            "positions": positions.tolist(),
            "hex": encode_payload(signed(COORDINATOR, MANIFEST)).hex(),
        }
    ]
    taken = {}
    for device, vector in updates.items():
        draws = count()
        done = masked_round(
            MANIFEST, positions, vector.astype(np.float32), key=DEVICES[device], device=device, sequence=9,
            base_version=4, random_bytes=lambda size, draws=draws: bytes([next(draws)]) * size,
        )  # fmt: skip
        taken[device] = admitted(MANIFEST, done.update, device, DEVICES[device].verify_key)
        vectors.append(
            {
                "name": f"masked update of {device}",
                "signing_seed": bytes(DEVICES[device]).hex(),
                "update": vector.astype(np.float32).tolist(),
                "levels": done.levels.tolist(),
                "hex": encode_payload(done.update).hex(),
            }
        )
    return vectors + _sum_vectors(taken)


def _sum_vectors(taken: dict[str, AdmittedUpdate]) -> list[dict[str, object]]:
    cohort_set = proposed_set(MANIFEST, [(update, 2) for update in taken.values()])
    request = SumRequest(
        signed(COORDINATOR, MANIFEST),
        signed(COORDINATOR, cohort_set),
        tuple(taken[member.device].seeds for member in cohort_set.members),
    )
    roster = {device: key.verify_key for device, key in DEVICES.items()}
    answers = [
        MaskHelper(key, COORDINATOR.verify_key, roster, HelperPolicy(2, 2), ClaimsInMemory()).answer(request, [])
        for key in HELPERS
    ]
    total = unmasked(MANIFEST, cohort_set, taken, answers)
    signature = SetSignature(message_hash(MANIFEST), message_hash(cohort_set), 0)
    return [
        {"name": "request", "set_hash": message_hash(cohort_set).hex(), "hex": encode_payload(request).hex()},
        {
            "name": "signature of helper 0",
            "signing_seed": bytes(HELPERS[0]).hex(),
            "hex": encode_payload(signed(HELPERS[0], signature)).hex(),
        },
        *(
            {
                "name": f"answer of helper {number}",
                "signing_seed": bytes(HELPERS[number]).hex(),
                "hex": encode_payload(answer).hex(),
            }
            for number, answer in enumerate(answers)
        ),
        {
            "name": "sum",
            "levels": total.levels.tolist(),
            "total_weight": total.total_weight,
            "mean": weighted_mean(MANIFEST, total).tolist(),
        },
    ]
