"""What the owner of a device allows: which fields, at what epsilon, how often; by default nothing."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.analytics.policy import Spent, judge, refused_unseen
from edge_agent.core.analytics.settings import AnalyticsSettings, AskableField
from edge_agent.core.analytics.terms import terms_of
from fleet_protocol.kinds import AnswerOutcome, Condition, Query
from fleet_protocol.limits import MAX_EPSILON
from tests.support.queries import TASK, asked, numbered

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


IN_ROUNDS = asked("quantiles", field="label", epsilon=0.9, rounds=3, lower=0.0, upper=3.0)


def test_first_round_is_answered_where_the_budget_pays_for_all_of_them() -> None:
    assert judged(IN_ROUNDS, spent=Spent(epsilon=1.1)) is AnswerOutcome.ANSWERED
    assert judged(IN_ROUNDS, spent=Spent(epsilon=1.2)) is AnswerOutcome.BUDGET_SPENT, "one round would cost 0.3"
    begun = Spent(epsilon=1.4, is_begun=True, epsilon_of_query=0.3)
    assert judged(IN_ROUNDS, spent=begun) is AnswerOutcome.ANSWERED, "0.6 of it is to come"


def test_what_is_promised_to_queries_that_are_begun_is_left_to_them() -> None:
    assert judged(spent=Spent(epsilon=1.0, promised=0.5)) is AnswerOutcome.ANSWERED
    assert judged(spent=Spent(epsilon=1.0, promised=0.6)) is AnswerOutcome.BUDGET_SPENT


def begun(query: Query, rounds: int = 1, task: str = TASK.task) -> Spent:
    """After so many rounds of it."""
    cost = rounds * query.epsilon_of_round
    return Spent(cost, queries_today=2, is_begun=True, epsilon_of_query=cost, terms=terms_of(query, task))


@given(st.data())
def test_later_round_that_differs_in_anything_but_edges_and_prefixes_is_refused(data) -> None:
    everything = AnalyticsSettings(
        [AskableField("tiny", each, exact=True) for each in ("label", "input", "received_at")]
    )
    other = asked("histogram", field="input[1]", edges=[1.0], samples_per_device=5, minimum_devices=20)
    other = numbered(other, 8, name="other", rounds=2, share=0.5, since=1, until=2, lower=-1.0, upper=1.0)
    other = msgspec.structs.replace(other, epsilon=0.6, where=(Condition("label", 1.0, None),))
    free = {"round", "edges", "prefixes"}
    changed = data.draw(st.sets(st.sampled_from(sorted(set(Query.__struct_fields__) - free)), max_size=3))
    later = msgspec.structs.replace(IN_ROUNDS, round=1, edges=(0.5, 1.5), prefixes=("a",))
    later = msgspec.structs.replace(later, **{name: getattr(other, name) for name in changed})
    expected = AnswerOutcome.CHANGED if changed else AnswerOutcome.ANSWERED
    assert judged(later, everything, begun(IN_ROUNDS)) is expected


def test_query_that_was_begun_about_another_task_is_refused() -> None:
    later = msgspec.structs.replace(IN_ROUNDS, round=1)
    assert judged(later, spent=begun(IN_ROUNDS)) is AnswerOutcome.ANSWERED
    assert judged(later, spent=begun(IN_ROUNDS, task="digits")) is AnswerOutcome.CHANGED


def test_query_whose_terms_are_not_known_costs_no_more_than_the_owner_allows_for_one() -> None:
    of_an_earlier_release = Spent(epsilon=0.6, is_begun=True, epsilon_of_query=0.6)
    last = msgspec.structs.replace(IN_ROUNDS, round=2)
    assert judged(last, spent=of_an_earlier_release) is AnswerOutcome.ANSWERED
    cheaper = msgspec.structs.replace(last, epsilon=0.6)
    assert judged(cheaper, spent=of_an_earlier_release) is AnswerOutcome.NOT_PRIVATE_ENOUGH


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
