"""What `task.toml` says of scales, and what follows where it says nothing."""

import msgspec
import pytest

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_STATISTICS_COLUMNS
from fleet_protocol.sample_schema import WHOLE_ROW, InputSchema, LabelSchema
from fleet_protocol.scaling import Block, Scale, Scaling, check_scaling
from workbench.export.recipe.scaling import ScalingSettings, scaling_of

CLASSES, REGRESSION = LabelSchema(3), LabelSchema(kind="regression", values=2)
NOTHING_SAID = ScalingSettings()
WIDE = InputSchema([4], 0.0, 5000.0)


def scaling(settings: ScalingSettings = NOTHING_SAID, inputs=WIDE, label=CLASSES, *, has_backbone=False) -> Scaling:
    return scaling_of(settings, {WHOLE_ROW: inputs}, {WHOLE_ROW: label}, "task.toml", has_backbone=has_backbone)


@pytest.mark.parametrize(
    ("inputs", "columns"),
    [
        (InputSchema([4], -1.0, 1.0), None),
        (InputSchema([4], -1.5, 1.0), 4),
        (InputSchema([4], -10.0, 10.0), 4),
        (InputSchema([4], 0.0, 3e38), 4),
        (InputSchema([3, 32, 32], 0.0, 1.0), None),
        (InputSchema([3, 32, 32], 0.0, 255.0), 1),
    ],
)
def test_inputs_with_wide_bounds_await_the_scale_of_the_fleet(inputs, columns):
    assert scaling(inputs=inputs).inputs == (columns and Scale.awaiting(columns))


def test_targets_of_regression_await_the_scale_of_the_fleet():
    assert scaling(label=REGRESSION).targets == Scale.awaiting(2)
    assert scaling(ScalingSettings(targets="off"), label=REGRESSION).targets is None
    assert scaling().targets is None


def test_inputs_of_a_backbone_are_as_it_was_trained_on():
    assert scaling(has_backbone=True).inputs is None


def test_ranges_are_brought_to_one_on_either_side_of_zero():
    given = ScalingSettings("ranges", "ranges", [[0, 10], [-40, 85], [0, 1], [300, 1100]], [[0, 4], [2, 4]])
    found = scaling(given, label=REGRESSION)
    assert found.inputs == Scale([5.0, 22.5, 0.5, 700.0], [5.0, 62.5, 0.5, 400.0])
    assert found.targets == Scale([2.0, 3.0], [2.0, 1.0])
    assert not found.is_awaited


def test_bounds_of_the_inputs_are_their_ranges_where_none_are_given():
    assert scaling(ScalingSettings("ranges")).inputs == Scale([2500.0] * 4, [2500.0] * 4)


@pytest.mark.parametrize(
    ("settings", "inputs", "label", "words"),
    [
        (
            ScalingSettings("ranges", input_ranges=[[0, 1]]),
            WIDE,
            CLASSES,
            "needs 4 pairs of lowest and highest; 1 given",
        ),
        (ScalingSettings("ranges", input_ranges=[[0, 1]] * 3 + [[2, 2]]), WIDE, CLASSES, "2 to 2 is no range"),
        (
            ScalingSettings("fleet", input_ranges=[[0, 1]] * 4),
            WIDE,
            CLASSES,
            "input_ranges needs scaling.inputs = 'ranges'",
        ),
        (
            ScalingSettings(target_ranges=[[0, 1]] * 2),
            WIDE,
            REGRESSION,
            "target_ranges needs scaling.targets = 'ranges'",
        ),
        (ScalingSettings(targets="ranges"), WIDE, REGRESSION, "needs 2 pairs"),
        (ScalingSettings(targets="fleet"), WIDE, CLASSES, "is for label.kind 'regression', this is 'class'"),
        (ScalingSettings("off"), msgspec.structs.replace(WIDE, missing="mean"), CLASSES, "needs scaled inputs"),
        (
            ScalingSettings("fleet"),
            InputSchema([MAX_STATISTICS_COLUMNS + 1], 0.0, 1.0),
            CLASSES,
            f"the limit is {MAX_STATISTICS_COLUMNS}",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_in_words(settings, inputs, label, words):
    with pytest.raises(ConfigurationError, match=r"task\.toml") as refused:
        scaling(settings, inputs, label)
    assert words in str(refused.value)


def test_scaled_inputs_of_a_backbone_are_refused():
    with pytest.raises(ConfigurationError, match="a backbone takes inputs as it was trained on them"):
        scaling(ScalingSettings("fleet"), has_backbone=True)


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (Scale([0.0], [1.0]), "1 means and 1 deviations; the task has 2 columns of inputs"),
        (Scale([0.0, 0.0], [1.0]), "2 means and 1 deviations"),
        (Scale([0.0, float("inf")], [1.0, 1.0]), "not finite"),
    ],
)
def test_scale_that_does_not_fit_the_task_is_refused(scale, words):
    with pytest.raises(ConfigurationError, match=r"task\.json") as refused:
        check_scaling(Scaling(scale), [Block(0, 2, 2)], [], "task.json")
    assert words in str(refused.value)
