"""A cohort of secure aggregation whose keys, updates and draws follow from a number: devices, helpers, coordinator."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from fleet_host.seal import encryptions_of_zero
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import Signed, SumRequest
from fleet_protocol.privacy.encryption_plan import chunks_of
from fleet_protocol.privacy.noise_shares import NoisedUpdates
from secure_aggregation.coordinator import AdmittedUpdate, admitted, proposed_set
from secure_aggregation.device import MaskedRound, masked_round
from secure_aggregation.helper.claims import Claims, ClaimsInMemory
from secure_aggregation.helper.key_holder import KeyHolder
from secure_aggregation.helper.mask_helper import MaskHelper
from secure_aggregation.helper.set_checks import HelperPolicy, Roster
from secure_aggregation.manifest import seed_plan_of
from secure_aggregation.messages import CohortManifest, CohortSet
from secure_aggregation.positions import shared_positions
from secure_aggregation.signatures import signed

SMALL_SETS = HelperPolicy(fewest_devices=2, fewest_per_weight=2)


def key_of(name: str) -> SigningKey:
    """The key of a device, helper or coordinator of this name."""
    return SigningKey(hashlib.sha256(name.encode()).digest())


def manifest_of(helpers: int = 4, colluding: int = 1, /, **fields: Any) -> CohortManifest:
    """A dense cohort of 16 entries in 8 bits, unless the fields say otherwise."""
    entries = fields.get("entries", 16)
    usual: dict[str, Any] = {
        "number": 1,
        "task": "digits",
        "generation": 0,
        "oldest_version": 3,
        "newest_version": 6,
        "parameters": entries,
        "entries": entries,
        "positions": "dense",
        "positions_seed": 7,
        "top_positions": b"",
        "clip": 1.0,
        "bits": 8,
        "weights": (1, 2, 3, 4),
        "fewest_devices": 2,
        "most_devices": 64,
        "fewest_per_weight": 2,
        "helpers": tuple(bytes(key_of(f"helper-{number}").verify_key) for number in range(helpers)),
        "colluding": colluding,
    }
    return CohortManifest(**(usual | fields))


class MaskedCohort:
    """`devices` updates of a cohort, all admitted; nobody has been asked for a sum yet."""

    def __init__(
        self,
        manifest: CohortManifest,
        devices: int,
        seed: int = 0,
        *,
        sequence: int = 5,
        key_prefix: str = "",
        noised: NoisedUpdates | None = None,
        public: bytes = b"",
    ) -> None:
        """`public` is the key that a cohort with a key holder encrypts under."""
        self.manifest = manifest
        self.noised = noised
        self.public = public
        self.key_prefix = key_prefix
        self.generator = np.random.default_rng(seed)
        self.coordinator = key_of("coordinator")
        self.names = [f"pi-{number:04}" for number in range(devices)]
        self.roster = {name: key_of(key_prefix + name).verify_key for name in self.names}
        self.rounds: dict[str, MaskedRound] = {name: self.round_of(name, sequence) for name in self.names}
        self.admitted = {name: self._admitted(name) for name in self.names}

    def round_of(self, name: str, sequence: int, vector: Any = None) -> MaskedRound:
        """A device's message, of a random update unless it is given."""
        if vector is None:
            vector = self.generator.normal(0, 0.5, self.manifest.parameters).astype(np.float32)
        return masked_round(
            self.manifest,
            shared_positions(self.manifest),
            vector,
            key=key_of(self.key_prefix + name),
            device=name,
            sequence=sequence,
            base_version=self.manifest.newest_version,
            random_bytes=self.generator.bytes,
            noised=self.noised,
            zeros=encryptions_of_zero(self.public, chunks_of(self.manifest.entries)) if self.public else None,
        )

    def _admitted(self, name: str) -> AdmittedUpdate:
        return admitted(self.manifest, self.rounds[name].update, name, self.roster[name])

    def set_of(self, weights: Mapping[str, int]) -> CohortSet:
        """The set of these devices, each with its weight."""
        return proposed_set(self.manifest, [(self.admitted[name], weight) for name, weight in weights.items()])

    def request(self, cohort_set: CohortSet, /, **changed: Any) -> SumRequest:
        """What a coordinator asks a helper; `changed` are fields that it gets wrong."""
        request = SumRequest(
            signed(self.coordinator, self.manifest),
            signed(self.coordinator, cohort_set),
            tuple(self.admitted[member.device].seeds for member in cohort_set.members),
        )
        return msgspec.structs.replace(request, **changed)

    def helper(
        self,
        number: int,
        claims: Claims | None = None,
        policy: HelperPolicy = SMALL_SETS,
        roster: Roster | None = None,
        holder: KeyHolder | None = None,
    ) -> MaskHelper:
        """A helper of the cohort, which has claimed nothing unless `claims` say so, and knows all unless `roster`."""
        known = self.roster if roster is None else roster
        return MaskHelper(
            key_of(f"helper-{number}"),
            self.coordinator.verify_key,
            known,
            policy,
            claims or ClaimsInMemory(),
            holder=holder,
        )

    def helpers(self) -> list[MaskHelper]:
        """All of them, new."""
        return [self.helper(number) for number in range(len(self.manifest.helpers))]

    def answers(
        self, cohort_set: CohortSet, answering: Iterable[int], helpers: Sequence[MaskHelper] | None = None
    ) -> list[Signed]:
        """Have as many helpers sign as the cohort needs, then have these answer."""
        asked = helpers or self.helpers()
        request = self.request(cohort_set)
        signatures = [helper.sign(request) for helper in asked[-seed_plan_of(self.manifest).signatures_needed :]]
        return [asked[number].answer(request, signatures) for number in answering]

    def plain_sum(self, weights: Mapping[str, int]) -> Any:
        """The weighted sum of levels, int64[entries], as whoever sees all updates computes it."""
        return sum(weight * self.rounds[name].levels for name, weight in weights.items())
