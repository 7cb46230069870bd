"""A device's talk with its neighbours: what waits and how much, whom it asks, whom it answers, and how often."""

import pytest

from edge_agent.core.gossip.numbering import MOST_LIVES, Heard, Reached
from edge_agent.core.gossip.talk import ASK_SECONDS, COLLECT_SECONDS, WHOLE_COPIES, OwnStanding, Talk, ToSay
from edge_agent.core.gossip.waiting import Waiting
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import CopyRequest, Told

LIFE = 7
MOST_BYTES = 100


def told(number: int, life: int = LIFE, size: int = 10) -> Told:
    return Told(life, number, bytes(size))


def whole(number: int, life: int = LIFE) -> Told:
    return Told(life, number, bytes(MOST_BYTES), whole=True)


def talk(number: int = 3) -> Talk:
    """Of a device that has told so much, and whose neighbours are `a` and `b`."""
    made = Talk("me", MOST_BYTES)
    made.stand(OwnStanding(LIFE, number, rounds=number))
    made.meet(["a", "b"])
    return made


def waiting(**reached: Reached) -> Waiting:
    made = Waiting(MOST_BYTES)
    made.follow(reached)
    return made


def test_changes_are_taken_in_their_order_once_and_a_gap_is_seen():
    reached = Reached(LIFE, 4)
    assert reached.judge(told(5)) is Heard.TAKEN
    assert reached.judge(told(4)) is Heard.REPEATED
    assert reached.judge(told(6)) is Heard.LACKING
    assert reached.judge(whole(9)) is Heard.TAKEN
    assert reached.judge(told(1, life=8)) is Heard.TAKEN
    assert reached.judge(told(2, life=8)) is Heard.LACKING
    assert reached.after(told(1, life=8)).judge(told(5)) is Heard.REPEATED, "of a former life"


def test_former_lives_take_bounded_memory():
    reached = Reached(1, 1)
    for life in range(2, 100):
        reached = reached.after(told(1, life=life))
    assert len(reached.former) == MOST_LIVES


def test_what_waits_of_one_neighbour_is_no_more_than_a_whole_copy():
    heard = waiting(a=Reached(LIFE, 0), b=Reached())
    assert [heard.hear("a", told(number)) for number in range(1, 11)] == [Heard.TAKEN] * 10
    assert [heard.hear("a", told(number)) for number in (11, 12)] == [Heard.DROPPED] * 2
    assert heard.bytes == MOST_BYTES, "what came first waits on"
    assert heard.hear("b", told(1)) is Heard.TAKEN
    with pytest.raises(ProtocolError) as refused:
        heard.hear("b", told(2, size=MOST_BYTES + 1))
    assert refused.value.reason is Reason.TOO_LARGE
    assert len(heard.take_out()) == 11
    assert heard.round_ended({"a": Reached(LIFE, 10), "b": Reached(LIFE, 1)}) == ["a"]
    assert heard.bytes == 0
    assert heard.hear("a", whole(12)) is Heard.TAKEN
    assert heard.hear("a", told(13)) is Heard.DROPPED, "a whole copy takes all the room"
    assert heard.hear("a", whole(14)) is Heard.TAKEN, "and another one takes its place"
    assert heard.bytes == MOST_BYTES


def test_a_whole_copy_takes_the_place_of_changes_that_wait():
    heard = waiting(a=Reached(LIFE, 4))
    heard.hear("a", told(5))
    assert heard.hear("a", whole(8)) is Heard.TAKEN
    assert heard.hear("a", told(9, size=0)) is Heard.TAKEN
    assert [each.number for _, each in heard.take_out()] == [8, 9], "what has room beside it"


def test_what_came_in_a_round_waits_for_the_next_one():
    heard = waiting(a=Reached(LIFE, 4))
    heard.hear("a", told(5))
    assert len(heard.take_out()) == 1
    heard.hear("a", told(6))
    assert heard.round_ended({"a": Reached(LIFE, 5)}) == []
    assert [each.number for _, each in heard.take_out()] == [6]


def test_what_a_round_was_given_that_was_killed_is_given_to_the_next_one():
    heard = waiting(a=Reached(LIFE, 4))
    heard.hear("a", told(5))
    assert heard.take_out() == heard.take_out()


def test_what_the_worker_could_not_take_is_gone_and_the_whole_copy_is_asked_for():
    heard = waiting(a=Reached(LIFE, 4), b=Reached(LIFE, 1))
    heard.hear("a", told(5))
    heard.hear("a", told(6))
    heard.hear("b", told(2))
    heard.take_out()
    heard.hear("a", told(7))
    assert heard.round_ended({"a": Reached(LIFE, 4), "b": Reached(LIFE, 2)}) == ["a"]
    assert heard.take_out() == []
    assert heard.hear("a", whole(7)) is Heard.TAKEN


def test_a_whole_copy_that_has_come_meanwhile_is_not_asked_for():
    heard = waiting(a=Reached(LIFE, 4))
    heard.hear("a", told(5))
    heard.take_out()
    heard.hear("a", whole(7))
    assert heard.round_ended({"a": Reached(LIFE, 4)}) == []
    assert [each.number for _, each in heard.take_out()] == [7]


def test_a_device_that_makes_no_rounds_asks_ever_less():
    device, asked = talk(), 0
    for hour in range(24 * 7):
        for second in (0, 600, 1200):
            device.hear("a", told(3 * hour + 5), 3600 * hour + second)
            asked += len(device.to_say(3600 * hour + second).requests)
    assert 3 < asked < 20


def test_who_lacks_a_change_asks_once_in_a_while_and_says_what_it_has():
    device = talk()
    device.round_ended(OwnStanding(LIFE, 3, neighbours={"a": Reached(LIFE, 4)}), told=False, now=0)
    assert device.hear("a", told(6), 10) is Heard.LACKING
    assert device.to_say(10) == ToSay(requests=(CopyRequest("a", LIFE, 4),))
    device.hear("a", told(7), 11)
    assert device.to_say(11) == ToSay()
    device.hear("a", told(8), 10 + ASK_SECONDS)
    assert device.to_say(10 + ASK_SECONDS).requests == (CopyRequest("a", LIFE, 4),)


def test_a_request_that_has_become_needless_is_not_sent():
    device = talk()
    device.hear("a", told(3), 0)
    device.hear("a", whole(3), 0)
    assert device.to_say(0) == ToSay()


def test_one_answer_serves_all_who_ask_and_nobody_gets_them_without_end():
    device = talk()
    said = []
    for second in range(7200):
        device.asked(CopyRequest("me", 0, 0), second)
        device.asked(CopyRequest("me", LIFE, 1), second)
        if device.to_say(second).whole:
            said.append(second)
    assert said[0] == COLLECT_SECONDS
    assert len(said) <= WHOLE_COPIES.burst + 7200 / WHOLE_COPIES.interval_seconds
    assert len(said) >= 7200 / WHOLE_COPIES.interval_seconds, "who asks again gets one, late"


@pytest.mark.parametrize("request_", [CopyRequest("b", 0, 0), CopyRequest("me", LIFE, 3)], ids=["another's", "has it"])
def test_who_lacks_nothing_is_not_answered(request_):
    device = talk()
    assert not device.asked(request_, 0)
    assert device.next_due is None


def test_who_has_told_nothing_has_nothing_to_answer_with():
    device = talk(number=0)
    assert not device.asked(CopyRequest("me", LIFE, 9), 0)
    assert device.next_due is None


def test_a_state_that_was_put_back_is_noticed_once_and_the_next_life_ends_it():
    device = talk()
    assert device.asked(CopyRequest("me", LIFE, 9), 0)
    assert device.was_put_back
    device.round_ended(OwnStanding(LIFE + 1, 1, rounds=4), told=True, now=1)
    assert not device.was_put_back
    assert device.to_say(1) == ToSay(change=True)
    assert not device.asked(CopyRequest("me", LIFE + 1, 9), 2), "a neighbour that says so again lies"
    assert not device.was_put_back


def test_who_hears_less_than_it_has_tells_the_neighbour_how_far_it_was():
    device = talk()
    device.stand(OwnStanding(LIFE, 3, neighbours={"a": Reached(LIFE, 9)}))
    assert device.hear("a", told(4), 0) is Heard.REPEATED
    assert device.to_say(0).requests == (CopyRequest("a", LIFE, 9),)
    assert device.hear("a", told(9), 100) is Heard.REPEATED, "the last one again, as with each connection"
    assert device.to_say(100) == ToSay()


def test_the_last_change_is_told_again_with_each_connection():
    device = talk()
    device.connected()
    assert device.to_say(0).change
    assert not device.to_say(0).change
    fresh = talk(number=0)
    fresh.connected()
    assert fresh.to_say(0) == ToSay()


def test_another_roster_keeps_what_is_known_of_those_who_stay_and_forgets_the_others():
    device = talk()
    device.stand(OwnStanding(LIFE, 3, neighbours={"a": Reached(LIFE, 4), "b": Reached(LIFE, 6)}))
    assert device.hear("a", told(5), 0) is Heard.TAKEN
    device.hear("b", told(9), 0)
    device.meet(["c", "a"])
    assert device.neighbours == ["c", "a"]
    assert [name for name, _ in device.take_out()] == ["a"]
    assert device.heard_at("a") == 0
    assert device.to_say(0) == ToSay(), "b is asked for nothing any more"
    assert device.hear("c", told(1), 1) is Heard.TAKEN
