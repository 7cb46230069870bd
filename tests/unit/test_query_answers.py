"""What devices answer to queries, what may be an answer, and what an answer costs."""

import math
import random
from collections import Counter

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fleet_protocol.analytics import distinct, laplace, randomised_response
from fleet_protocol.analytics.answers import ASKS, answered, check_report, is_understood
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import AnalyticsReport, AnswerOutcome, decode_payload, encode_payload
from tests.support.queries import asked

NUMBERS = st.floats(-1e6, 1e6)
WITHOUT_NOISE = {
    "count": {},
    "histogram": {"lower": -10.0, "upper": 10.0},
    "quantiles": {"probabilities": (0.1, 0.9)},
    "labels": {"field": "label"},
    "sum": {"lower": -10.0, "upper": 10.0},
    "mean": {"lower": -10.0, "upper": 10.0},
    "variance": {"lower": -10.0, "upper": 10.0},
    "distinct": {},
    "heavy_hitters": {"field": "text.places"},
}
WITH_NOISE = {"quantiles": {"probabilities": (0.1, 0.9), "lower": -10.0, "upper": 10.0}}
"""Where noise needs other keys."""
QUERIES = [
    *(asked(ask, **keys) for ask, keys in WITHOUT_NOISE.items()),
    *(asked(ask, samples_per_device=50, **keys) for ask, keys in WITHOUT_NOISE.items()),
    *(asked(ask, epsilon=1.0, **keys) for ask, keys in (WITHOUT_NOISE | WITH_NOISE).items() if ask != "distinct"),
]


def test_every_way_of_asking_is_tried_here() -> None:
    assert {query.ask for query in QUERIES} == set(ASKS)
    assert all(map(is_understood, QUERIES))


@given(st.sampled_from(QUERIES), st.lists(NUMBERS, max_size=60), st.randoms(use_true_random=False))
def test_answer_of_any_values_passes_and_survives_the_wire(query, values, draws) -> None:
    words = [f"w{value:g}"[:8] for value in values]
    report = answered(query, values, words if query.ask == "heavy_hitters" else (), draws)
    check_report(query, report)
    assert decode_payload(encode_payload(report), AnalyticsReport) == report
    assert len(encode_payload(report)) < 6000


@given(st.sampled_from(QUERIES), st.lists(st.floats(), max_size=60), st.text(max_size=20))
def test_whatever_one_device_says_it_moves_no_number_by_more_than_its_share(query, numbers, word) -> None:
    """Clipped on both sides: an honest device clips its values, and what no clipped values give is refused."""
    said = AnalyticsReport(query.number, query.round, AnswerOutcome.ANSWERED, tuple(numbers), word)
    try:
        check_report(query, said)
    except ProtocolError as error:
        assert error.reason in {Reason.OUT_OF_BOUNDS, Reason.WRONG_SHAPE, Reason.NOT_FINITE}
        return
    most = float(query.samples_per_device)
    if query.ask in {"sum", "mean", "variance"} and query.epsilon:
        most += most * laplace.largest_noise(query.epsilon_of_round / len(numbers)) + 1
    elif query.ask in {"count", "histogram", "quantiles", "labels"} and query.epsilon:
        most = len(query.edges) + 1
    elif query.ask == "distinct":
        assert len(set(numbers)) <= query.samples_per_device
        most = distinct.SLOTS
    assert all(abs(number) <= most * (1 + 1e-6) for number in numbers)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e300, 1.7e308, -1.7e308, -1e-3, 2.5])
@pytest.mark.parametrize("query", [query for query in QUERIES if not query.epsilon and query.samples_per_device == 1])
def test_absurd_numbers_are_refused(query, number) -> None:
    length = len(answered(query, [1.0], (), random.Random(1)).numbers) or 1
    said = AnalyticsReport(query.number, query.round, AnswerOutcome.ANSWERED, (number,) * length)
    with pytest.raises(ProtocolError):
        check_report(query, said)


def test_device_that_gives_no_answer_and_sends_numbers_all_the_same_is_refused() -> None:
    query = asked("count")
    check_report(query, AnalyticsReport(query.number, 0, AnswerOutcome.NOT_ALLOWED))
    with pytest.raises(ProtocolError, match="sends nothing else"):
        check_report(query, AnalyticsReport(query.number, 0, AnswerOutcome.NOT_ALLOWED, (1.0,)))
    with pytest.raises(ProtocolError, match="in round 0; the answer is to 3"):
        check_report(query, AnalyticsReport(query.number, 3, AnswerOutcome.ANSWERED, (1.0,)))


@pytest.mark.parametrize(
    "changed",
    [
        {"ask": "everything"},
        {"edges": (2.0, 1.0)},
        {"edges": (1.0, math.inf)},
        {"edges": (1.0, math.nan)},
        {"ask": "mean", "lower": 1.0, "upper": 1.0},
        {"ask": "mean", "lower": -1.7e308, "upper": 1.7e308},
        {"epsilon": math.nan},
        {"epsilon": 5e-324},
        {"ask": "distinct", "epsilon": 1.0},
        {"ask": "heavy_hitters", "epsilon": 1.0, "share": 1.0},
        {"round": 1},
        {"rounds": 2},
    ],
)
def test_query_that_is_none_is_not_understood(changed) -> None:
    assert not is_understood(msgspec.structs.replace(asked("count"), **changed))


@given(st.integers(2, 50), st.floats(0.01, 5.0))
def test_randomised_response_costs_epsilon_and_no_more(answers, epsilon) -> None:
    truly, other = randomised_response.probabilities(answers, epsilon)
    assert math.isclose(truly / other, math.exp(epsilon), rel_tol=1e-9)
    assert math.isclose(truly + (answers - 1) * other, 1.0, rel_tol=1e-9)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=10), st.floats(0.1, 4.0))
def test_what_randomised_response_tells_in_the_mean_is_made_what_was_true(true, epsilon) -> None:
    assume(sum(true))
    truly, other = randomised_response.probabilities(len(true), epsilon)
    told = [count * truly + (sum(true) - count) * other for count in true]
    found = randomised_response.unbiased(told, epsilon)  # type: ignore[arg-type]
    assert found == pytest.approx(true, abs=1e-6 * sum(true) * len(true) / epsilon)


def test_answers_are_drawn_with_the_probabilities_that_epsilon_is_accounted_by() -> None:
    draws, epsilon, times = random.Random(3), 1.0, 40_000
    told = Counter(randomised_response.respond(2, 4, epsilon, draws) for _ in range(times))
    truly, other = randomised_response.probabilities(4, epsilon)
    for answer in range(4):
        expected = times * (truly if answer == 2 else other)
        assert abs(told[answer] - expected) < 5 * math.sqrt(expected)


def test_noise_of_laplace_falls_by_epsilon_over_one_range_and_is_bounded() -> None:
    draws, epsilon, times = random.Random(4), 0.5, 40_000
    drawn = [laplace.noised(0.25, epsilon, draws) for _ in range(times)]
    assert all(-laplace.largest_noise(epsilon) <= each <= 1 + laplace.largest_noise(epsilon) for each in drawn)
    assert abs(sum(drawn) / times - 0.25) < 5 * laplace.standard_error(1, epsilon) / math.sqrt(times)
    beyond = [sum(each > 0.25 + ranges for each in drawn) for ranges in (1, 3)]
    assert abs(math.log(beyond[0] / beyond[1]) - 2 * epsilon) < 0.1


class RarestDraws:
    """Draws the largest noise that there is, upwards or downwards."""

    def __init__(self, *, upwards: bool) -> None:
        largest = 1.0 - 2.0**-53
        self._next = [largest, 0.0] if upwards else [0.0, largest]

    def random(self) -> float:
        return self._next.pop(0)

    def randrange(self, stop: int, /) -> int:
        return stop - 1


@pytest.mark.parametrize("upwards", [True, False])
def test_largest_noise_hides_whether_the_number_was_0_or_1(upwards) -> None:
    """Were the noise cut instead of the answer, an answer beyond the largest noise on 0 would give a 1 away."""
    told = {laplace.noised(share, 1.0, RarestDraws(upwards=upwards)) for share in (0.0, 0.5, 1.0)}
    assert len(told) == 1


@pytest.mark.parametrize("numbers", [(5e-324, 0.0, 0.0), (0.5, 0.25, 0.2), (0.0, 1e-7, 0.0), (-0.5, 0.0, 0.0)])
def test_samples_that_count_are_a_whole_number_and_without_any_there_is_no_sum(numbers) -> None:
    query = asked("variance", lower=0.0, upper=1.0, samples_per_device=1_000_000)
    with pytest.raises(ProtocolError, match=r"it is a whole number from 0 to|it is from 0 to 0"):
        check_report(query, AnalyticsReport(query.number, query.round, AnswerOutcome.ANSWERED, numbers))


@given(st.lists(NUMBERS, min_size=1, max_size=30))
def test_one_sample_of_a_device_counts_for_as_much_as_all(values) -> None:
    """By default a device has one vote, however many samples it has."""
    report = answered(asked("histogram", lower=-10.0, upper=10.0), values, (), random.Random(1))
    assert math.isclose(sum(report.numbers), 1.0)
