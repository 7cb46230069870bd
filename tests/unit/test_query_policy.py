"""What the owner of a device allows: which fields, at what epsilon, how often; by default nothing."""

import msgspec
import pytest

from edge_agent.core.analytics.policy import Spent, judge, refused_unseen
from edge_agent.core.analytics.settings import AnalyticsSettings, AskableField
from fleet_protocol.kinds import AnswerOutcome
from fleet_protocol.limits import MAX_EPSILON
from tests.support.queries import TASK, asked

LABELS = asked("labels", field="label", epsilon=0.5)
ALLOWED = AnalyticsSettings([AskableField("tiny", "label")], epsilon_budget=2.0, queries_per_day=2)


def judged(query=LABELS, allowed=ALLOWED, spent=Spent(), texts=()):  # noqa: B008 - frozen
    return judge(query, TASK, allowed, texts, spent)


def test_nothing_may_be_asked_unless_the_owner_says_so() -> None:
    assert judged(allowed=AnalyticsSettings()) is AnswerOutcome.NOT_ALLOWED
    other_task = AnalyticsSettings([AskableField("digits", "label")])
    assert judged(allowed=other_task) is AnswerOutcome.NOT_ALLOWED
    assert judged() is AnswerOutcome.ANSWERED


def test_every_field_of_filter_and_window_has_to_be_allowed_too() -> None:
    filtered = asked("labels", field="label", epsilon=0.5, where=[{"field": "input[1]", "at_least": 1.0}])
    within_a_window = msgspec.structs.replace(LABELS, since=1_800_000_000)
    for query, field in ((filtered, "input"), (within_a_window, "received_at")):
        assert judged(query) is AnswerOutcome.NOT_ALLOWED
        more = msgspec.structs.replace(ALLOWED, fields=[*ALLOWED.fields, AskableField("tiny", field)])
        assert judged(query, more) is AnswerOutcome.ANSWERED


def test_answers_without_noise_are_given_where_the_owner_says_so_alone() -> None:
    exact = asked("labels", field="label")
    assert judged(exact) is AnswerOutcome.NOT_PRIVATE_ENOUGH
    allowed = AnalyticsSettings([AskableField("tiny", "label", exact=True)])
    assert judged(exact, allowed) is AnswerOutcome.ANSWERED


def test_words_and_distinct_values_are_exact_whatever_they_cost() -> None:
    allowed = AnalyticsSettings([AskableField("tiny", "text")])
    for query in (asked("heavy_hitters", field="text.places", epsilon=1.0), asked("distinct", field="text.places")):
        assert judged(query, allowed, texts=["places"]) is AnswerOutcome.NOT_PRIVATE_ENOUGH


def test_query_that_costs_more_than_the_owner_allows_is_refused() -> None:
    costly = asked("labels", field="label", epsilon=1.01)
    assert judged(costly) is AnswerOutcome.NOT_PRIVATE_ENOUGH
    assert judged(msgspec.structs.replace(costly, epsilon=1.0)) is AnswerOutcome.ANSWERED
    assert judged(msgspec.structs.replace(costly, epsilon=MAX_EPSILON)) is AnswerOutcome.NOT_PRIVATE_ENOUGH


def test_what_is_left_of_the_budget_has_to_pay_for_the_answer() -> None:
    assert judged(spent=Spent(epsilon=1.5)) is AnswerOutcome.ANSWERED
    assert judged(spent=Spent(epsilon=1.6)) is AnswerOutcome.BUDGET_SPENT
    in_rounds = asked("quantiles", field="label", epsilon=0.9, rounds=3, lower=0.0, upper=3.0)
    assert judged(in_rounds, spent=Spent(epsilon=1.7)) is AnswerOutcome.ANSWERED, "a round costs a third"


def test_query_that_says_otherwise_in_later_rounds_costs_no_more_than_the_owner_allows_for_one() -> None:
    told = Spent()
    for number in range(20):
        query = msgspec.structs.replace(asked("labels", field="label", epsilon=0.9), rounds=number + 1, round=number)
        if judged(query, spent=told) is not AnswerOutcome.ANSWERED:
            break
        of_query = told.epsilon_of_query + query.epsilon_of_round
        told = Spent(epsilon=of_query, queries_today=1, is_begun=True, epsilon_of_query=of_query)
    assert 0 < told.epsilon_of_query <= 0.9 * (1 + 1e-9)
    assert judged(query, spent=told) is AnswerOutcome.NOT_PRIVATE_ENOUGH


def test_rounds_of_one_query_count_once_a_day() -> None:
    assert judged(spent=Spent(queries_today=2)) is AnswerOutcome.TOO_OFTEN
    assert judged(spent=Spent(queries_today=2, is_begun=True)) is AnswerOutcome.ANSWERED


def test_query_that_could_be_shown_with_fewer_devices_is_refused() -> None:
    assert judged(msgspec.structs.replace(LABELS, minimum_devices=9)) is AnswerOutcome.TOO_FEW_DEVICES


def test_field_that_the_task_has_not_and_a_text_without_a_file_are_unknown() -> None:
    everything = AnalyticsSettings([AskableField("tiny", field, exact=True) for field in ("label", "input", "text")])
    assert judged(msgspec.structs.replace(LABELS, field="input[9]"), everything) is AnswerOutcome.UNKNOWN_FIELD
    words = asked("heavy_hitters", field="text.places", epsilon=1.0)
    assert judged(words, everything) is AnswerOutcome.UNKNOWN_FIELD
    assert judged(words, everything, texts=["places"]) is AnswerOutcome.ANSWERED
    of_numbers = msgspec.structs.replace(words, field="label")
    assert judged(of_numbers, everything, texts=["places"]) is AnswerOutcome.UNKNOWN_FIELD


@pytest.mark.parametrize("changed", [{"ask": "everything"}, {"field": ""}])
def test_what_a_newer_coordinator_asks_or_names_no_field_is_refused_without_a_look_at_the_task(changed) -> None:
    query = msgspec.structs.replace(LABELS, **changed)
    assert refused_unseen(query, "tiny", ALLOWED) in {AnswerOutcome.NOT_UNDERSTOOD, AnswerOutcome.NOT_ALLOWED}
