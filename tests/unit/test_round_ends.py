"""What the end of a round takes: updates of the blocks that each side runs, by about the bytes that the codec makes."""

import msgspec
import numpy as np
import pytest

from fleet_protocol.codec.update_codec import encode_update
from fleet_protocol.split_plan import WHOLE
from fleet_protocol.update_plan import UpdatePlan
from tests.support.split_task import DEEP, EARLY, TASK
from workbench.split_planning.round_ends import ENVELOPE_BYTES, device_round_end, middle_round_end, update_bytes

VALUES = 40_000


@pytest.mark.parametrize(
    "plan",
    [
        UpdatePlan(0.01),
        UpdatePlan(0.1),
        UpdatePlan(0.1, quantisation="int8"),
        UpdatePlan(0.2, quantisation="float32", selection="random_k"),
        UpdatePlan(1.0, quantisation="float16", selection="dense"),
    ],
)
def test_an_update_is_estimated_within_a_sixth_of_what_the_codec_makes(plan):
    delta = np.random.default_rng(1).standard_normal(VALUES).astype(np.float32)
    packed = encode_update(delta, [[VALUES]], plan, np.random.default_rng(2)).packed
    assert update_bytes(plan, VALUES) - ENVELOPE_BYTES == pytest.approx(len(packed), rel=1 / 6)


def test_each_side_sends_the_blocks_that_it_runs_and_gets_a_whole_version():
    plan = UpdatePlan(1.0, quantisation="float32", selection="dense")
    task = msgspec.structs.replace(TASK, update=plan)  # blocks of 4, 3, 2 and 3 weights, and 3 statistics
    assert device_round_end(task, WHOLE).up_bytes == ENVELOPE_BYTES + 4 * 12
    assert device_round_end(task, DEEP).up_bytes == ENVELOPE_BYTES + 4 * 7
    assert middle_round_end(task, [EARLY]).up_bytes == ENVELOPE_BYTES + 4 * 3
    assert middle_round_end(task, [EARLY, DEEP]).up_bytes == ENVELOPE_BYTES + 4 * 5
    assert middle_round_end(task, [WHOLE]).up_bytes == 0
    assert device_round_end(task, EARLY).down_bytes == device_round_end(task, WHOLE).down_bytes > 0
