"""Of a version's file a device reads the tensors of its own blocks, and checks those."""

import numpy as np
import pytest
from safetensors.numpy import load, save

from edge_agent.training.split.own_weights import read_own_weights
from fleet_protocol.codec import ClusterView, write_weights
from fleet_protocol.errors import ProtocolError, Reason
from tests.support.clustered_task import clustered
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


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "weights").write_bytes(b"no weights")
    with pytest.raises(ProtocolError) as caught:
        read_own_weights(tmp_path / "weights", TASK, OWN)
    assert caught.value.reason is Reason.MALFORMED


def test_a_clusters_tensors_are_its_copies_and_of_what_all_share_there_is_one(tmp_path):
    task = clustered(3, "0.*", base=TASK)
    version = np.random.default_rng(0).normal(size=task.version.size).astype(np.float32)
    path = tmp_path / "weights"
    path.write_bytes(write_weights(version, task.version.parameters))
    for cluster in range(4):
        own = np.where(IS_OWN, ClusterView.of(task, cluster).weights(version), 0)
        np.testing.assert_array_equal(read_own_weights(path, task, OWN, cluster), own)
