"""Budgets that some samples have by themselves: which samples rest, what agent.toml may say, what a batch has."""

import os

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.configuration import load_configuration
from edge_agent.core.budget_rules import BudgetRule, SpentBudget, rests, spent_budgets
from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.core.sample_ledger import Charge, Limit, spent_through
from edge_agent.sources.readings import ReadingForm
from edge_agent.sources.schema_check import check_budget
from edge_agent.training.private.randomness import sampled_batches
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.privacy.renyi import Mechanism, StepsTaken
from tests.unit.test_private_tasks import TASK

BEDROOM = SpentBudget("bedroom", [], through=10)
FALLS = SpentBudget("falls", [3, 4], through=20)


@pytest.mark.parametrize(
    ("sample", "named", "label", "expected"),
    [
        (10, "bedroom", 0, True),
        (11, "bedroom", 0, False),
        (20, "", 3, True),
        (21, "", 3, False),
        (1, "", 0, False),
        (11, "bedroom", 4, True),  # of two budgets, each holds
        (20, "falls", 0, True),
        (99, "attic", 0, True),  # a budget that agent.toml no longer has
        (99, "", None, False),
    ],
)
def test_sample_rests_where_one_of_its_budgets_is_spent(sample, named, label, expected):
    assert rests([BEDROOM, FALLS], sample, named, label) == expected


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 300)), max_size=8), st.floats(0.1, 8), st.floats(0.1, 8))
def test_smaller_budget_is_spent_no_later_than_a_larger_one_and_a_spent_sample_pays_on(rounds, one, other):
    mechanism = Mechanism(1.0, 0.05)
    charges = [Charge(newest, StepsTaken(mechanism, steps)) for newest, steps in rounds]

    def through(epsilon: float) -> int:
        return spent_through(charges, mechanism, 20, [Limit(epsilon, 1e-5)])

    assert through(min(one, other)) >= through(max(one, other))
    charges.append(Charge(30, StepsTaken(mechanism, 20)))
    assert through(one) >= spent_through(charges[:-1], mechanism, 20, [Limit(one, 1e-5)])


def test_rules_name_labels_of_their_own_task_alone():
    rules = [BudgetRule("bedroom", 1.0), BudgetRule("falls", 0.5, "digits", [3])]
    found = spent_budgets(rules, "digits", lambda epsilon: int(10 * epsilon))
    assert found == [SpentBudget("bedroom", [], 10), SpentBudget("falls", [3], 5)]
    assert spent_budgets(rules, "letters", lambda _: 1)[1].labels == []


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_batches_have_no_resting_sample_and_all_others(flags):
    resting = np.array(flags)
    plan = sampled_batches(len(flags), 5, 1.0, os.urandom, seed=1, resting=resting)
    for rows, mask in zip(plan.rows, plan.mask, strict=True):
        assert rows[mask > 0].tolist() == np.flatnonzero(~resting).tolist()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"budgets": [{"name": "a", "epsilon": 1}]}, "budgets: at_least = 'nothing' lets tasks train without"),
        (
            {"at_least": "samples", "budgets": [{"name": "a", "epsilon": 1, "labels": [1]}]},
            "needs both task and labels",
        ),
        ({"at_least": "samples", "budgets": 2 * [{"name": "a", "epsilon": 1}]}, "a name is given twice"),
        ({"at_least": "samples", "budgets": [{"name": "a", "epsilon": 0}]}, "> 0"),
    ],
)
def test_rules_that_would_promise_what_is_not_kept_are_refused(settings, words):
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert(settings, PrivacySettings)


def test_labels_that_the_task_lacks_are_refused_in_words_before_anything_is_trained():
    def refusal(labels: list[int]) -> str | None:
        rule = BudgetRule("falls", 0.5, TASK.task, labels)
        return PrivacySettings(at_least="samples", budgets=[rule]).refusal(TASK)

    assert refusal([0, TASK.label.classes - 1]) is None
    assert f"has the classes 0 to {TASK.label.classes - 1}" in str(refusal([TASK.label.classes]))


AGENT = f"""
fleet = "home"
device = "pi"
key_file = "key"
coordinator_key = "{"0" * 64}"
state_folder = "state"
sample_socket = "socket"
tasks = [{{ name = "rooms" }}]
broker = {{ host = "broker" }}
privacy = {{ at_least = "samples", budgets = [{{ name = "bedroom", epsilon = 1 }}] }}
"""


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ('[{ kind = "mqtt", task = "rooms", budget = "attic" }]', "'attic' is none of"),
        (
            '[{ kind = "mqtt", task = "rooms", budget = "bedroom", fields = { t = "$.t" } },'
            ' { kind = "mqtt", task = "rooms", fields = { t = "$.u" } }]',
            "make samples together, and have several budgets",
        ),
    ],
)
def test_budget_of_a_source_is_one_that_there_is_and_that_of_its_series(tmp_path, sources, words):
    file = tmp_path / "agent.toml"
    file.write_text(f"{AGENT}sources = {sources}\n")
    with pytest.raises(ConfigurationError, match=words):
        load_configuration(file)


def test_source_gives_its_budget_and_a_reading_can_not_name_a_laxer_one():
    form = ReadingForm("rooms", budget="bedroom")
    assert form.sample({"inputs": [1.0], "budget": "none"}).budget == "bedroom"
    assert ReadingForm("rooms").sample({"inputs": [1.0], "budget": "attic"}).budget == "attic"
    with pytest.raises(ValueError, match="unknown budget 'attic'"):
        check_budget("attic", frozenset({"bedroom"}))
    check_budget("", frozenset())
