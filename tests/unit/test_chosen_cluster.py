"""Which copy a device trains where it chooses: at random until each was trained, then the best by more than chance."""

from collections import Counter
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from bundle_runtime.runner import Evaluation
from bundle_runtime.samples import Samples
from edge_agent.training.copies import MOST_TRIED, chosen_cluster
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.codec import with_copies
from tests.support.clustered_task import WHOLE

TASK = msgspec.structs.replace(WHOLE, clusters=ClusterPlan(3, found_by="devices"))
FIRST = np.zeros(TASK.parameter_count, np.float32)
NOISE = np.random.default_rng(0).standard_normal(40)


def version(*values: float) -> np.ndarray:
    """Copy 0 is all zeros, and copy c all `values[c - 1]`."""
    found = with_copies(FIRST, TASK)
    start = 0
    for parameter in TASK.version.parameters:
        _, _, copy = parameter.name.partition("@")
        found[start : start + parameter.size] = values[int(copy) - 1] if copy else 0.0
        start += parameter.size
    return found


def samples(count: int = 40) -> Samples:
    return Samples(np.zeros((count, 1), np.float32), np.zeros(count, np.int64))


def losses(each: Callable[[float], np.ndarray] = lambda value: value + NOISE):
    """Of a copy by its value."""
    return lambda weights, of: Evaluation(np.asarray(each(float(weights[0])), np.float32)[: len(of)], None)


def chosen(*values: float, now: int = 0, evaluate=None, of: Samples | None = None, draw=(1, 0), task=TASK) -> int:
    of = samples() if of is None else of
    return chosen_cluster(version(*values), task, of, now, draw=draw, evaluate=evaluate or losses())


@pytest.mark.parametrize("now", [0, 2])
def test_a_device_takes_the_copy_with_the_least_loss_on_its_samples(now):
    assert chosen(3.0, 2.0, 1.0, now=now) == 3


def test_what_makes_one_sample_harder_than_another_says_nothing_of_copies():
    assert NOISE.std() > 0.5
    assert chosen(1.0, 0.99, 2.0, now=1) == 2


def test_a_device_stays_where_another_copy_is_better_by_chance_alone():
    chance = np.random.default_rng(1).standard_normal(40)
    evaluate = losses(lambda value: value + chance * (value != 1.0))
    better = 1.0 - 1.5 * chance.std(ddof=1) / np.sqrt(40) - chance.mean()
    assert chosen(1.0, better, 9.0, now=1, evaluate=evaluate) == 1
    assert chosen(1.0, better - 1.0, 9.0, now=1, evaluate=evaluate) == 2
    assert chosen(1.0, better, 9.0, now=0, evaluate=evaluate) == 2, "one in none has nothing to keep"


def test_until_each_copy_was_trained_every_round_draws_one():
    drawn = Counter(chosen(3.0, 0.0, 1.0, now=1, draw=(7, number)) for number in range(300))
    assert set(drawn) == {1, 2, 3}
    assert min(drawn.values()) > 60
    assert chosen(3.0, 0.0, 1.0, draw=(7, 5)) == chosen(3.0, 0.0, 1.0, now=2, draw=(7, 5))
    others = {chosen(0.0, 0.0, 0.0, draw=(life, 0)) for life in range(20)}
    assert others == {1, 2, 3}, "devices are drawn apart"


def test_a_copy_that_has_fallen_apart_is_left_and_never_taken():
    fallen = losses(lambda value: np.full(40, np.nan if value == 1.0 else value))
    assert chosen(1.0, 2.0, 3.0, now=1, evaluate=fallen) == 2
    assert chosen(1.0, 2.0, 3.0, now=3, evaluate=fallen) == 2
    assert chosen(1.0, 1.0, 1.0, now=3, evaluate=fallen) == 3, "none is better"


def test_a_cluster_that_a_newer_bundle_has_not_is_none():
    assert chosen(3.0, 2.0, 1.0, now=7) == 3


def test_one_sample_tells_no_difference():
    assert chosen(3.0, 2.0, 1.0, now=1, of=samples(1)) == 1


def test_one_sample_is_enough_for_a_device_that_is_in_none():
    assert chosen(3.0, 2.0, 1.0, of=samples(1)) == 3
    assert chosen(1.0, 2.0, 3.0, of=samples(1)) == 1


def spoilt(*, under: dict[float, slice]):
    """Losses of which those in a slice are not finite, by the value of the copy."""

    def each(value: float) -> np.ndarray:
        found = value + NOISE
        for of, where in under.items():
            found[where] = np.nan if of == value else found[where]
        return found

    return losses(each)


def test_a_sample_that_no_copy_knows_keeps_nobody_from_choosing():
    of_all = spoilt(under=dict.fromkeys((1.0, 2.0, 3.0), slice(0, 1)))
    assert chosen(3.0, 2.0, 1.0, evaluate=of_all) == 3
    assert chosen(3.0, 2.0, 1.0, now=1, evaluate=of_all) == 3
    assert chosen(1.0, 2.0, 3.0, now=1, evaluate=of_all) == 1


def test_of_copies_that_all_fail_on_some_samples_the_one_that_fails_least_is_taken():
    each = spoilt(under={1.0: slice(0, 9), 2.0: slice(9, 12), 3.0: slice(12, 20)})
    assert chosen(1.0, 2.0, 3.0, evaluate=each) == 2
    assert chosen(1.0, 2.0, 3.0, now=3, evaluate=each) == 2


def test_a_device_in_none_that_can_tell_nothing_is_drawn_into_a_cluster_and_others_stay():
    nothing = losses(lambda value: np.full(40, np.nan))
    drawn = {chosen(3.0, 2.0, 1.0, draw=(life, 0), evaluate=nothing) for life in range(20)}
    assert drawn == {1, 2, 3}
    assert chosen(3.0, 2.0, 1.0, now=2, evaluate=nothing) == 2
    assert {chosen(3.0, 2.0, 1.0, draw=(life, 0), of=samples(0)) for life in range(20)} == drawn


def test_no_more_samples_are_tried_than_a_round_can_spare():
    tried = []

    def evaluate(weights, of):
        tried.append(len(of))
        return Evaluation(np.full(len(of), weights[0], np.float32), None)

    assert chosen(3.0, 2.0, 1.0, now=1, of=samples(5000), evaluate=evaluate) == 3
    assert tried == [MOST_TRIED] * 3


def test_where_devices_do_not_choose_nothing_changes():
    task = msgspec.structs.replace(TASK, clusters=ClusterPlan(3))
    assert chosen(3.0, 2.0, 1.0, now=1, task=task) == 1
