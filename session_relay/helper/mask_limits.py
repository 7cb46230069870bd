"""How often, and how much, a mask helper answers: whoever repeats the coordinator's requests, or has its key. Pure.

What the coordinator's key has signed can be sent again by anybody on the broker. So a question is answered a few times,
and then once a minute; about a cohort that another one of its task has followed, not at all; and all answers together
take no more than a part of the helper's time and of its link.
"""

import hashlib
from collections import OrderedDict
from typing import Final

from fleet_host.rate_limit import RateLimit
from fleet_protocol.kinds import MaskRequest
from secure_aggregation.manifest import check_manifest, field_of, seed_plan_of
from secure_aggregation.messages import CohortManifest
from secure_aggregation.signatures import read_unverified

REPEATS: Final = 12
"""So often one question is answered at once: a coordinator asks every five seconds, and may be killed meanwhile."""
REPEAT_SECONDS: Final = 60.0
MAX_QUESTIONS: Final = 1024
MAX_TASKS: Final = 256
"""That are remembered at a time."""
MEMBER_COST: Final = 1 << 16
"""Masked entries that take as long as checking a member's signature and opening its box."""
DECRYPTED_COST: Final = 128
"""Masked entries that take as long as decrypting one."""
BYTE_COST: Final = 64
"""Masked entries that a byte of an answer counts as."""
ANSWERS_AT_ONCE: Final = 4
"""Of the largest that the owner allows; then one a minute."""
LEAST_A_MINUTE: Final = 1 << 24
"""Masked entries, where the owner allows small answers alone: those of 256 members without their masks."""


def question_of(request: MaskRequest) -> tuple[str, bytes]:
    """What is asked: the same question has the same answer."""
    return request.step, hashlib.sha256(request.request.cohort_set.content).digest()


class MaskLimits:
    """Of one helper; `most_masked_entries` is its owner's. Times are seconds on any one clock."""

    def __init__(self, most_masked_entries: int) -> None:
        self._most = most_masked_entries
        self._same = RateLimit(REPEAT_SECONDS, MAX_QUESTIONS, burst=REPEATS)
        a_minute = max(most_masked_entries, LEAST_A_MINUTE)
        self._all = RateLimit(60.0 / a_minute, 1, burst=ANSWERS_AT_ONCE * a_minute)
        self._newest: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def why_ignored(self, request: MaskRequest, now: float) -> str | None:
        """Why the coordinator's request is not answered now, in words; None where it is, which is then counted.

        Raises:
            ProtocolError: it has no manifest that a cohort can keep to.
        """
        manifest = read_unverified(request.request.manifest, CohortManifest)
        check_manifest(manifest)
        stands_at = (manifest.generation, manifest.newest_version)
        if stands_at < self._newest.get(manifest.task, stands_at):
            return f"cohort {manifest.number} of {manifest.task} is over: a later one was asked about"
        if not self._same.allows(question_of(request), now):
            return f"it was answered {REPEATS} times; it is again once in {REPEAT_SECONDS:g} seconds"
        if not self._all.allows(None, now, cost=self._cost(request, manifest)):
            return "answers take all of this helper's share of its time and link; raise most_masked_entries in [masks]"
        self._newest[manifest.task] = stands_at
        self._newest.move_to_end(manifest.task)
        if len(self._newest) > MAX_TASKS:
            self._newest.popitem(last=False)
        return None

    def _cost(self, request: MaskRequest, manifest: CohortManifest) -> int:
        """In masked entries. More of them than the owner allows are refused, and cost nothing."""
        members = max(1, len(request.request.seeds))
        cost = members * MEMBER_COST
        if request.step == "answer":
            held = len(seed_plan_of(manifest).held_by(0))
            cost += min(manifest.entries * members * held, self._most)
            if manifest.encryption_key:
                cost += DECRYPTED_COST * manifest.entries
            cost += BYTE_COST * (manifest.entries * field_of(manifest).width * held // 8)
        return cost
