"""Requests whose values a helper's graph can't compute, together with others that it can."""

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bundle_runtime.blocks import BlockRunner
from bundle_runtime.graph import GraphError
from bundle_runtime.graph_admission import check_graph
from fleet_protocol.codec.activations import pack_activations
from fleet_protocol.sessions.steps import StepAnswer, StepRequest
from fleet_protocol.split_plan import backward_file, forward_file
from session_relay.helper.core.answering import RefusingRunner, answers_of
from session_relay.helper.core.middle import Middle, helpers_blocks
from session_relay.helper.core.requests import Asked
from tests.support.split_session import KEPT_BYTES, plan_of, shipped, shipped_weights

TASK = shipped().description
PLAN = plan_of(TASK)
CUT = PLAN.cuts[0]
BEFORE, AFTER = (tuple(PLAN.blocks[block].output_shape) for block in (0, 1))
ROWS = 4
BOUND = 1000.0
"""From which on the value of an input is a place outside a table."""
A, B, C = (bytes([letter]) * 16 for letter in b"abc")


def fragile(file: str, taken: str, given: str) -> bytes:
    """A graph of the task that also looks something up in a table of one entry, at the place that the largest value of
    the input `taken` names, and adds it to the output `given`.
    """
    source = shipped().files[file]
    model = onnx.load_from_string(source if isinstance(source, bytes) else source.read_bytes())
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["found" if name == given else name for name in node.output]
        node.input[:] = ["found" if name == given else name for name in node.input]
    for name, value in (("bound", np.float32(BOUND)), ("table", np.zeros(1, np.float32))):
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    graph.node.extend(
        [
            helper.make_node("ReduceMax", [taken], ["largest"], keepdims=0),
            helper.make_node("Div", ["largest", "bound"], ["place"]),
            helper.make_node("Cast", ["place"], ["number"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "number"], ["entry"]),
            helper.make_node("Add", ["found", "entry"], [given]),
        ]
    )
    data = model.SerializeToString()
    check_graph(file, data)
    return data


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Those of the task's second block, either of which fails on some values."""
    forward, backward = forward_file(1), backward_file(1)
    return {
        forward: fragile(forward, "activations", "outputs"),
        backward: fragile(backward, "gradient", "input_gradient"),
    }


def middle_on(runner: BlockRunner) -> Middle:
    middle = Middle(TASK, PLAN, runner, shipped_weights(), kept_bytes=KEPT_BYTES, generator=np.random.default_rng(2))
    for session in (A, B, C):
        middle.open(session, CUT)
    return middle


@pytest.fixture
def middle(files) -> Middle:
    return middle_on(RefusingRunner(TASK, files, helpers_blocks(PLAN)))


def asked(session: bytes, direction: str, value: float) -> Asked:
    shape = BEFORE if direction == "forward" else AFTER
    packed = pack_activations(np.full((ROWS, *shape), np.float32(value)), "float32")
    number = 1 if direction == "forward" else 2
    return Asked(session, StepRequest(number, direction, 0, 1, 2, ROWS, 0, direction == "backward", "float32", packed))


def problems(answers: list[StepAnswer]) -> list[bool]:
    for answer in answers:
        assert bool(answer.problem) != bool(answer.packed)
    return [bool(answer.problem) for answer in answers]


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_request_that_a_graph_fails_on_is_refused_with_words_and_the_others_are_answered(middle, direction) -> None:
    if direction == "backward":
        assert problems(answers_of(middle, [asked(each, "forward", 0.5) for each in (A, B, C)])) == [False] * 3
    fine = 0.001
    answers = answers_of(middle, [asked(A, direction, fine), asked(B, direction, 5 * BOUND), asked(C, direction, fine)])
    assert problems(answers) == [False, True, False]
    assert "can't compute what it is fed" in answers[1].problem
    assert "out of data bounds" in answers[1].problem


def test_all_are_answered_in_their_order_though_backward_passes_go_first(middle) -> None:
    answers_of(middle, [asked(A, "forward", 0.5)])
    mixed = [asked(B, "forward", 5 * BOUND), asked(A, "backward", 0.001), asked(C, "forward", 0.5)]
    answers = answers_of(middle, mixed)
    assert [answer.number for answer in answers] == [each.request.number for each in mixed]
    assert problems(answers) == [True, False, False]


def test_answers_are_those_of_the_middle_where_nothing_fails(files) -> None:
    one, other = (middle_on(runner(TASK, files, helpers_blocks(PLAN))) for runner in (RefusingRunner, BlockRunner))
    for requests in (
        [asked(A, "forward", 0.5), asked(B, "forward", 0.25)],
        [asked(C, "forward", 0.5), asked(A, "backward", 0.001), asked(B, "backward", 0.002)],
    ):
        assert list(map(msgspec.msgpack.encode, answers_of(one, requests))) == list(
            map(msgspec.msgpack.encode, other.answer(requests))
        )


def test_graph_that_fails_on_its_values_says_so_in_words(files) -> None:
    runner = BlockRunner(TASK, files, helpers_blocks(PLAN))
    values = np.full((ROWS, *BEFORE), np.float32(5 * BOUND))
    with pytest.raises(GraphError, match=r"block_1_forward.onnx can't compute what it is fed: .*out of data bounds"):
        runner.forward(1, runner.weights_of(1, shipped_weights()), values, seed=0)
