"""A receipt is for a message of this device, and counts once."""

from edge_agent.core.control_messages import CONTROL_MESSAGES_REMEMBERED, ControlMessages


def test_each_message_is_answered_once_however_often_its_receipt_is_replayed():
    messages = ControlMessages()
    messages.sent(b"enrolment")
    messages.sent(b"presence")
    answered = [messages.answered(name) for name in (b"enrolment", b"enrolment", b"of another device", b"presence")]
    assert answered == [True, False, False, True]
    assert b"enrolment" in messages
    assert [messages.is_newest(name) for name in (b"enrolment", b"presence")] == [False, True]


def test_an_answered_message_is_not_forgotten_before_its_answer_is():
    messages = ControlMessages()
    messages.sent(b"first")
    messages.answered(b"first")
    for number in range(2 * CONTROL_MESSAGES_REMEMBERED):
        name = number.to_bytes(2, "big")
        messages.sent(name)
        messages.answered(name)
        assert not messages.answered(b"first")
