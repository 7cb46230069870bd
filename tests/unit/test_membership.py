"""The parts of the membership attack: it finds what there is to find, and nothing where there is nothing."""

import numpy as np
import pytest

from benchmarks.membership import Audit, advantage, largest_advantage, likelihood_ratios


def made_audit(difference: float) -> Audit:
    """Models that are by so many deviations more confident of samples that they had."""
    generator = np.random.default_rng(3)
    members = generator.random((40, 60)) < 0.5
    hardness = generator.normal(0, 5, 60)  # which a threshold for all samples would be misled by
    return Audit(members, hardness + generator.normal(size=members.shape) + difference * members)


def test_members_are_told_apart_where_models_are_more_confident_of_them():
    audit = made_audit(4.0)
    assert advantage(likelihood_ratios(audit), audit.members) > 0.85
    assert advantage(audit.confidence, audit.members) < 0.5, "without a look at each sample's hardness it is weak"


def test_attack_finds_next_to_nothing_where_there_is_nothing():
    audit = made_audit(0.0)
    assert advantage(likelihood_ratios(audit), audit.members) < 0.08


def test_advantage_counts_thresholds_between_equal_scores_once():
    members = np.array([[True, False, True, False]])
    assert advantage(np.zeros((1, 4)), members) == 0
    assert advantage(np.array([[2.0, 1.0, 2.0, 1.0]]), members) == 1


@pytest.mark.parametrize(("epsilon", "most"), [(0.0, 0.0), (1.0, 0.462), (8.0, 0.9993)])
def test_no_epsilon_allows_more_than_randomised_response_has(epsilon, most):
    assert largest_advantage(epsilon, 0.0) == pytest.approx(most, abs=1e-3)
