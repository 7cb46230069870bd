"""What a graph made to tell of one sample gets out of a private step where its samples are looked at one by one."""

import msgspec
import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from bundle_runtime.graph import GraphError
from bundle_runtime.samples import Samples
from edge_agent.training.engine import BatchPlan, EngineError, Rates
from edge_agent.training.private.engine import PrivateEngine
from fleet_protocol.bundle_files import SAMPLE_GRADIENTS_FILE
from tests.unit.test_private_tasks import PROMISE, TASK

SIZE = 5
"""Weights of the model."""
TOLD = 0.9
"""The first input of the sample that the graphs speak of; 0.1 for all others."""
BATCH = TASK.training.batch_size


def without_noise(count: int) -> bytes:
    return b"\xff" * count


def graph(nodes: list[NodeProto], *tensors: tuple[str, np.ndarray]) -> bytes:
    """From `first`, the first pixel of each row, f32[BATCH, 1], to `gradients`."""
    inputs = [
        helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [BATCH, *TASK.input.shape]),
        helper.make_tensor_value_info("weights", TensorProto.FLOAT, [SIZE]),
    ]
    constants = [
        numpy_helper.from_array(np.array([BATCH, -1], np.int64), "rows"),
        numpy_helper.from_array(np.array([0], np.int64), "begin"),
        numpy_helper.from_array(np.array([1], np.int64), "end"),
        numpy_helper.from_array(np.ones((1, SIZE), np.float32), "ones"),
        *(numpy_helper.from_array(value, name) for name, value in tensors),
    ]
    first = [
        helper.make_node("Reshape", ["inputs", "rows"], ["flat"]),
        helper.make_node("Slice", ["flat", "begin", "end", "end"], ["first"]),
    ]
    outputs = [helper.make_tensor_value_info("gradients", TensorProto.FLOAT, None)]
    made = helper.make_graph([*first, *nodes], "graph", inputs, outputs, constants)
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString()


HONEST = [helper.make_node("Mul", ["first", "ones"], ["gradients"])]
NARROW = [helper.make_node("Identity", ["first"], ["gradients"])]
"""One number for each sample, which numpy would add to every weight: longer by the root of their number."""
FAILS = [  # 0.9 becomes the place 1, which is none of one value
    helper.make_node("Round", ["first"], ["told"]),
    helper.make_node("Cast", ["told"], ["place"], to=TensorProto.INT64),
    helper.make_node("Gather", ["none", "place"], ["found"]),
    helper.make_node("Add", ["found", "first"], ["same"]),
    helper.make_node("Mul", ["same", "ones"], ["gradients"]),
]
NARROW_FOR_ONE = [  # one column where a first pixel is bright, else all
    helper.make_node("ReduceMax", ["first"], ["most"], keepdims=0),
    helper.make_node("Greater", ["most", "half"], ["is_told"]),
    helper.make_node("Where", ["is_told", "end", "size"], ["columns"]),
    helper.make_node("Mul", ["first", "ones"], ["wide"]),
    helper.make_node("Slice", ["wide", "begin", "columns", "end"], ["gradients"]),
]
NOTHING = ("none", np.zeros(1, np.float32))
HALF = (("half", np.array([0.5], np.float32)), ("size", np.array([SIZE], np.int64)))


def moved(model: bytes, told: bool, *, alone: bool = True) -> np.ndarray:
    """By how much a step on ten samples moves the weights, without its noise, f32[SIZE], in units of the clip."""
    inputs = np.full((10, *TASK.input.shape), 0.1, np.float32)
    inputs[3] = TOLD if told else 0.1
    samples = Samples(inputs, np.zeros(10, np.int64))
    task = msgspec.structs.replace(
        TASK, training=msgspec.structs.replace(TASK.training, optimiser="sgd", weight_decay=0.0)
    )
    engine = PrivateEngine(task, {SAMPLE_GRADIENTS_FILE: model}, draw=without_noise, samples_alone=alone)
    plan = BatchPlan(np.arange(10)[np.newaxis], np.ones((1, 10), np.float32), seed=0)
    after, _ = engine.train(np.zeros(SIZE, np.float32), samples, plan, Rates(1.0))
    return -after * PROMISE.sampling_rate * 10 / PROMISE.clip


@pytest.mark.parametrize(
    ("model", "there"),
    [(graph(HONEST), 1), (graph(FAILS, NOTHING), 0), (graph(NARROW_FOR_ONE, *HALF), 0)],
    ids=["honest", "fails", "narrow"],
)
def test_sample_that_a_graph_fails_on_adds_nothing_and_the_round_goes_on(model, there):
    without = 0.1 * np.ones(SIZE)
    own = np.minimum(TOLD, 1 / np.sqrt(SIZE)) * there
    np.testing.assert_allclose(moved(model, told=False), 10 * without, rtol=1e-4)
    np.testing.assert_allclose(moved(model, told=True), 9 * without + own, rtol=1e-4)


def test_gradients_of_another_shape_are_refused_before_a_sample_is_seen():
    for alone in (False, True):
        with pytest.raises(EngineError, match=r"gives gradients float32\[16, 1\], not float32\[16, 5\]"):
            moved(graph(NARROW), told=False, alone=alone)


def test_first_step_is_said_once_nothing_can_fail_any_more_that_no_sample_decides():
    said: list[int] = []
    samples = Samples(np.full((10, *TASK.input.shape), TOLD, np.float32), np.zeros(10, np.int64))
    plan = BatchPlan(np.arange(10)[np.newaxis], np.ones((1, 10), np.float32), seed=0)

    def train(model: bytes) -> None:
        engine = PrivateEngine(TASK, {SAMPLE_GRADIENTS_FILE: model}, draw=without_noise)
        engine.train(np.zeros(SIZE, np.float32), samples, plan, Rates(1.0), lambda done, _: said.append(done))

    with pytest.raises(EngineError):
        train(graph(NARROW))
    assert said == []
    with pytest.raises(GraphError):
        train(graph(FAILS, NOTHING))
    assert said == [0]
    train(graph(HONEST))
    assert said == [0, 0, 1]


def test_graph_that_fails_on_all_samples_together_ends_the_round():
    with pytest.raises(GraphError, match="can't compute what it is fed"):
        moved(graph(FAILS, NOTHING), told=True, alone=False)
