"""How a helper shares the process of a version among its sessions."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from session_relay.helper.core.turns import Turns

A, B = b"a" * 16, b"b" * 16


def test_session_that_floods_waits_behind_itself_and_another_one_does_not() -> None:
    turns = Turns[int](2)
    assert [turns.asked(A, number) for number in range(5)] == [[0], [1], [], [], []]
    assert turns.asked(B, 10) == [10]
    assert [turns.answered(A) for _ in range(5)] == [[2], [3], [4], [], []]


def test_what_waits_of_a_session_that_is_over_is_never_computed() -> None:
    turns = Turns[int](1)
    for number in range(3):
        turns.asked(A, number)
    turns.left(A)
    assert turns.answered(A) == []
    assert turns.answered(A) == [], "not even where the process answers what nobody has asked"
    assert turns.asked(B, 4) == [4]


@given(st.integers(1, 4), st.lists(st.tuples(st.sampled_from([A, B]), st.booleans()), max_size=80))
def test_every_request_has_its_turn_in_its_sessions_order(most, events) -> None:
    turns, at_work = Turns[tuple[bytes, int]](most), Counter[bytes]()
    asked, begun = Counter[bytes](), {A: [], B: []}

    def begin(requests: list[tuple[bytes, int]]) -> None:
        for session, number in requests:
            begun[session].append(number)
            at_work[session] += 1
            assert at_work[session] <= most

    def answer(session: bytes) -> None:
        at_work[session] -= 1
        begin(turns.answered(session))

    for session, is_answer in events:
        if is_answer and at_work[session]:
            answer(session)
        elif not is_answer:
            begin(turns.asked(session, (session, asked[session])))
            asked[session] += 1
    for session in (A, B):
        while at_work[session]:
            answer(session)
        assert begun[session] == list(range(asked[session]))
