"""A runner of some blocks loads no others, and says what it can't run."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle_runtime import graph
from bundle_runtime.blocks import BlockRunner
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.graph import GraphError
from fleet_protocol.codec import read_weights
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.parameter import Parameter
from fleet_protocol.split_plan import backward_file, forward_file
from fleet_protocol.task_description import TaskDescription
from workbench.recipe_folder import find_bundle

ROWS = 4


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(find_bundle("mnist_cnn"))


def weights(bundle: Bundle) -> np.ndarray:
    return read_weights(bundle.weights, bundle.description.parameters)


def test_only_the_graphs_of_its_blocks_are_loaded(bundle: Bundle):
    files = {name: bundle.files[name] for name in (forward_file(1), backward_file(1))}
    runner = BlockRunner(bundle.description, files, [1])
    given = np.ones((ROWS, 8, 14, 14), np.float32)
    assert runner.forward(1, runner.weights_of(1, weights(bundle)), given, seed=0).shape == (ROWS, 16, 7, 7)


def test_every_row_counts_alike_where_no_weights_are_given(bundle: Bundle):
    runner, plan = BlockRunner(bundle.description, bundle.files, [2]), bundle.description.training
    own, state, random = runner.weights_of(2, weights(bundle)), runner.new_state(2), np.random.default_rng(0)
    given, labels = random.normal(size=(ROWS, 16, 7, 7)).astype(np.float32), np.arange(ROWS)
    priors = runner.log_priors(labels)
    alike = np.full(ROWS, 1 / ROWS, np.float32)
    one, other = (
        runner.last(own, state, given, labels, seed=0, rates=plan, row_weights=rows, log_priors=priors)
        for rows in (None, alike)
    )
    assert np.array_equal(one.weights, other.weights)
    assert not np.array_equal(one.weights, own)
    assert np.array_equal(one.input_gradient, other.input_gradient)


def test_pass_without_update_gives_the_gradient_and_trains_nothing(bundle: Bundle):
    runner, plan = BlockRunner(bundle.description, bundle.files, [1]), bundle.description.training
    own, state, random = runner.weights_of(1, weights(bundle)), runner.new_state(1), np.random.default_rng(0)
    given = random.normal(size=(ROWS, 8, 14, 14)).astype(np.float32)
    gradient = random.normal(size=(ROWS, 16, 7, 7)).astype(np.float32)
    trained, passed = (
        runner.backward(1, own, state, given, gradient, seed=0, rates=plan, update=update) for update in (True, False)
    )
    assert np.array_equal(trained.input_gradient, passed.input_gradient)
    assert np.array_equal(passed.weights, own)
    assert passed.state == state
    assert not np.array_equal(trained.weights, own)


@pytest.mark.parametrize("rows", [np.ones((ROWS, 8, 14), np.float32), np.ones((ROWS, 8, 14, 14))])
def test_values_that_the_block_does_not_take_are_refused(rows: np.ndarray, bundle: Bundle):
    runner = BlockRunner(bundle.description, bundle.files, [1])
    with pytest.raises(GraphError, match=r"block_1_forward.onnx takes activations as float32 \[.*, 8, 14, 14\]"):
        runner.forward(1, runner.weights_of(1, weights(bundle)), rows, seed=0)


def saying(bundle: Bundle, **changes: object) -> TaskDescription:
    """The task, with these changes of what it says of block 1."""
    task = bundle.description
    assert task.split is not None
    blocks = [*task.split.blocks]
    blocks[1] = msgspec.structs.replace(blocks[1], **changes)
    return msgspec.structs.replace(task, split=msgspec.structs.replace(task.split, blocks=blocks))


def test_graph_that_gives_another_shape_than_its_task_says_is_refused(bundle: Bundle):
    runner = BlockRunner(saying(bundle, output_shape=[16, 7, 8]), bundle.files, [1])
    given = np.ones((ROWS, 8, 14, 14), np.float32)
    words = r"block_1_forward.onnx gives float32 \[4, 16, 7, 7\] as outputs, and the task says float32 \[4, 16, 7, 8\]"
    with pytest.raises(GraphError, match=words):
        runner.forward(1, runner.weights_of(1, weights(bundle)), given, seed=0)


def test_graph_of_another_pass_is_refused(bundle: Bundle):
    """A bundle whose files are under each other's names."""
    runner = BlockRunner(bundle.description, {**bundle.files, backward_file(1): bundle.files[forward_file(1)]}, [1])
    own, plan = runner.weights_of(1, weights(bundle)), bundle.description.training
    given, gradient = np.ones((ROWS, 8, 14, 14), np.float32), np.ones((ROWS, 16, 7, 7), np.float32)
    with pytest.raises(GraphError, match=r"block_1_backward.onnx gives nothing as input_gradient"):
        runner.backward(1, own, {}, given, gradient, seed=0, rates=plan)


def test_graph_that_gives_the_weights_of_fewer_parameters_is_refused(bundle: Bundle):
    task = bundle.description
    moved = [
        msgspec.structs.replace(each, block=2) if each.block == 1 and each.shape == [16] else each
        for each in task.parameters
    ]
    runner = BlockRunner(msgspec.structs.replace(task, parameters=moved), bundle.files, [1])
    given = np.ones((ROWS, 8, 14, 14), np.float32)
    with pytest.raises(GraphError, match=r"block_1_forward.onnx takes weights"):
        runner.forward(1, runner.weights_of(1, weights(bundle)), given, seed=0)


def test_graph_with_what_no_bundle_needs_is_not_loaded(bundle: Bundle):
    with pytest.raises(GraphError, match=r"block_1_backward.onnx is no ONNX model"):
        BlockRunner(bundle.description, {**bundle.files, backward_file(1): b"\xff"}, [1])


def test_blocks_that_a_task_has_not_are_named(bundle: Bundle):
    with pytest.raises(ConfigurationError, match="the task mnist_cnn has no block 3; its blocks are 0 to 2"):
        BlockRunner(bundle.description, bundle.files, [3])
    whole = load_bundle(find_bundle("occupancy"))
    with pytest.raises(ConfigurationError, match="the task occupancy has no `split`"):
        BlockRunner(whole.description, whole.files, [0])


@given(blocks=st.lists(st.integers(0, 2), min_size=1, max_size=8), sizes=st.data())
def test_blocks_hold_each_weight_once(blocks: list[int], sizes: st.DataObject):
    bundle = load_bundle(find_bundle("mnist_cnn"))
    each = [sizes.draw(st.integers(1, 5)) for _ in blocks]
    parameters = [
        Parameter(f"p{number}", [size], block=block)
        for number, (size, block) in enumerate(zip(each, blocks, strict=True))
    ]
    task = msgspec.structs.replace(bundle.description, parameters=parameters)
    runner = BlockRunner(task, bundle.files, range(3))
    flat = np.arange(sum(each.size for each in parameters), dtype=np.float32)
    copy = np.full_like(flat, np.nan)
    for block in range(3):
        runner.into(copy, block, runner.weights_of(block, flat))
    assert np.array_equal(copy, flat)
    assert sum(len(runner.weights_of(block, flat)) for block in range(3)) == len(flat)


def test_graph_for_which_there_is_no_room_is_no_damaged_one(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    """A device that is told so takes a cut that leaves it less."""

    def open_session(*_: object) -> None:
        raise RuntimeError(
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: std::bad_alloc"
        )

    monkeypatch.setattr(graph, "open_session", open_session)
    with pytest.raises(MemoryError, match=r"no room for block_1_backward.onnx"):
        BlockRunner(bundle.description, bundle.files, [1])
