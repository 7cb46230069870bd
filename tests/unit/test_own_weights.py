"""Of a version's file a device reads the tensors of its own blocks, and checks those."""

import math

import numpy as np
import pytest
from safetensors.numpy import load, save

from edge_agent.training.split.own_weights import read_own_weights
from fleet_protocol.errors import ProtocolError, Reason
from tests.support.safetensors_file import safetensors
from tests.support.split_session import shipped, shipped_weights

TASK = shipped().description
OWN = (0, 2)
IS_OWN = np.repeat([each.block in OWN for each in TASK.parameters], [each.size for each in TASK.parameters])


def test_own_tensors_are_there_and_others_are_0(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(shipped().weights)
    np.testing.assert_array_equal(read_own_weights(path, TASK, OWN), np.where(IS_OWN, shipped_weights(), 0))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: tensors.pop("6.weight"), Reason.WRONG_SHAPE),
        (lambda tensors: tensors.update({"6.weight": np.zeros((2, 2), np.float32)}), Reason.WRONG_SHAPE),
        (lambda tensors: tensors.update({"6.weight": tensors["6.weight"].astype(np.float64)}), Reason.WRONG_SHAPE),
        (lambda tensors: tensors["6.weight"].fill(np.nan), Reason.NOT_FINITE),
    ],
)
def test_a_tensor_that_is_not_what_the_task_says_is_refused(change, reason, tmp_path):
    tensors = {name: tensor.copy() for name, tensor in load(shipped().weights).items()}
    change(tensors)
    (tmp_path / "weights").write_bytes(save(tensors))
    with pytest.raises(ProtocolError) as caught:
        read_own_weights(tmp_path / "weights", TASK, OWN)
    assert caught.value.reason is reason


@pytest.mark.parametrize(("dtype", "bits"), [("BF16", 16), ("F8_E4M3", 8), ("F4", 4)])
def test_tensor_of_a_dtype_that_numpy_lacks_is_refused(dtype, bits, tmp_path):
    tensors = {name: ("F32", [*tensor.shape], tensor.tobytes()) for name, tensor in load(shipped().weights).items()}
    _, shape, _ = tensors["6.weight"]
    tensors["6.weight"] = (dtype, shape, bytes(bits * math.prod(shape) // 8))
    (tmp_path / "weights").write_bytes(safetensors(tensors))
    with pytest.raises(ProtocolError) as caught:
        read_own_weights(tmp_path / "weights", TASK, OWN)
    assert caught.value.reason is Reason.WRONG_SHAPE


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "weights").write_bytes(b"no weights")
    with pytest.raises(ProtocolError) as caught:
        read_own_weights(tmp_path / "weights", TASK, OWN)
    assert caught.value.reason is Reason.MALFORMED
