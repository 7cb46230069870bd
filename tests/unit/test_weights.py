"""Weights: a flat vector and a safetensors file are two forms of one thing; no other file is taken for it."""

import numpy as np
import pytest

from fleet_protocol.codec import read_weights, write_weights
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.task_description import Parameter
from tests.support.safetensors_file import safetensors

PARAMETERS = [Parameter("head.weight", [2, 3]), Parameter("head.bias", [2]), Parameter("scale", [])]


def refusal_of(data: bytes, parameters: list[Parameter]) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        read_weights(data, parameters)
    return caught.value


def test_vector_is_read_back_in_the_order_of_the_parameters():
    vector = np.arange(9, dtype=np.float32)
    data = write_weights(vector, PARAMETERS)
    assert np.array_equal(read_weights(data, PARAMETERS), vector)
    assert np.array_equal(read_weights(data, PARAMETERS[::-1]), vector[[8, 6, 7, 0, 1, 2, 3, 4, 5]])
    assert write_weights(vector.copy(), PARAMETERS) == data


@pytest.mark.parametrize(
    ("dtype", "width"),
    [
        ("F64", 8),
        ("F16", 2),
        ("BF16", 2),
        ("I32", 4),
        ("U64", 8),
        ("BOOL", 1),
        ("F8_E4M3", 1),
        ("F8_E8M0", 1),
        ("C64", 8),
    ],
)
def test_tensor_of_another_dtype_is_refused(dtype, width):
    data = safetensors({"scale": (dtype, [2], bytes(2 * width))})
    assert refusal_of(data, [Parameter("scale", [2])]).reason is Reason.WRONG_SHAPE


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"scale": ("F32", [3], bytes(12))},
        {"scale": ("F32", [1, 2], bytes(8))},
        {"scale": ("F32", [0], b"")},
        {"scal": ("F32", [2], bytes(8))},
        {"scale": ("F32", [2], bytes(8)), "backdoor": ("F32", [1], bytes(4))},
    ],
    ids=["none", "longer", "another rank", "empty", "misspelt", "one too many"],
)
def test_other_tensors_than_the_task_has_are_refused_by_name(tensors):
    error = refusal_of(safetensors(tensors), [Parameter("scale", [2])])
    assert error.reason is Reason.WRONG_SHAPE
    assert "scal" in error.detail or "backdoor" in error.detail


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(value):
    data = write_weights(np.array([0.0, value], np.float32), [Parameter("scale", [2])])
    assert refusal_of(data, [Parameter("scale", [2])]).reason is Reason.NOT_FINITE


def test_truncated_anywhere_is_refused():
    data = write_weights(np.arange(9, dtype=np.float32), PARAMETERS)
    assert {refusal_of(data[:length], PARAMETERS).reason for length in range(len(data))} == {Reason.MALFORMED}
