"""A mask helper answers whoever asks with the coordinator's key no more than its share of time and link."""

import pytest

from fleet_protocol.errors import ProtocolError
from fleet_protocol.kinds import MaskRequest, Signed, SumRequest
from session_relay.helper.mask_limits import ANSWERS_AT_ONCE, REPEAT_SECONDS, REPEATS, MaskLimits
from tests.support.masked_cohort import MaskedCohort, manifest_of

MOST = 1 << 28


def request(step="answer", devices=3, **fields):
    cohort = MaskedCohort(manifest_of(**fields), devices)
    return MaskRequest(step, cohort.request(cohort.set_of(dict.fromkeys(cohort.names, 1))))


def test_coordinator_that_asks_every_five_seconds_in_each_step_is_answered():
    limits, now = MaskLimits(MOST), 0.0
    for number in range(1, 200):
        for step in ("unusable", "sign", "answer"):
            assert limits.why_ignored(request(step, number=number), now) is None
            now += 5.0


def test_repeated_question_is_answered_some_times_and_then_once_a_minute():
    limits, asked = MaskLimits(MOST), request()
    answered = [limits.why_ignored(asked, 0.01 * number) is None for number in range(1000)]
    assert sum(answered) == REPEATS
    assert limits.why_ignored(request(number=2), 10.0) is None, "another cohort is answered all the same"
    later = [limits.why_ignored(asked, REPEAT_SECONDS * minute) is None for minute in range(2, 20) for _ in range(50)]
    assert sum(later) <= 20


def test_cohort_that_another_of_its_task_has_followed_is_over():
    limits = MaskLimits(MOST)
    assert limits.why_ignored(request(newest_version=9), 0.0) is None
    assert "a later one was asked about" in limits.why_ignored(request(newest_version=8), 1.0)
    assert limits.why_ignored(request(newest_version=9, number=7), 2.0) is None, "after a void one, the version stays"
    assert limits.why_ignored(request(newest_version=3, generation=1), 3.0) is None
    assert "a later one was asked about" in limits.why_ignored(request(newest_version=9), 4.0)
    assert limits.why_ignored(request(task="others", newest_version=3), 5.0) is None


def test_new_questions_without_end_take_a_bounded_share():
    small = 1 << 20
    limits = MaskLimits(small)
    asked = [request(number=number, parameters=50_000, entries=50_000) for number in range(60)]
    at_once = sum(limits.why_ignored(each, 0.0) is None for each in asked)
    assert 1 <= at_once <= 8 * ANSWERS_AT_ONCE
    over_an_hour = sum(limits.why_ignored(each, 60.0 * minute) is None for minute in range(1, 61) for each in asked)
    assert over_an_hour <= 60 * 4


def test_what_has_no_manifest_is_no_request():
    broken = SumRequest(Signed(b"\x00", bytes(64)), Signed(b"\x00", bytes(64)), ())
    with pytest.raises(ProtocolError):
        MaskLimits(MOST).why_ignored(MaskRequest("answer", broken), 0.0)
