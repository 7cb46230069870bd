"""Raw inputs that hardly vary within their bounds are told; all others are nobody's business."""

import msgspec
import numpy as np
import pytest

from fleet_protocol.sample_schema import InputSchema
from fleet_protocol.scaling import Scale, Scaling
from fleet_protocol.task_description import TaskDescription
from tests.support.bundles import write_bundle
from workbench.data.narrow_inputs import narrow_inputs

RANDOM = np.random.default_rng(3)
VARIED = RANDOM.uniform(-1, 1, (50, 8)).astype(np.float32)


@pytest.fixture
def task(tmp_path) -> TaskDescription:
    return write_bundle(tmp_path).description


@pytest.mark.parametrize("narrow", [1e-4 * VARIED, 0.9 + 1e-3 * VARIED, np.zeros((50, 8), np.float32)])
def test_inputs_within_a_hundredth_of_their_bounds_are_told_with_the_remedy(task, narrow):
    words = narrow_inputs(narrow, task)
    assert words.startswith("tiny: no input deviates by more than ")
    assert "[scaling] inputs = 'fleet'" in words


def test_one_column_that_varies_is_enough_to_learn_from(task):
    one = np.zeros((50, 8), np.float32)
    one[:, 3] = RANDOM.random(50) < 0.02
    one[0, 3] = 1
    assert narrow_inputs(one, task) == ""
    assert narrow_inputs(VARIED, task) == ""


def test_scaled_inputs_and_ids_may_vary_as_little_as_they_like(task):
    narrow = 1e-4 * VARIED
    scaled = msgspec.structs.replace(task, scaling=Scaling(Scale.awaiting(8), None))
    assert narrow_inputs(narrow, scaled) == ""
    whole = msgspec.structs.replace(task, input=InputSchema([8], 0.0, 9.0, whole=True))
    assert narrow_inputs(np.zeros((50, 8), np.float32), whole) == ""
