"""A setting that another one makes meaningless is refused at load, unless it is as where nobody writes it."""

from typing import Any

import msgspec
import pytest

from fleet_protocol import (
    aggregation_plan,
    downlink_plan,
    gossip_plan,
    prompt_plan,
    reading_plan,
    sending_plan,
    solved_head,
    split_plan,
    training_plan,
    update_plan,
)
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle import parse_description
from fleet_protocol.downlink_plan import DownlinkPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.gossip_plan import AS_BUNDLED, GossipPlan
from fleet_protocol.prompt_plan import PromptPlan, check_prompts
from fleet_protocol.reading_plan import LabelPlan, ReadingField, ReadingPlan, check_readings
from fleet_protocol.sample_schema import LabelSchema
from fleet_protocol.sending_plan import SendingPlan
from fleet_protocol.solved_head import SolvedHead, check_solved_head
from fleet_protocol.split_plan import Block, Cut, SplitPlan, check_split
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.training_plan import TrainingPlan
from fleet_protocol.update_plan import UpdatePlan
from fleet_protocol.without_effect import UsedBy, check_used, with_used
from tests.support.bundles import write_bundle

TABLES: list[tuple[type[msgspec.Struct], UsedBy]] = [
    (AggregationPlan, aggregation_plan.USED_BY),
    (DownlinkPlan, downlink_plan.USED_BY),
    (GossipPlan, gossip_plan.USED_BY),
    (PromptPlan, prompt_plan.USED_BY),
    (LabelPlan, reading_plan.USED_BY),
    (SendingPlan, sending_plan.USED_BY),
    (SolvedHead, solved_head.USED_BY),
    (SplitPlan, split_plan.USED_BY),
    (TrainingPlan, training_plan.USED_BY),
    (UpdatePlan, update_plan.USED_BY),
]
ROWS = [(table, setting, *row) for table, used_by in TABLES for setting, row in used_by.items()]
NUMBER = ReadingField(range=[0.0, 9.0])
USUAL_RANGE = ReadingField(range=[0.0, 9.0], usual_range=[1.0, 2.0])
CLASSES = LabelSchema(2)


def trained(**settings: Any) -> dict[str, Any]:
    return {"training": TrainingPlan(3, 4, 0.1, **settings)}


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> TaskDescription:
    return write_bundle(tmp_path_factory.mktemp("effect") / "bundle").description


def read(task: TaskDescription, **changes: object) -> TaskDescription:
    return parse_description(msgspec.json.encode(msgspec.structs.replace(task, **changes)), "task.json")


@pytest.mark.parametrize(("table", "setting", "other", "users"), ROWS)
def test_each_row_names_settings_of_its_table_and_values_that_it_takes(table, setting, other, users):
    fields = {each.name: each for each in msgspec.structs.fields(table)}
    assert fields[setting].default is not msgspec.NODEFAULT, "a setting that is always written can't be left out"
    for value in users:
        assert msgspec.convert(value, fields[other].type) == value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sending": SendingPlan("always", 0.5)}, "sending.threshold is 0.5, but rule 'always' does not use it; leave"),
        ({"sending": SendingPlan("changed")}, "write a threshold above 0"),
        ({"sending": SendingPlan("relevant")}, "sending.rule is 'relevant', and with sending.threshold 0 every round"),
        ({"update": UpdatePlan(0.1, feedback_momentum=0.5)}, "set feedback to 'momentum'"),
        ({"update": UpdatePlan(0.1, threshold=0.5)}, "update.threshold is 0.5, but selection 'top_k' does not use it"),
        ({"update": UpdatePlan(0.1, selection="threshold")}, "every entry reaches update.threshold 0"),
        ({"update": UpdatePlan(0.1, stochastic_rounding=True)}, "stochastic_rounding is true, but quantisation 'tern"),
        ({"update": UpdatePlan(0.3, selection="dense")}, "write keep_fraction = 1, or another selection"),
        (trained(momentum=0.5), "training.momentum is 0.5, but optimiser 'sgd' .* optimiser to 'momentum' or 'nest"),
        (trained(optimiser="adam", momentum=0.5), "but optimiser 'adam' does not use it"),
        (trained(per_sample_gradients=True), "write a gradient_clip above 0"),
        ({"downlink": DownlinkPlan("exact", 4)}, "downlink.precision_bits is 4, but differences 'exact'"),
        ({"downlink": DownlinkPlan("off", -1)}, "set differences to 'lossy'"),
        ({"gossip": GossipPlan("ring", seed=5), "downlink": AS_BUNDLED}, "gossip.seed is 5, but topology 'ring'"),
    ],
)
def test_setting_without_effect_is_refused_at_load(task, changes, words):
    if "training" in changes and changes["training"].per_sample_gradients:
        changes = changes | {"files": task.files | {"train_per_sample.onnx": task.files["train.onnx"]}}
    with pytest.raises(ConfigurationError, match=f"^task.json: .*{words}"):
        read(task, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"sending": SendingPlan("always", 0.0)},
        {"sending": SendingPlan("changed", 0.5)},
        {"sending": SendingPlan("better")},
        {"update": UpdatePlan(0.1, feedback="momentum", feedback_momentum=0.5)},
        {"update": UpdatePlan(0.1, feedback="residual", feedback_momentum=0.9, threshold=0.0)},
        {"update": UpdatePlan(0.1, selection="threshold", threshold=0.5)},
        {"update": UpdatePlan(0.1, quantisation="int4", stochastic_rounding=True)},
        {"update": UpdatePlan(1.0, selection="dense")},
        trained(optimiser="sgd", momentum=0.9),
        trained(optimiser="nesterov", momentum=0.5),
        trained(gradient_clip=1.0),
        {"downlink": DownlinkPlan("off", 2)},
        {"downlink": DownlinkPlan("lossy", 4)},
    ],
)
def test_setting_that_counts_or_is_as_usual_is_taken(task, changes):
    changes = {"training": TrainingPlan(3, 4, 0.1, validation_share=0.1)} | changes
    assert read(task, **changes)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (SolvedHead("means", ridge=2.0), "solved_head.ridge is 2.0, but solver 'means' .* to 'ridge' or 'gaussian'"),
        (SolvedHead("ridge", shrinkage=0.1), "shrinkage is 0.1, but solver 'ridge'"),
        (SolvedHead("ridge", draws=9), "draws is 9"),
        (SolvedHead("means", seed=9), "set solver to 'gaussian'"),
    ],
)
def test_setting_of_another_solver_is_refused(head, words):
    with pytest.raises(ConfigurationError, match=words):
        check_solved_head(head, CLASSES, 3, [[2, 3], [2]], "task.toml")
    check_solved_head(with_used(head, solved_head.USED_BY), CLASSES, 3, [[2, 3], [2]], "task.toml")


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (PromptPlan("moments", components=5), "prompts.components is 5, but level 'moments'"),
        (PromptPlan("class", largest_feature=2.0), "largest_feature is 2.0, but level 'class'"),
        (PromptPlan(generator="glyphs", sample_rate_hz=8000), "sample_rate_hz is 8000, but generator 'glyphs'"),
    ],
)
def test_setting_of_other_prompts_is_refused(plan, words):
    with pytest.raises(ConfigurationError, match=words):
        check_prompts(plan, CLASSES, 3, "task.toml")


def test_a_generator_that_nobody_knows_here_may_take_a_sample_rate():
    for generator in ("speech", "whales"):
        check_prompts(PromptPlan(generator=generator, sample_rate_hz=8000), CLASSES, 3, "task.toml")


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (
            ReadingPlan({"a": NUMBER}, label=LabelPlan("a", within_seconds=5.0)),
            "readings.label.within_seconds is 5.0, but found 'in_reading' .* 'by_time' or 'later'",
        ),
        (
            ReadingPlan({"a": NUMBER}, label=LabelPlan("a", "later", 9.0, wait_seconds=5.0)),
            "wait_seconds is 5.0, but found 'later'",
        ),
        (ReadingPlan({"a": USUAL_RANGE}, scaling="device"), "usual_range .* set scaling to 'ranges'"),
        (ReadingPlan({"a": NUMBER, "b": USUAL_RANGE}, inputs=["a"]), r"fields.b.usual_range is \[1.0, 2.0\], and no"),
    ],
)
def test_setting_that_no_reading_uses_is_refused(plan, words):
    plan = msgspec.structs.replace(plan, fields=plan.fields | {"z": NUMBER})
    with pytest.raises(ConfigurationError, match=words):
        check_readings(plan, "task.toml")


def test_settings_that_readings_use_are_taken():
    check_readings(ReadingPlan({"a": USUAL_RANGE}), "task.toml")
    label = LabelPlan("a", "by_time", within_seconds=5.0, wait_seconds=9.0)
    check_readings(ReadingPlan({"a": NUMBER, "b": USUAL_RANGE}, label=label), "task.toml")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gradient_keep": 0.1}, "split.gradient_keep is 0.1, but gradient_selection 'dense'"),
        ({"gradient_selection": "top_k"}, "split.gradient_keep 1 keeps every entry"),
    ],
)
def test_gradients_that_are_sent_whole_all_the_same_are_refused(settings, words):
    blocks = [Block("one", [4]), Block("two", [4]), Block("", [])]
    plan = SplitPlan(blocks=blocks, cuts=[Cut("middle", [(1, 2)])])
    check_split(msgspec.structs.replace(plan, gradient_selection="top_k", gradient_keep=0.1), [0, 1, 2], 4, "task.toml")
    with pytest.raises(ConfigurationError, match=words):
        check_split(msgspec.structs.replace(plan, **settings), [0, 1, 2], 4, "task.toml")


def test_plan_without_what_has_no_effect_keeps_what_has():
    plan = AggregationPlan(staleness_weighting="constant", staleness_exponent=2.0, server_momentum=0.5)
    used = with_used(plan, aggregation_plan.USED_BY)
    assert used == AggregationPlan(staleness_weighting="constant", server_momentum=0.5)
    check_used(used, aggregation_plan.USED_BY, "aggregation", "task.toml")
