"""What queries find over whole fleets, compared with the same of all their samples together."""

import math
import random
from collections import Counter

import msgspec
import numpy as np
import pytest

from broker_coordinator.aggregation.analytics.bins import pooled, standard_errors
from broker_coordinator.aggregation.analytics.divergence import divergence, earth_mover, jensen_shannon, shares_of
from broker_coordinator.aggregation.analytics.reports import ReportFacts, answers_of
from broker_coordinator.aggregation.analytics.results import result
from broker_coordinator.aggregation.analytics.rounds import is_over
from broker_coordinator.aggregation.analytics.stored_query import QueryState
from broker_coordinator.aggregation.analytics.trie import next_prefixes, probability_found, share_for, votes_for
from fleet_protocol.analytics import randomised_response
from fleet_protocol.analytics.words import END, FEWEST_VOTES
from fleet_protocol.kinds import AnswerOutcome, Queries, decode_payload, encode_payload
from fleet_protocol.limits import (
    MAX_ANSWER_NUMBERS,
    MAX_OPEN_QUERIES,
    MAX_PREFIX_BYTES,
    MAX_QUERIES_BYTES,
    MAX_QUERY_CONDITIONS,
)
from tests.support.queries import answers_from, asked, stored, through_all_rounds

ALL_SAMPLES = 1_000_000


def fleet(devices: int = 40, seed: int = 5) -> list[list[float]]:
    """Devices that differ: from 1 to 60 values, around a place of their own."""
    draws = random.Random(seed)
    return [
        [draws.gauss(place, 3.0) for _ in range(draws.randrange(1, 60))]
        for place in (draws.uniform(-20, 20) for _ in range(devices))
    ]


def found(query, devices, **keys):
    return result(query, QueryState.OPEN, answers_from(query.query, devices, **keys))


def test_count_sum_mean_and_variance_are_those_of_all_samples_together() -> None:
    devices = fleet()
    values = np.clip(np.concatenate(devices), -30, 30)
    keys = {"lower": -30.0, "upper": 30.0, "samples_per_device": ALL_SAMPLES}
    assert found(stored("count", samples_per_device=ALL_SAMPLES), devices)["count"] == pytest.approx(values.size)
    assert found(stored("sum", **keys), devices)["sum"] == pytest.approx(values.sum(), rel=1e-9)
    assert found(stored("mean", **keys), devices)["mean"] == pytest.approx(values.mean(), rel=1e-9)
    assert found(stored("variance", **keys), devices)["variance"] == pytest.approx(values.var(), rel=1e-9)


def test_each_device_has_one_vote_unless_the_query_says_otherwise() -> None:
    devices = [[1.0] * 1000, *([[0.0]] * 9), []]
    query = stored("mean", lower=0.0, upper=1.0)
    assert found(query, devices) == {"samples": 10.0, "mean": pytest.approx(0.1)}


def test_nothing_is_shown_of_fewer_devices_than_the_query_says() -> None:
    query = stored("mean", lower=0.0, upper=1.0, minimum_devices=12)
    assert found(query, [[1.0]] * 11) == {"result": "11 devices have answered; shown from 12"}
    assert "mean" in found(query, [[1.0]] * 12)


def test_histogram_has_what_numpy_finds() -> None:
    devices = fleet()
    shown = found(stored("histogram", lower=-25.0, upper=25.0, bins=10, samples_per_device=ALL_SAMPLES), devices)
    values = np.concatenate(devices)
    counts, edges = np.histogram(values, np.linspace(-25, 25, 11))
    assert [row["count"] for row in shown["bins"][1:-1]] == pytest.approx(list(counts))
    assert [row["from"] for row in shown["bins"][1:]] == pytest.approx(list(edges))
    assert shown["bins"][0]["count"] == pytest.approx((values < -25).sum())
    assert shown["bins"][-1]["count"] == pytest.approx((values >= 25).sum())


def test_histogram_without_edges_negotiates_a_range_that_holds_nearly_all() -> None:
    devices = [[value / 1000 for value in each] for each in fleet()]
    query, answers = through_all_rounds(stored("histogram", samples_per_device=ALL_SAMPLES), devices)
    shown = result(query, QueryState.DONE, answers)
    inner = sum(row["count"] for row in shown["bins"][1:-1])
    assert inner > 0.97 * shown["samples"]
    assert len(query.query.edges) == 21
    assert query.query.edges[-1] - query.query.edges[0] < 0.3


@pytest.mark.parametrize("bounds", [{"lower": -100.0, "upper": 100.0}, {}], ids=["within bounds", "of unknown range"])
def test_quantiles_are_within_the_stated_bounds_which_shrink_with_each_round(bounds) -> None:
    devices = fleet()
    wanted = (0.05, 0.5, 0.9)
    query = stored("quantiles", probabilities=wanted, rounds=4, samples_per_device=ALL_SAMPLES, **bounds)
    last, answers = through_all_rounds(query, devices)
    shown = result(last, QueryState.DONE, answers)
    exact = np.quantile(np.concatenate(devices), wanted, method="inverted_cdf")
    for row, value in zip(shown["quantiles"], exact, strict=True):
        assert row["from"] <= value <= row["to"]
        assert row["to"] - row["from"] <= (200 / 20**4 if bounds else 16 / 20**3) * (1 + 1e-9)
        assert row["from"] <= row["value"] <= row["to"]


def test_labels_with_noise_are_right_within_the_stated_error() -> None:
    draws = random.Random(2)
    true = draws.choices(range(3), [0.7, 0.2, 0.1], k=6000)
    query = asked("labels", field="label", epsilon=1.0)
    counts = pooled(query, answers_from(query, [[float(label)] for label in true]).answered)
    expected = Counter(true)
    for label, error in enumerate(standard_errors(query, counts, len(true))):
        assert 50 < error < 200
        assert abs(counts[label] - expected[label]) < 5 * error


@pytest.mark.parametrize("ask", ["sum", "mean", "variance"])
def test_moments_with_noise_are_right_within_the_stated_error(ask) -> None:
    draws = random.Random(6)
    devices = [[draws.uniform(20.0, 30.0)] for _ in range(4000)]
    query = stored(ask, lower=10.0, upper=40.0, epsilon=4.0)
    values = np.concatenate(devices)
    exact = {"sum": values.sum(), "mean": values.mean(), "variance": values.var()}[ask]
    errors = []
    for seed in range(8):
        shown = found(query, devices, seed=seed)
        errors.append((shown[ask] - exact) / shown["standard_error"])
    assert 0.3 < np.sqrt(np.mean(np.square(errors))) < 2.0
    assert np.max(np.abs(errors)) < 4.0


def test_device_that_lies_moves_a_count_by_one_and_with_noise_by_what_is_stated() -> None:
    query = asked("histogram", lower=0.0, upper=4.0, bins=4)
    honest = [[1.5]] * 20
    before = pooled(query, answers_from(query, honest).answered)
    after = pooled(query, answers_from(query, [*honest, [1e30] * 100_000]).answered)
    assert max(abs(one - other) for one, other in zip(before, after, strict=True)) == 1.0
    noisy = asked("histogram", lower=0.0, upper=4.0, bins=4, epsilon=1.0)
    told = [ReportFacts(7, 0, AnswerOutcome.ANSWERED, (float(number % 7),)) for number in range(50)]
    lies = [[*told, ReportFacts(7, 0, AnswerOutcome.ANSWERED, (float(lie),))] for lie in range(7)]
    moved = randomised_response.largest_move(7, 1.0)
    for one in lies:
        pairs = zip(pooled(noisy, told), pooled(noisy, one), strict=True)
        assert max(abs(before - after) for before, after in pairs) <= moved


@pytest.mark.parametrize("lie", [-1e30, -1e9, 1e9, 1e30])
@pytest.mark.parametrize("honest_devices", [3, 9, 50])
def test_range_that_devices_agree_on_is_not_widened_by_one_that_lies(lie, honest_devices) -> None:
    honest = [[10.0 + number / honest_devices] for number in range(honest_devices)]
    last, _ = through_all_rounds(stored("histogram", bins=8), [*honest, [lie]])
    assert last.query.edges[0] >= 4.0
    assert last.query.edges[-1] <= 32.0


def test_words_with_noise_are_shown_by_finished_rounds_and_not_as_single_votes_come() -> None:
    private = stored("heavy_hitters", field="text.places", longest=1, epsilon=4.0)
    second = private.in_round(prefixes=("a",))
    votes = [ReportFacts(7, 1, AnswerOutcome.ANSWERED, (), "a" + END)] * private.aims.votes
    answers = answers_of([(str(number), each) for number, each in enumerate(votes)], 1)
    assert result(second, QueryState.OPEN, answers)["words"] == []
    assert result(second, QueryState.STOPPED, answers)["words"] != []


def test_different_values_are_counted_across_devices() -> None:
    devices = [[float(value % 3000) for value in range(start, start + 200)] for start in range(0, 6000, 100)]
    shown = found(stored("distinct", samples_per_device=500), devices)
    assert shown["distinct"] == pytest.approx(3000, abs=5 * shown["standard_error"])
    assert shown["standard_error"] < 15


def test_device_that_claims_many_different_values_adds_as_many_as_it_may() -> None:
    honest = [[float(number)] for number in range(30)]
    before = found(stored("distinct"), honest)["distinct"]
    after = found(stored("distinct"), [*honest, [float(number) for number in range(1000)]])["distinct"]
    assert abs(after - before) < 1.01


def test_words_that_many_devices_have_are_found_letter_by_letter() -> None:
    words = [["kitchen"]] * 30 + [["kitten"]] * 15 + [["attic"]] * 9 + [["cellar"]]
    last, answers = through_all_rounds(stored("heavy_hitters", field="text.places", longest=8), words, words=True)
    shown = result(last, QueryState.DONE, answers)
    assert [(row["word"], row["votes"]) for row in shown["words"]] == [("kitchen", 30), ("kitten", 15)]
    assert last.query.round == 7, "it ends when no prefix is left, with the end of kitchen"


def test_words_that_lead_nowhere_take_no_vote_from_one_that_does() -> None:
    own = [["kitchen", *(f"{chr(97 + number)}{letter}" for letter in "bcd")] for number in range(20)]
    last, answers = through_all_rounds(stored("heavy_hitters", field="text.places", votes=3), own, words=True)
    assert "kitchen" in [row["word"] for row in result(last, QueryState.DONE, answers)["words"]]


def test_rare_words_are_never_shown_and_how_rare_follows_from_delta() -> None:
    for delta, rounds in ((1e-6, 17), (1e-9, 33), (1e-3, 5)):
        votes = votes_for(delta, rounds)
        assert rounds * (votes - 2) / ((votes - 3) * math.factorial(votes)) <= delta
        assert votes == FEWEST_VOTES or rounds * (votes - 3) / ((votes - 4) * math.factorial(votes - 1)) > delta
    share = share_for(0.5, 12)
    assert -math.log(1 - 12 * share) == pytest.approx(0.5), "theorem 1"
    assert probability_found([11] * 4, 1.0, 12) == 0.0
    assert probability_found([10_000] * 4, share, 12) > 0.99


def test_ten_thousand_devices_find_a_word_by_a_zipf_law_as_often_as_the_theory_says() -> None:
    query = stored("heavy_hitters", field="text.places", longest=4, epsilon=4.0)
    draws = random.Random(8)
    words = draws.choices(
        [f"w{rank:02}" for rank in range(50)], [1 / (rank + 1) ** 1.1 for rank in range(50)], k=10_000
    )
    holders = Counter((word + END)[:length] for word in words for length in range(1, len(word) + 2))
    theory = {
        word: probability_found(
            [holders[(word + END)[:length]] for length in range(1, len(word) + 2)], query.query.share, query.aims.votes
        )
        for word in set(words)
    }
    found = Counter(
        each.word
        for seed in range(5)
        for each in through_all_rounds(query, [[word] for word in words], words=True, seed=100 * seed)[0].found
    )
    expected, variance = 5 * sum(theory.values()), 5 * sum(each * (1 - each) for each in theory.values())
    assert expected > 5
    assert abs(found.total() - expected) < 4 * math.sqrt(variance)
    assert all(theory[word] > 1e-6 for word in found)


def test_longest_queries_that_may_be_open_at_once_fit_their_message() -> None:
    where = [{"field": "input[3]", "at_least": 1.1, "at_most": 2.2}] * MAX_QUERY_CONDITIONS
    edges = [number + 0.1 for number in range(MAX_ANSWER_NUMBERS - 1)]
    widest = asked("histogram", edges=edges, where=where)
    begun = stored("heavy_hitters", field="text.places", longest=32, votes=3)
    in_greek = [f"{chr(0x3B1 + number % 24)}{chr(0x4E00 + number)}" * 16 for number in range(2000)]
    votes = [ReportFacts(7, 0, AnswerOutcome.ANSWERED, (), word) for word in in_greek * 3]
    prefixes, _ = next_prefixes(begun, votes)
    assert 0 < sum(len(prefix.encode()) for prefix in prefixes) <= MAX_PREFIX_BYTES
    longest = msgspec.structs.replace(begun.query, prefixes=prefixes)
    for query in (widest, longest):
        message = encode_payload(Queries((query,) * MAX_OPEN_QUERIES))
        assert decode_payload(message, Queries).asked[0] == query
        assert len(message) < MAX_QUERIES_BYTES - 1000


def test_votes_of_a_round_that_ended_and_second_votes_count_for_nothing() -> None:
    first = ReportFacts(7, 1, AnswerOutcome.ANSWERED, (1.0,))
    reports = [
        ("attic", ReportFacts(7, 0, AnswerOutcome.ANSWERED, (9.0,))),
        ("attic", first),
        ("attic", ReportFacts(7, 1, AnswerOutcome.ANSWERED, (5.0,))),
        ("garden", ReportFacts(7, 1, AnswerOutcome.NOT_ALLOWED)),
        ("kitchen", ReportFacts(7, 1, AnswerOutcome.NOT_ALLOWED)),
    ]
    answers = answers_of(reports, 1)
    assert answers.answered == (first,)
    assert answers.refusals == {"not_allowed": 2}


def test_round_ends_with_the_last_device_or_in_time_but_never_with_too_few() -> None:
    query = stored("quantiles", minimum_devices=10, round_hours=1.0)
    assert not is_over(query, answered=9, reported=30, fleet=30, seconds=1e9)
    assert is_over(query, answered=10, reported=30, fleet=30, seconds=0.0)
    assert not is_over(query, answered=10, reported=29, fleet=30, seconds=3599.0)
    assert is_over(query, answered=10, reported=29, fleet=30, seconds=3600.0)


def test_divergence_is_0_for_devices_that_are_alike_and_1_for_distributions_with_nothing_in_common() -> None:
    assert jensen_shannon([0.5, 0.5], [0.5, 0.5]) == 0.0
    assert jensen_shannon([1.0, 0.0], [0.0, 1.0]) == pytest.approx(1.0)
    assert earth_mover([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]) == pytest.approx(1.0)
    assert earth_mover([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]) == pytest.approx(0.5)
    alike = divergence([[3.0, 1.0]] * 5)
    assert alike is not None
    assert (alike.mean_jensen_shannon, alike.unlike_the_fleet) == (0.0, 0)
    apart = divergence([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    assert apart is not None
    assert (apart.devices, apart.unlike_the_fleet) == (2, 2)
    assert divergence([[0.0, 0.0]]) is None
    assert shares_of([-1.0, 0.0]) is None
