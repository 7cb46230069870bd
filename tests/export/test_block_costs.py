"""What blocks cost is what their layers come to, counted by hand, and no block's graph holds anything of another."""

from collections import Counter

import numpy as np
import onnx
from onnx import TensorProto, helper
from torch import nn

from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.samples import Samples
from fleet_protocol.split_plan import backward_file, forward_file
from tests.support.training import build, make_recipe, samples, with_head
from workbench.export.blocks.division import divide
from workbench.export.blocks.live_bytes import live_bytes_per_sample
from workbench.export.blocks.operations import forward_flops
from workbench.export.conversion.onnx_conversion import checked_model
from workbench.recipe_folder import find_bundle

FLOAT_BYTES = 4


def test_operations_of_convolutions_and_products_are_counted():
    blocks = load_bundle(find_bundle("mnist_cnn")).description.split.blocks
    by_hand = [2 * 9 * 8 * 14 * 14, 2 * 9 * 8 * 16 * 7 * 7, 2 * 16 * 7 * 7 * 10]
    assert [block.forward_flops for block in blocks] == by_hand


def test_operations_of_a_recurrent_layer_are_those_of_all_its_steps():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.GRU(3, 6, batch_first=True)
            self.kept = nn.Identity()

        def forward(self, sequence):
            return self.kept(self.layer(sequence)[0])

    recipe = make_recipe(*build(lambda: with_head(Recurrent(), nn.Flatten(), nn.Linear(42, 5)), (7, 3)))
    division = divide(recipe, ["0.kept", "2"])
    given = Samples(*samples(recipe))
    each_step = 2 * 3 * 6 * (3 + 6 + 1)  # the bias is multiplied as one more input
    assert forward_flops(division, 0, given) == 7 * each_step
    assert forward_flops(division, 1, given) == 2 * 42 * 5
    assert forward_flops(division, 2, given) == 2 * 5 * 4


def test_bytes_are_those_of_values_that_are_needed_at_once():
    """[N, 10] becomes [N, 20], then [N, 10] by weights that don't count, which [N, 10] is added to."""
    value = helper.make_tensor_value_info
    weights = helper.make_tensor("weights", TensorProto.FLOAT, [20, 10], np.ones(200, np.float32))
    graph = helper.make_graph(
        [
            helper.make_node("Concat", ["inputs", "inputs"], ["twice"], axis=1),
            helper.make_node("Neg", ["twice"], ["turned"]),
            helper.make_node("MatMul", ["turned", "weights"], ["product"]),
            helper.make_node("Add", ["product", "inputs"], ["outputs"]),
        ],
        "graph",
        [value("inputs", TensorProto.FLOAT, ["N", 10])],
        [value("outputs", TensorProto.FLOAT, ["N", 10])],
        [weights],
    )
    few, many = ({"inputs": np.ones((rows, 10), np.float32)} for rows in (2, 5))
    at_once = 10 + 20 + 20  # the inputs, and what Neg takes and gives
    assert live_bytes_per_sample(checked_model(graph), few, many, 3) == at_once * FLOAT_BYTES


def test_bytes_that_a_loop_takes_and_gives_count_twice():
    """[N, 5] changes its sign in five steps of a loop."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Neg", ["step"], ["turned"])],
        "body",
        [value("step", TensorProto.FLOAT, ["N"])],
        [value("turned", TensorProto.FLOAT, ["N"])],
    )
    axes = {"scan_input_axes": [1], "scan_output_axes": [1]}
    graph = helper.make_graph(
        [helper.make_node("Scan", ["inputs"], ["outputs"], body=body, num_scan_inputs=1, **axes)],
        "graph",
        [value("inputs", TensorProto.FLOAT, ["N", 5])],
        [value("outputs", TensorProto.FLOAT, ["N", 5])],
    )
    few, many = ({"inputs": np.ones((rows, 5), np.float32)} for rows in (2, 5))
    assert live_bytes_per_sample(checked_model(graph), few, many, 3) == 2 * (5 + 5) * FLOAT_BYTES


def test_graph_of_a_block_holds_its_own_layers_alone():
    bundle = load_bundle(find_bundle("mnist_cnn"))
    for block, convolutions in ((0, 1), (1, 1)):
        operators = Counter(
            node.op_type for node in onnx.load_from_string(bundle.files[forward_file(block)]).graph.node
        )
        assert operators["Conv"] == convolutions
        assert not operators["Gemm"] + operators["MatMul"]
    read = [entry.name for entry in onnx.load_from_string(bundle.files[backward_file(1)]).graph.input]
    assert sorted(read) == ["activations", "gradient", "learning_rate", "state.0", "weights"]
