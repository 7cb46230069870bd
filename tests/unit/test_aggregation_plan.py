"""What may not go together in `aggregation`: said at load, with the setting, its value and the remedy."""

import math

import pytest

from fleet_protocol.aggregation_plan import USED_BY, AggregationPlan, check_aggregation, largest_delta_norm_of
from fleet_protocol.errors import ConfigurationError


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"cached_staleness": 5},
            r"cached_staleness is 5, but strategy 'fedbuff' does not use it.*set strategy to 'aced'",
        ),
        ({"round_seconds": 60.0}, "round_seconds is 60.0.*'fedavg'"),
        ({"staleness_slope": 2.0}, "staleness_weighting 'polynomial' does not use it.*'hinge'"),
        ({"strategy": "fadas", "staleness_weighting": "constant"}, "strategy 'fadas' does not use it"),
        ({"server_optimiser": "sgd", "server_momentum": 0.5}, "server_momentum is 0.5.*'momentum' or 'adagrad'"),
        ({"server_optimiser": "grafted", "server_momentum": 0.3}, "server_optimiser 'grafted' does not use it"),
        ({"server_second_momentum": 0.9}, "server_optimiser 'momentum' does not use it"),
        ({"strategy": "fedasync"}, "buffer_size must be 1, it is 4"),
        ({"strategy": "fedasync", "buffer_size": 1, "server_learning_rate": 1.5}, "at most 1, it is 1.5"),
        ({"strategy": "fedavg", "max_staleness": 0}, "needs a deadline, round_seconds"),
        ({"strategy": "fedavg", "round_seconds": 60.0}, "max_staleness must be 0, it is 20"),
        ({"server_learning_rate": math.inf}, "infinite"),
    ],
)
def test_contradictions_are_refused(settings, said) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        check_aggregation(AggregationPlan(**{"buffer_size": 4} | settings), "task.toml")
    assert str(caught.value).startswith("task.toml: ")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"strategy": "fedavg", "max_staleness": 0, "over_selection": 1.3, "round_seconds": 600.0},
        {"strategy": "fedasync", "buffer_size": 1, "staleness_weighting": "hinge", "staleness_slope": 3.0},
        {"strategy": "fadas", "server_optimiser": "amsgrad", "server_momentum": 0.9, "server_second_momentum": 0.999},
    ],
)
def test_what_goes_together_is_taken(settings) -> None:
    check_aggregation(AggregationPlan(**{"buffer_size": 4} | settings), "task.toml")


def test_table_of_uses_names_settings_that_exist() -> None:
    fields = set(AggregationPlan.__struct_fields__)
    assert {*USED_BY, *(other for other, _ in USED_BY.values())} <= fields


@pytest.mark.parametrize(("parameters", "largest"), [(1, 100.0), (40_000, 100.0), (16_000_000, 2000.0)])
def test_largest_norm_follows_the_model_where_the_task_does_not_say_it(parameters, largest) -> None:
    assert largest_delta_norm_of(parameters) == largest


def test_left_out_buffer_size_is_not_taken_for_rounds_or_single_updates() -> None:
    for settings in ({"strategy": "fedasync"}, {"strategy": "fedavg", "max_staleness": 0, "round_seconds": 60.0}):
        with pytest.raises(ConfigurationError, match="buffer_size"):
            check_aggregation(AggregationPlan(**settings), "task.toml")
