"""What pictures are like is a picture, and their classes are whole numbers, or the plan is refused in words."""

from collections.abc import Mapping

import msgspec
import pytest

from fleet_protocol.drawing_plan import DrawingPlan, check_drawing, drawn_classes
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import InputSchema

PLAN = DrawingPlan("generator", 4, "picture", "digit")
PICTURE, DIGIT = InputSchema([1, 28, 28], 0.0, 1.0), InputSchema([1], 0.0, 9.0, whole=True)


def inputs_with(picture: InputSchema = PICTURE, digit: InputSchema = DIGIT) -> Mapping[str, InputSchema]:
    return {"picture": picture, "digit": digit}


@pytest.mark.parametrize("shape", [[28, 28], [1, 5, 7], [3, 1, 1]])
def test_grey_and_coloured_pictures_of_any_size_can_be_drawn(shape):
    check_drawing(PLAN, inputs_with(picture=InputSchema(shape, -1.0, 1.0)), "task.json", scaled=False)


@pytest.mark.parametrize("shape", [[784], [2, 28, 28], [4, 28, 28], [1, 1, 28, 28], [3, 1, 28, 28]])
def test_what_has_no_rows_or_other_channels_is_no_picture(shape):
    with pytest.raises(ConfigurationError, match=r"inputs\.picture\.shape is .*, which is no picture"):
        check_drawing(PLAN, inputs_with(picture=InputSchema(shape, 0.0, 1.0)), "task.json", scaled=False)


def test_picture_that_fills_memory_is_refused():
    with pytest.raises(ConfigurationError, match="100000 by 100000 exceeds MAX_PICTURE_VALUES"):
        check_drawing(PLAN, inputs_with(picture=InputSchema([100_000, 100_000], 0.0, 1.0)), "task.json", scaled=False)


@pytest.mark.parametrize(
    "digit",
    [
        InputSchema([2], 0.0, 9.0, whole=True),
        InputSchema([1], 0.0, 9.0),
        InputSchema([1], -1.0, 9.0, whole=True),
        InputSchema([1], 0.0, 1000.0, whole=True),
        InputSchema([1], 0.0, float("inf"), whole=True),
        InputSchema([1], float("nan"), 9.0, whole=True),
        InputSchema([1], 0.2, 0.8, whole=True),
    ],
)
def test_classes_that_are_not_some_whole_numbers_are_refused(digit):
    with pytest.raises(ConfigurationError, match=r"inputs\.digit has to be one whole number from 0 to at most 999"):
        check_drawing(PLAN, inputs_with(digit=digit), "task.json", scaled=False)


@pytest.mark.parametrize(
    "bounds", [(1.0, 1.0), (0.0, float("inf")), (float("-inf"), float("inf")), (float("nan"), 1.0), (-1.7e308, 1.7e308)]
)
def test_pictures_between_whose_bounds_nothing_lies_or_everything_are_refused(bounds):
    with pytest.raises(ConfigurationError, match=r"inputs\.picture\.minimum is .* write two finite numbers"):
        check_drawing(PLAN, inputs_with(picture=InputSchema([1, 28, 28], *bounds)), "task.json", scaled=False)


def test_pictures_without_classes_count_as_one_class():
    without = DrawingPlan("generator", 4, "picture")
    check_drawing(without, {"picture": PICTURE}, "task.json", scaled=False)
    assert drawn_classes(without, {"picture": PICTURE}) == range(1)


def test_input_that_is_not_there_is_named():
    with pytest.raises(ConfigurationError, match="names the input 'letter', and there is none"):
        check_drawing(msgspec.structs.replace(PLAN, label="letter"), inputs_with(), "task.json", scaled=False)


def test_classes_are_the_whole_numbers_within_the_bounds():
    assert drawn_classes(PLAN, inputs_with()) == range(10)
    assert drawn_classes(PLAN, inputs_with(digit=InputSchema([1], 0.5, 2.5, whole=True))) == range(1, 3)
