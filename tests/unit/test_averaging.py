"""The model to use is the mean of the last versions."""

import numpy as np
import pytest

from broker_coordinator.aggregation.averaging import RecentVersions, averaged_weights
from fleet_protocol.bundle import Parameter
from fleet_protocol.codec import read_weights, write_weights
from fleet_protocol.errors import ProtocolError, Reason
from tests.support.bundles import PARAMETERS


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=36).astype(np.float32)


def test_average_is_the_mean_of_the_versions():
    vectors = [vector(seed) for seed in range(4)]
    files = [write_weights(one, PARAMETERS) for one in vectors]
    averaged = averaged_weights(files, PARAMETERS)
    expected = np.mean(np.stack(vectors).astype(np.float64), axis=0).astype(np.float32)
    np.testing.assert_array_equal(read_weights(averaged, PARAMETERS), expected)


def test_one_version_is_given_back_byte_for_byte():
    file = write_weights(vector(1), PARAMETERS)
    assert averaged_weights([file], PARAMETERS) == file


def test_version_of_another_model_is_refused():
    files = [write_weights(vector(1), PARAMETERS), write_weights(vector(2), [Parameter("other", [36])])]
    with pytest.raises(ProtocolError) as caught:
        averaged_weights(files, PARAMETERS)
    assert caught.value.reason is Reason.WRONG_SHAPE


@pytest.mark.parametrize(("made", "expected"), [(0, 0.0), (1, 1.0), (3, 3.0), (4, 3.5), (6, 5.0), (7, 6.0)])
def test_versions_in_memory_are_averaged_as_an_export_averages_them(made: int, expected: float) -> None:
    recent = RecentVersions(3)
    for number in range(made + 1):
        recent.add(number, write_weights(np.full(36, number, np.float32), PARAMETERS))
    assert read_weights(recent.model(PARAMETERS), PARAMETERS)[0] == expected
