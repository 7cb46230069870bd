"""Samples become pixels, a grid and PNG files that hold those pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bundle_runtime.pictures import grid, pixels_of, png
from fleet_protocol.sample_schema import InputSchema
from tests.support.png_files import pixels_in


@given(arrays(np.uint8, st.one_of(array_shapes(min_dims=2, max_dims=2), st.just((2, 5, 3)))))
def test_png_holds_the_same_pixels(pixels):
    np.testing.assert_array_equal(pixels_in(png(pixels)), pixels)


@pytest.mark.parametrize("shape", [[2, 2], [1, 2, 2]])
def test_minimum_is_black_and_maximum_white_and_so_is_what_is_beyond(shape):
    values = np.array([-1, 1, -1e30, 1e30], np.float32).reshape(shape)
    assert pixels_of(values, InputSchema(shape, -1.0, 1.0)).tolist() == [[0, 255], [0, 255]]


def test_colours_come_last():
    values = np.stack([np.zeros((2, 4)), np.ones((2, 4)), np.zeros((2, 4))]).astype(np.float32)
    assert (pixels_of(values, InputSchema([3, 2, 4], 0.0, 1.0)) == [0, 255, 0]).all()


def test_grid_has_a_line_between_pictures_and_black_where_there_is_none():
    white = np.full((2, 3), 255, np.uint8)
    assert grid([[white, white], [white]]).tolist() == [
        [255, 255, 255, 0, 255, 255, 255],
        [255, 255, 255, 0, 255, 255, 255],
        [0, 0, 0, 0, 0, 0, 0],
        [255, 255, 255, 0, 0, 0, 0],
        [255, 255, 255, 0, 0, 0, 0],
    ]
