"""What a coordinator says of its keys leads a device from any of them to the newest, and to no other."""

import pytest

from broker_coordinator.serving.announcements import REPEAT_SECONDS
from broker_coordinator.serving.successions import Successions
from edge_agent.shell.connection.identity import Identity
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import SigningKey, VerifyKey, write_verify_key
from fleet_protocol.kinds import KEY_SUCCESSION
from fleet_protocol.limits import MAX_CONTROL_BYTES

FIRST, SECOND, THIRD, FOURTH = (SigningKey(bytes([number]) * 32) for number in range(1, 5))
NEWEST_FIRST = (FOURTH, THIRD, SECOND, FIRST)


def device_that_trusts(key: SigningKey, *, encrypt_updates: bool = False) -> Identity:
    pinned = write_verify_key(key.verify_key)
    return Identity("home", "0", "pi", SigningKey(bytes(32)), pinned, encrypt_updates=encrypt_updates)


def retained(successions: Successions) -> dict[str, bytes]:
    successions.announce()
    return {each.topic: each.data for each in successions.publications(100, 0.0) if each.retained}


@pytest.mark.parametrize("pinned", NEWEST_FIRST)
def test_device_comes_from_any_key_to_the_newest(pinned):
    messages = retained(Successions(NEWEST_FIRST, "home", "0"))
    device = device_that_trusts(pinned)
    while (data := messages.get(device.succession_topic)) is not None:
        payload, _ = device.verify_from_coordinator(device.succession_topic, data, MAX_CONTROL_BYTES)
        device.coordinator = VerifyKey(payload.successor)
    assert device.coordinator == FOURTH.verify_key


def test_statement_of_another_key_or_on_another_topic_is_refused():
    messages = retained(Successions(NEWEST_FIRST, "home", "0"))
    first, second = device_that_trusts(FIRST), device_that_trusts(SECOND)
    for device, topic, data, reason in (
        (second, first.succession_topic, messages[first.succession_topic], Reason.UNKNOWN_KEY),
        (second, second.succession_topic, messages[first.succession_topic], Reason.UNKNOWN_KEY),
        (first, second.succession_topic, messages[first.succession_topic], Reason.BAD_SIGNATURE),
    ):
        with pytest.raises(ProtocolError) as refused:
            device.verify_from_coordinator(topic, data, MAX_CONTROL_BYTES)
        assert refused.value.reason is reason


def test_no_device_follows_a_key_that_is_no_point_of_the_curve():
    no_point = VerifyKey(bytes([2]) + bytes(31))
    with pytest.raises(ProtocolError, match="no valid Ed25519 public key"):
        device_that_trusts(FIRST).check_coordinator(no_point)


def test_statements_are_small_repeated_for_who_comes_and_no_more_often_than_manifests():
    successions = Successions(NEWEST_FIRST, "home", "0")
    assert all(len(data) < KEY_SUCCESSION.max_bytes // 50 for data in retained(successions).values())
    successions.repeat(1.0)
    successions.repeat(2.0)
    assert successions.publications(100, 2.0) == []
    assert successions.next_due() == REPEAT_SECONDS
    assert len(successions.publications(2, REPEAT_SECONDS)) == 2
    assert len(successions.publications(100, REPEAT_SECONDS)) == 1
    assert successions.next_due() is None


def test_coordinator_that_never_had_another_key_says_nothing():
    assert retained(Successions((FIRST,), "home", "0")) == {}
    assert retained(Successions((), "home", "0")) == {}
