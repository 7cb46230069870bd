"""How a coordinator asks mask helpers about one closed cohort, from its updates to the sum of their masks. Pure.

    unusable  whose boxes open nowhere is left out, and the rest is asked about again, until enough helpers find nothing
              (then the caller commits the set: from here on it is that one, or none)
    sign      until enough have signed; not asked where none is needed
    answer    until all have answered; or, after `patience`, enough

Nothing of it needs to outlive the process: helpers give the same answers again. Times are seconds on any one clock.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from fleet_protocol.errors import ProtocolError
from fleet_protocol.keys import VerifyKey
from fleet_protocol.kinds import MaskReply, MaskRequest, MaskStep, Signed, SumRequest
from secure_aggregation.coordinator import (
    AdmittedUpdate,
    VoidCohortError,
    checked_answer,
    proposed_set,
    require_summed,
)
from secure_aggregation.manifest import seed_plan_of
from secure_aggregation.messages import CohortManifest, CohortSet, HelperAnswer, SetSignature, message_hash
from secure_aggregation.signatures import verified
from secure_aggregation.weights import shared_weights

ASK_AGAIN_SECONDS = 5.0
"""Between two requests to a helper that has not answered."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How long helpers are waited for: `patience` where enough others have answered, `give_up` for a whole step."""

    patience: float
    give_up: float


@dataclass(slots=True)
class _Step:
    """What has been said in one step about one set."""

    name: MaskStep
    began: float
    asked_at: dict[int, float] = field(default_factory=dict)
    replies: dict[int, MaskReply] = field(default_factory=dict)


class Asking:
    """Of one cohort. `candidates` are its updates by device; `fixed` is the set, where one was committed before.

    `sign_set` signs with the coordinator's key. `weight_of` says what an update of a version should weigh; it
    does where enough others weigh the same. `ciphertext_of` adds up a set's encrypted updates; empty where they are
    not encrypted.

    Raises:
        VoidCohortError: fewer than the least devices, a member of the set has no update, or the committed set's
            ciphertext is another.
    """

    def __init__(
        self,
        signed_manifest: Signed,
        manifest: CohortManifest,
        candidates: Mapping[str, AdmittedUpdate],
        terms: Terms,
        *,
        sign_set: Callable[[CohortSet], Signed],
        weight_of: Callable[[int], int],
        ciphertext_of: Callable[[CohortSet], bytes],
        fixed: tuple[Signed, CohortSet] | None,
        now: float,
    ) -> None:
        self._signed_manifest = signed_manifest
        self._manifest = manifest
        self._plan = seed_plan_of(manifest)
        self._candidates = dict(candidates)
        self._terms = terms
        self._sign_set = sign_set
        self._weight_of = weight_of
        self._ciphertext_of = ciphertext_of
        self._ciphertext = b""
        self._signatures: tuple[Signed, ...] = ()
        self._lone_words: dict[int, set[str]] = {}
        if fixed is None:
            self._propose()
            self._step = _Step("unusable", now)
        else:
            self._signed_set, self.cohort_set = fixed
            if lacking := {each.device for each in self.cohort_set.members} - candidates.keys():
                raise self._void(f"the update of {min(lacking)} is lost")
            self._ciphertext = ciphertext_of(self.cohort_set)
            require_summed(self.cohort_set, self._ciphertext)
            self._step = self._first_step(now)

    @property
    def step(self) -> MaskStep:
        """What helpers are asked now."""
        return self._step.name

    def agree(self) -> tuple[Signed, CohortSet]:
        """The set that is to be committed: with the sum of its encrypted updates, where they are encrypted."""
        self._ciphertext = self._ciphertext_of(self.cohort_set)
        if self._ciphertext:
            digest = hashlib.sha256(self._ciphertext).digest()
            self.cohort_set = msgspec.structs.replace(self.cohort_set, ciphertext=digest)
            self._signed_set = self._sign_set(self.cohort_set)
        return self._signed_set, self.cohort_set

    def fix(self, now: float) -> None:
        """The set is committed."""
        self._step = self._first_step(now)

    def requests(self, now: float) -> list[tuple[int, MaskRequest]]:
        """What is to be asked now, by the helpers' numbers."""
        due = [
            number
            for number in range(self._plan.helpers)
            if number not in self._step.replies
            and now - self._step.asked_at.get(number, now - ASK_AGAIN_SECONDS) >= ASK_AGAIN_SECONDS
        ]
        seeds = tuple(self._candidates[member.device].seeds for member in self.cohort_set.members)
        about = SumRequest(self._signed_manifest, self._signed_set, seeds)
        for number in due:
            self._step.asked_at[number] = now
        return [
            (number, MaskRequest(self._step.name, about, self._signatures, self._ciphertext_for(number)))
            for number in due
        ]

    def _ciphertext_for(self, number: int) -> bytes:
        """What a helper is to decrypt: the key holder alone, and once it is to answer."""
        is_asked = self._step.name == "answer" and number == self._manifest.key_holder
        return self._ciphertext if is_asked else b""

    def next_due(self) -> float:
        """When `requests` or `advance` will next have something, if nobody replies. Never a moment at which both have
        had their say: whoever waits for it would not sleep.
        """
        asked = [
            self._step.asked_at.get(number, self._step.began) + ASK_AGAIN_SECONDS
            for number in range(self._plan.helpers)
            if number not in self._step.replies
        ]
        has_enough = len(self._willing) >= self._needed
        return min((*asked, self._step.began + (self._terms.patience if has_enough else self._terms.give_up)))

    def receive(self, number: int, reply: MaskReply) -> bool:
        """Take what a helper says; False, and nothing, where it is about another step or set, or was said before.

        So a helper is listened to once for each step and set, and a set has fewer devices than the one before.
        """
        about_this = (reply.step, reply.set_hash) == (self._step.name, message_hash(self.cohort_set))
        if not about_this or number in self._step.replies:
            return False
        self._step.replies[number] = self._checked(number, reply)
        return True

    def take_lone_words(self) -> dict[int, set[str]]:
        """The devices that were left out since this was last asked as one helper alone, by its number, can't use them,
        while others can.
        """
        taken, self._lone_words = self._lone_words, {}
        return taken

    def advance(self, now: float) -> list[Signed] | None:
        """Go as far as replies allow: None while some are awaited, or while `is_agreed`; then the helpers' answers.

        Raises:
            VoidCohortError: too few devices are left, or too few helpers do what they are asked.
        """
        if self._step.name == "unusable":
            self._leave_out_unusable(now)
            self._require_possible(now)
            return None
        if self._step.name == "sign" and len(self._willing) >= self._plan.signatures_needed:
            self._signatures = tuple(each.signed[0] for each in self._willing.values())
            self._step = _Step("answer", now)
        self._require_possible(now)
        if self._step.name == "answer" and self._has_enough(now, self._plan.answers_needed):
            return [each.signed[0] for each in self._willing.values()]
        return None

    def is_agreed(self, now: float) -> bool:
        """Whether enough helpers can use all that is in the set, which is to be committed now."""
        return self._step.name == "unusable" and self._has_enough(now, self._needed)

    @property
    def _willing(self) -> dict[int, MaskReply]:
        return {number: each for number, each in self._step.replies.items() if not each.refusal}

    @property
    def _needed(self) -> int:
        """Helpers that have to do what the present step asks for."""
        match self._step.name:
            case "unusable":
                return max(self._plan.answers_needed, self._plan.signatures_needed)
            case "sign":
                return self._plan.signatures_needed
            case "answer":
                return self._plan.answers_needed

    def _has_enough(self, now: float, needed: int) -> bool:
        return len(self._willing) >= needed and self._has_waited(now)

    def _has_waited(self, now: float) -> bool:
        """Whether all have answered, or were waited for."""
        return len(self._step.replies) == self._plan.helpers or now - self._step.began >= self._terms.patience

    def _require_possible(self, now: float) -> None:
        refusals = [each.refusal for each in self._step.replies.values() if each.refusal]
        if self._plan.helpers - len(refusals) < self._needed:
            raise self._void(f"{len(refusals)} of {self._plan.helpers} mask helpers refused; one said: {refusals[0]}")
        if now - self._step.began >= self._terms.give_up and len(self._willing) < self._needed:
            raise self._void(
                f"{len(self._willing)} of {self._plan.helpers} mask helpers answered within"
                f" {self._terms.give_up:g} seconds, {self._needed} must"
            )

    def _leave_out_unusable(self, now: float) -> None:
        """Once all have said whom they can't use, so that it is known whether they agree."""
        namers: defaultdict[str, list[int]] = defaultdict(list)
        for number, each in self._willing.items():
            for name in self._candidates.keys() & set(each.unusable):
                namers[name].append(number)
        if not namers or not self._has_waited(now):
            return
        for name, numbers in namers.items():
            if len(numbers) == 1 and len(self._willing) > 1:
                self._lone_words.setdefault(numbers[0], set()).add(name)
            del self._candidates[name]
        self._propose()
        self._step = _Step(self._step.name, self._step.began)

    def _propose(self) -> None:
        fewest = self._manifest.fewest_devices
        if len(self._candidates) < fewest:
            raise self._void(f"{len(self._candidates)} devices are left whose boxes helpers can use, {fewest} must be")
        wanted = {name: self._weight_of(each.base_version) for name, each in self._candidates.items()}
        weights = shared_weights(wanted, self._manifest.fewest_per_weight)
        weighted = [(self._candidates[name], weight) for name, weight in weights.items()]
        self.cohort_set = proposed_set(self._manifest, weighted)
        self._signed_set = self._sign_set(self.cohort_set)

    def _first_step(self, now: float) -> _Step:
        return _Step("sign" if self._plan.signatures_needed else "answer", now)

    def _checked(self, number: int, reply: MaskReply) -> MaskReply:
        """The reply; or what is wrong with it, as a refusal."""
        if reply.refusal or reply.step == "unusable":
            return reply
        try:
            if not reply.signed:
                return MaskReply(reply.step, reply.set_hash, refusal="it has signed nothing")
            if reply.step == "answer":
                about: HelperAnswer | SetSignature = checked_answer(self._manifest, reply.signed[0])
            else:
                key = VerifyKey(self._manifest.helpers[number])
                about = verified(reply.signed[0], SetSignature, key, f"helper {number}")
        except ProtocolError as error:
            return MaskReply(reply.step, reply.set_hash, refusal=str(error))
        if (about.cohort, about.set_hash, about.helper) != (message_hash(self._manifest), reply.set_hash, number):
            return MaskReply(reply.step, reply.set_hash, refusal="what it has signed is about something else")
        return reply

    def _void(self, why: str) -> VoidCohortError:
        return VoidCohortError(f"cohort {self._manifest.number}: {why}; its updates go back into residuals")
