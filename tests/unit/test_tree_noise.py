"""Noise of a binary tree of sums: it is one mechanism, whose sensitivity no device exceeds."""

import itertools
import math

import numpy as np
import pytest

from broker_coordinator.aggregation.device_privacy.version_noise import UNITS_PER_DEVIATION, NoiseSeries
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.privacy.tree_noise import Tree, nodes_of_prefix
from tests.support.hidden_devices import hiding_plan


def strategy(versions):
    """C: each row a node, 1 at the versions that it is the sum of."""
    matrix = np.zeros((versions, versions))
    for node in range(1, versions + 1):
        matrix[node - 1, node - (node & -node) : node] = 1
    return matrix


def noise_matrix(versions):
    matrix = np.zeros((versions, versions))
    for number in range(1, versions + 1):
        for column, value in Tree().coefficients(number).items():
            matrix[number - 1, column - 1] = value
    return matrix


@pytest.mark.parametrize("versions", [1, 2, 7, 16, 23, 64])
def test_coefficients_are_the_inverse_of_the_tree_so_sums_and_noise_are_one_mechanism(versions):
    np.testing.assert_array_equal(noise_matrix(versions) @ strategy(versions), np.eye(versions))


@pytest.mark.parametrize("versions", [1, 3, 6, 8, 12, 16])
def test_no_pattern_of_participation_moves_more_than_the_sensitivity(versions):
    """All patterns by brute force; as no entry is negative, updates that are alike move it most."""
    nodes = strategy(versions)
    for at_most, between in itertools.product((1, 2, 3, 4), (1, 2, 3, 5, 8)):
        worst = max(
            float(np.linalg.norm(nodes[:, list(pattern)].sum(axis=1)))
            for count in range(1, at_most + 1)
            for pattern in itertools.combinations(range(versions), count)
            if all(later - earlier >= between for earlier, later in itertools.pairwise(pattern))
        )
        assert worst <= Tree().sensitivity(versions, at_most, between) + 1e-9 <= 1.16 * worst


@pytest.mark.parametrize("versions", [1, 5, 8, 13])
def test_sensitivity_is_exact_for_one_update_and_for_updates_of_every_version(versions):
    nodes = strategy(versions)
    assert Tree().sensitivity(versions, 1, 1) == pytest.approx(np.linalg.norm(nodes, axis=0).max())
    assert Tree().sensitivity(versions, versions, 1) == pytest.approx(np.linalg.norm(nodes.sum(axis=1)))


def test_signs_and_directions_of_updates_move_no_further_than_updates_that_are_alike():
    generator = np.random.default_rng(0)
    nodes = strategy(12)
    for _ in range(200):
        pattern = sorted(generator.choice(12, 3, replace=False))
        updates = generator.standard_normal((3, 4))
        updates /= np.linalg.norm(updates, axis=1, keepdims=True)
        assert np.linalg.norm(nodes[:, pattern] @ updates) <= Tree().sensitivity(12, 3, 1) + 1e-9


def test_error_of_prefix_sums_is_that_of_the_matrix():
    prefix = np.tril(np.ones((21, 21))) @ noise_matrix(21)
    assert Tree().error_of_prefix_sums(21) == pytest.approx(np.linalg.norm(prefix) / math.sqrt(21))


def test_noise_of_the_sum_of_versions_is_that_of_few_nodes_and_follows_from_kept_seeds():
    plan = hiding_plan(noise="tree", versions=40, at_most=3, versions_between=2)
    seeds = {number: bytes([number]) * 32 for number in range(1, 41)}
    series, total = NoiseSeries(), np.zeros(500)
    alone = {}
    for number in range(1, 41):
        series = series.after(seeds[number], plan)
        assert series.noise
        assert set(series.seeds) == set(nodes_of_prefix(number))
        total += series.noise.units(500)
        alone[number] = NoiseSeries().after(seeds[number], plan).noise
        expected = sum(alone[node].units(500) for node in nodes_of_prefix(number))
        np.testing.assert_array_equal(total, expected)
    assert abs(np.std(alone[1].units(100_000)) / UNITS_PER_DEVIATION - 1) < 0.02


def test_epsilon_grows_with_versions_and_is_kept():
    plan = hiding_plan(noise="tree", versions=40, at_most=5, versions_between=8)
    told = [plan.epsilon_after(versions) for versions in range(41)]
    assert told == sorted(told)
    assert 0.99 * plan.epsilon <= told[-1] <= plan.epsilon


def test_bands_are_refused():
    with pytest.raises(ConfigurationError, match="bands is 4, and it is for noise 'banded', not 'tree'"):
        hiding_plan(noise="tree", bands=4)
