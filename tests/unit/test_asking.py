"""How a coordinator asks helpers about a cohort: whom it leaves out, whom it waits for, and when it gives up."""

import contextlib

import pytest

from fleet_protocol.kinds import MaskReply
from secure_aggregation.asking import ASK_AGAIN_SECONDS, Asking, Terms
from secure_aggregation.coordinator import VoidCohortError, sum_of_masks, sum_without
from secure_aggregation.messages import message_hash
from secure_aggregation.signatures import signed
from tests.support.masked_cohort import MaskedCohort, manifest_of

TERMS = Terms(patience=30.0, give_up=600.0)
PLANS = [(2, 1), (3, 2), (3, 1), (4, 1), (5, 2)]


class Asked:
    """A cohort of four devices that is asked about, and its helpers."""

    def __init__(self, helpers=4, colluding=1, fixed=None, *, weights=(1,), devices=4, weight_of=lambda _: 1):
        self.cohort = MaskedCohort(manifest_of(helpers, colluding, weights=weights), devices)
        self.weight_of = weight_of
        self.helpers = self.cohort.helpers()
        self.now = 0.0
        self.asking = self.begun(fixed)

    def begun(self, fixed=None):
        return Asking(
            signed(self.cohort.coordinator, self.cohort.manifest),
            self.cohort.manifest,
            self.cohort.admitted,
            TERMS,
            sign_set=lambda cohort_set: signed(self.cohort.coordinator, cohort_set),
            weight_of=self.weight_of,
            ciphertext_of=lambda _: b"",
            fixed=fixed,
            now=self.now,
        )

    def reply(self, number, request, **instead):
        helper, asked = self.helpers[number], request.request
        set_hash = message_hash(self.asking.cohort_set)
        if instead:
            return MaskReply(request.step, set_hash, **instead)
        match request.step:
            case "unusable":
                return MaskReply("unusable", set_hash, unusable=helper.unusable(asked))
            case "sign":
                return MaskReply("sign", set_hash, signed=(helper.sign(asked),))
            case _:
                return MaskReply("answer", set_hash, signed=(helper.answer(asked, request.signatures),))

    def turn(self, dead=()):
        """What helpers that are alive say; returns the answers, or None."""
        for number, request in self.asking.requests(self.now):
            if number not in dead:
                self.asking.receive(number, self.reply(number, request))
        answers = self.asking.advance(self.now)
        if self.asking.is_agreed(self.now):
            self.committed = self.asking.agree()
            self.asking.fix(self.now)
        self.now += ASK_AGAIN_SECONDS
        return answers

    def answers(self, dead=(), turns=40):
        return next((found for _ in range(turns) if (found := self.turn(dead)) is not None), None)

    def is_exact(self, answers):
        cohort, members = self.cohort, self.asking.cohort_set
        masks = sum_of_masks(cohort.manifest, members, answers)
        total = sum_without(cohort.manifest, members, lambda device: cohort.admitted[device].masked, masks)
        plain = cohort.plain_sum({member.device: member.weight for member in members.members})
        return (total.levels == plain).all()


@pytest.mark.parametrize(("helpers", "colluding"), PLANS)
def test_all_helpers_alive_give_the_sum_without_waiting(helpers, colluding):
    asked = Asked(helpers, colluding)
    assert asked.is_exact(asked.answers(turns=4))


def test_one_of_four_may_be_dead_and_is_waited_for_no_longer_than_patience():
    asked = Asked()
    answers = asked.answers(dead={2})
    assert asked.is_exact(answers)
    assert asked.now <= 2 * (TERMS.patience + 2 * ASK_AGAIN_SECONDS)


@pytest.mark.parametrize(("helpers", "colluding", "dead"), [(3, 2, {0}), (3, 1, {1}), (4, 1, {0, 3})])
def test_too_few_helpers_make_it_void_when_time_is_over(helpers, colluding, dead):
    asked = Asked(helpers, colluding)
    with pytest.raises(VoidCohortError, match="mask helpers answered within 600 seconds"):
        asked.answers(dead, turns=200)


def test_device_that_one_helper_does_not_know_is_left_out():
    asked = Asked()
    known = dict(asked.cohort.roster)
    del known["pi-0001"]
    asked.helpers[3] = asked.cohort.helper(3, roster=known)
    assert asked.is_exact(asked.answers())
    assert [member.device for member in asked.asking.cohort_set.members] == ["pi-0000", "pi-0002", "pi-0003"]


def test_void_where_too_few_devices_are_left():
    asked = Asked()
    asked.helpers[3] = asked.cohort.helper(3, roster={"pi-0001": asked.cohort.roster["pi-0001"]})
    with pytest.raises(VoidCohortError, match="1 devices are left whose boxes helpers can use, 2 must be"):
        asked.answers()


def test_void_at_once_where_refusals_leave_too_few_and_says_what_one_said():
    asked = Asked(3, 2)
    for number, request in asked.asking.requests(0.0):
        asked.asking.receive(number, asked.reply(number, request, refusal="its disk is full"))
    with pytest.raises(VoidCohortError, match="3 of 3 mask helpers refused; one said: its disk is full"):
        asked.asking.advance(0.0)


def test_answer_that_is_no_answer_counts_as_a_refusal():
    asked = Asked(3, 2)
    asked.turn()
    for number, request in asked.asking.requests(asked.now):
        asked.asking.receive(number, asked.reply(number, request, signed=()) if number else asked.reply(0, request))
    with pytest.raises(VoidCohortError, match="refused"):
        asked.asking.advance(asked.now)


def test_reply_to_another_step_or_set_changes_nothing():
    asked = Asked()
    number, request = asked.asking.requests(0.0)[0]
    late = MaskReply("answer", message_hash(asked.asking.cohort_set), refusal="late")
    asked.asking.receive(number, late)
    asked.asking.receive(number, MaskReply("unusable", bytes(32), refusal="of another set"))
    asked.asking.receive(number, asked.reply(number, request))
    assert asked.asking.advance(0.0) is None


def test_asked_again_after_a_restart_helpers_answer_for_the_set_that_was_committed():
    asked = Asked()
    asked.turn()
    committed = asked.committed
    assert asked.asking.step == "sign"
    asked.turn()
    asked.asking = asked.begun(committed)
    assert asked.asking.step == "sign"
    assert asked.is_exact(asked.answers())


def test_committed_set_whose_update_is_lost_is_void():
    asked = Asked()
    asked.turn()
    committed = asked.committed
    del asked.cohort.admitted["pi-0002"]
    with pytest.raises(VoidCohortError, match="the update of pi-0002 is lost"):
        asked.begun(committed)


@pytest.mark.parametrize(("helpers", "colluding", "dead"), [(3, 1, {0}), (4, 1, {2}), (4, 1, {0, 3}), (3, 2, {1})])
def test_when_it_is_next_due_lies_ahead_while_helpers_are_waited_for(helpers, colluding, dead):
    asked = Asked(helpers, colluding)
    with contextlib.suppress(VoidCohortError):
        while asked.now < TERMS.give_up and asked.turn(dead) is None:
            asked.asking.requests(asked.now)
            if asked.asking.advance(asked.now) is None and not asked.asking.is_agreed(asked.now):
                assert asked.asking.next_due() > asked.now


def test_device_that_one_helper_alone_rules_out_is_told_with_that_helper_and_once():
    asked = Asked()
    known = dict(asked.cohort.roster)
    del known["pi-0001"]
    asked.helpers[3] = asked.cohort.helper(3, roster=known)
    asked.turn()
    assert asked.asking.take_lone_words() == {3: {"pi-0001"}}
    assert asked.is_exact(asked.answers())
    assert asked.asking.take_lone_words() == {}


def test_device_that_two_helpers_rule_out_is_nobodys_lone_word():
    asked = Asked()
    known = {name: key for name, key in asked.cohort.roster.items() if name != "pi-0001"}
    for number in (1, 3):
        asked.helpers[number] = asked.cohort.helper(number, roster=known)
    asked.turn()
    assert asked.asking.take_lone_words() == {}
    assert len(asked.asking.cohort_set.members) == 3


def test_helper_that_names_a_device_of_each_new_set_is_heard_once_for_each_and_ends_with_the_devices():
    asked, heard = Asked(), 0
    with pytest.raises(VoidCohortError, match="1 devices are left"):
        for _ in range(100):
            for number, request in asked.asking.requests(asked.now):
                first = asked.asking.cohort_set.members[0].device
                liar = {"unusable": (first, "nobody")} if number == 0 else {}
                for _ in range(5):
                    heard += asked.asking.receive(number, asked.reply(number, request, **liar)) and number == 0
            asked.asking.advance(asked.now)
            asked.now += ASK_AGAIN_SECONDS
    assert heard == 3, "of four devices two are enough for a set, so three sets are asked about at most"
