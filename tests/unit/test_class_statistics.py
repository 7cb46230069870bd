"""What a device says of its features, packed and read again."""

from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.codec import ClassStatistics, decode_class_statistics
from fleet_protocol.codec.class_statistics import rounding_of
from fleet_protocol.errors import ConfigurationError, ProtocolError, Reason
from fleet_protocol.sample_schema import LabelSchema
from fleet_protocol.solved_head import SolvedHead, check_solved_head, largest_statistics_bytes

SOLVERS, PRECISIONS = ["ridge", "means", "gaussian"], ["float64", "float32", "float16", "int8"]
CLASSES, SIZE = 5, 3


def statistics(seed: int, solver: str, samples: int = 20, scale: float = 1.0) -> ClassStatistics:
    generator = np.random.default_rng(seed)
    features = generator.normal(0, scale, (samples, SIZE))
    return ClassStatistics.of(features, generator.integers(0, CLASSES, samples), CLASSES, solver)


@given(
    seed=st.integers(0, 2**32 - 1),
    solver=st.sampled_from(SOLVERS),
    precision=st.sampled_from(PRECISIONS),
    samples=st.integers(1, 300),
    scale=st.sampled_from([1e-12, 1e-3, 1.0, 1e6]),
)
def test_what_is_read_is_what_was_written_up_to_rounding(seed, solver, precision, samples, scale):
    sent = statistics(seed, solver, samples, scale)
    packed = sent.encode(precision, solver)
    read = decode_class_statistics(packed, CLASSES, SIZE, precision, solver)
    assert read.counts.tolist() == sent.counts.tolist()
    for one, other in ((read.means, sent.means), (read.spread, sent.spread)):
        assert one.shape == other.shape
        most = np.abs(other).max(initial=0.0)
        np.testing.assert_allclose(one, other, rtol=0, atol=most * rounding_of(precision))
    again = decode_class_statistics(read.encode(precision, solver), CLASSES, SIZE, precision, solver)
    assert (again.means.tobytes(), again.spread.tobytes()) == (read.means.tobytes(), read.spread.tobytes())


@given(st.binary(max_size=200), st.sampled_from(SOLVERS), st.sampled_from(PRECISIONS))
def test_any_bytes_are_statistics_of_finite_numbers_or_refused(data, solver, precision):
    try:
        read = decode_class_statistics(data, CLASSES, SIZE, precision, solver)
    except ProtocolError as error:
        assert error.reason in {Reason.MALFORMED, Reason.WRONG_SHAPE, Reason.NOT_FINITE}
    else:
        assert np.isfinite(read.means).all()
        assert np.isfinite(read.spread).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_bytes_grow_with_the_classes_that_a_device_has(solver):
    features, labels = np.ones((4, 96)), np.array([2, 2, 7, 7])
    packed = ClassStatistics.of(features, labels, 10, solver).encode("float32", solver)
    rows = {"means": 2 * 96, "gaussian": 4 * 96, "ridge": 2 * 96 + 96 * 97 // 2}[solver]
    blocks = 1 if solver == "means" else 2
    assert len(packed) == 10 + blocks + 4 * rows


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_size_that_a_task_is_checked_by_is_never_exceeded(solver, precision):
    packed = ClassStatistics.of(np.ones((300, 6)), np.arange(300) % 3, 3, solver).encode(precision, solver)
    most = largest_statistics_bytes(SolvedHead(solver=solver, precision=precision), 3, 6)
    assert most - 5 * 3 <= len(packed) <= most


@pytest.mark.parametrize(("solver", "precision", "fits"), [("ridge", "float64", False), ("ridge", "float32", True)])
def test_statistics_that_fit_into_no_message_are_refused_with_the_task(solver, precision, fits):
    head, shapes = SolvedHead(solver=solver, precision=precision), [[10, 1280], [10]]
    with nullcontext() if fits else pytest.raises(ConfigurationError, match="more than fit into one message"):
        check_solved_head(head, LabelSchema(10), 1280, shapes, "task.toml")


@pytest.mark.parametrize(("solver", "fits"), [("ridge", False), ("means", True)])
def test_matrix_of_bytes_is_refused_with_the_task(solver, fits):
    head = SolvedHead(solver=solver, precision="int8")
    with nullcontext() if fits else pytest.raises(ConfigurationError, match="a matrix of rounding errors"):
        check_solved_head(head, LabelSchema(10), 96, [[10, 96], [10]], "task.toml")


SIGNALLING_NAN = bytes.fromhex("0100a07f")
"""Which numpy warns of, where quiet ones pass."""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.float32(np.nan).tobytes(), np.float32(np.inf).tobytes(), SIGNALLING_NAN])
def test_number_that_is_not_finite_is_refused(value):
    packed = bytearray(statistics(1, "means").encode("float32", "means"))
    packed[-4:] = value
    with pytest.raises(ProtocolError, match="NaN, infinity") as refused:
        decode_class_statistics(bytes(packed), CLASSES, SIZE, "float32", "means")
    assert refused.value.reason is Reason.NOT_FINITE


def test_half_a_message_is_refused_with_the_size_that_it_should_have():
    packed = statistics(1, "ridge").encode("float32", "ridge")
    with pytest.raises(ProtocolError, match=f"take {len(packed)} for the solver 'ridge'"):
        decode_class_statistics(packed[: len(packed) // 2], CLASSES, SIZE, "float32", "ridge")
