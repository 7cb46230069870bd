"""What a device's round says of its features, when it says it again, and what becomes of a refusal."""

import msgspec
import numpy as np
import pytest

from bundle_runtime.samples import Samples
from edge_agent.producers.feature_statistics import produce_feature_statistics, returned_feature_statistics
from edge_agent.training.feature_statistics import measure_features
from edge_agent.training.round import DivergedError, Earlier
from edge_agent.training.stored_samples import StoredSamples
from edge_agent.worker.contract import Returned, TrainingResult, Withheld
from fleet_protocol.codec import ClassStatistics, decode_class_statistics
from fleet_protocol.solved_head import SolvedHead
from fleet_protocol.task_description import TaskDescription
from tests.support.bundles import write_bundle
from tests.support.solved_heads import fleet

PLAN = SolvedHead(solver="means", precision="float64", largest_feature=10.0)


@pytest.fixture
def task(tmp_path) -> TaskDescription:
    return write_bundle(tmp_path, solved_head=PLAN).description


def stored(seed: int, validation: int = 0) -> StoredSamples:
    """Of device `seed`; the first ones are kept for validation."""
    samples = next(fleet(seed, 1))
    labels = samples.labels.astype(np.int64)
    whole = Samples(samples.features.astype(np.float32), labels, newest=40)
    parts = whole.take(slice(validation, None)), whole.take(slice(0, validation))
    return StoredSamples(*parts, different=len(whole), fresh=0)


def earlier(sent: bytes = b"", returned: tuple[Returned, ...] = ()) -> Earlier:
    return Earlier(sent, returned, seed=1, life=1)


def measured(task: TaskDescription, samples: StoredSamples, before: Earlier, plan: SolvedHead = PLAN) -> TrainingResult:
    result = measure_features(samples, plan, task, before)
    assert isinstance(result, TrainingResult)
    return result


def test_samples_that_others_keep_for_validation_are_told_too(task):
    result = measured(task, stored(5, validation=1), earlier())
    whole = stored(5).training
    told = decode_class_statistics(result.feature_statistics, 4, 8, "float64", "means")
    by_hand = ClassStatistics.of(whole.inputs, whole.labels, 4, "means")
    assert told.counts.tolist() == by_hand.counts.tolist()
    np.testing.assert_allclose(told.means, by_hand.means)
    assert (result.samples, result.trained_through, result.packed) == (len(whole), 40, b"")


@pytest.mark.parametrize("send_again", [0.0, 0.05])
def test_what_has_not_moved_is_not_sent_again(task, send_again):
    plan = msgspec.structs.replace(PLAN, send_again=send_again)
    first = measured(task, stored(5), earlier())
    again = measure_features(stored(5), plan, task, earlier(first.residual))
    assert isinstance(again, Withheld)
    assert again.why == "unchanged"
    assert again.words == f"features have moved by 0 of what was sent; send_again is {send_again:g}"


def test_what_has_moved_is_sent_again(task):
    first = measured(task, stored(5), earlier())
    assert measured(task, stored(6), earlier(first.residual)).feature_statistics != first.feature_statistics


def test_what_the_coordinator_refused_is_sent_again_although_it_has_not_moved(task):
    first = measured(task, stored(5), earlier())
    payload = produce_feature_statistics(task, first)
    assert payload is not None
    back = returned_feature_statistics(payload)
    again = measured(task, stored(5), earlier(first.residual, (back,)))
    assert again.feature_statistics == first.feature_statistics == back.packed


def test_memory_of_another_bundle_is_no_memory(task):
    assert measured(task, stored(5), earlier(b"residual of another task")).feature_statistics


def test_feature_that_is_larger_than_the_task_takes_is_told_in_words(task):
    plan = msgspec.structs.replace(PLAN, largest_feature=0.001)
    with pytest.raises(DivergedError, match=r"exceeds largest_feature \(0\.001\); nothing is sent"):
        measure_features(stored(5), plan, task, earlier())


def test_task_of_updates_sends_none(task, tmp_path):
    result = measured(task, stored(5), earlier())
    assert produce_feature_statistics(write_bundle(tmp_path / "other").description, result) is None
