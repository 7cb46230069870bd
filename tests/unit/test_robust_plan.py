"""[aggregation.robust]: what may not go together is refused at load, and nothing stands where there is no rule."""

import msgspec
import pytest

from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.aggregation_plan import AggregationPlan, check_aggregation
from fleet_protocol.bundle import parse_description
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.parameter import Parameter
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.robust_plan import NOT_ROBUST, RobustPlan
from tests.support.bundles import THREE_BLOCKS, write_bundle
from tests.support.hidden_devices import hiding_plan
from tests.support.masked_task import MaskHelperOnDisk, masked_bundle
from workbench.recipe_folder import find_recipe

MEDIAN = RobustPlan("median")
ZENO = RobustPlan("zeno", trusted_devices=("mine",))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"robust": RobustPlan("median", hostile_share=0.1)}, "hostile_share = 0.1.*'median' does not use it"),
        ({"robust": RobustPlan("bulyan", hostile_share=0.25)}, "lets 0.25 .*withstands less than 0.25"),
        ({"robust": RobustPlan("krum", bucket_size=3)}, "lets 0.6 .*hostile_share times bucket_size.*less than 0.5"),
        (
            {"strategy": "fedbuff", "robust": MEDIAN},
            "those of a small one are too few for 'median' to withstand 1; write .*buffer_size = 5, or take 'aced'",
        ),
        ({"strategy": "fedbuff", "buffer_size": 4, "robust": MEDIAN}, "those of 4 are too few.*buffer_size = 5,"),
        (
            {"strategy": "fedbuff", "buffer_size": 8, "robust": RobustPlan("median", bucket_size=2)},
            "those of 8 are too few.*buffer_size = 10,",
        ),
        ({"robust": RobustPlan("centred_clipping"), "server_optimiser": "adam"}, "'adam' does not keep.*'momentum'"),
        ({"robust": RobustPlan("zeno")}, r"'zeno', which judges by .* and names none; write trusted_devices = \["),
        (
            {"robust": RobustPlan("median", trusted_devices=("mine",))},
            r"trusted_devices = \['mine'\], and rule 'median' does not use them; .*'zeno' or 'fltrust'",
        ),
        ({"robust": RobustPlan("fltrust", trusted_devices=("mine", "mine"))}, "names one twice"),
        (
            {"robust": RobustPlan("zeno", bucket_size=2, trusted_devices=("mine",))},
            "bucket_size = 2, and rule 'zeno' judges single updates .*leave bucket_size out",
        ),
        (
            {"strategy": "fedavg", "buffer_size": 20, "max_staleness": 0, "round_seconds": 9.0, "robust": ZENO},
            "'fedavg' a round asks devices by chance.*take 'aced' or 'fedbuff'",
        ),
        *(({"strategy": strategy, "robust": MEDIAN}, f"'{strategy}': {why}") for strategy, why in NOT_ROBUST.items()),
    ],
)
def test_contradictions_are_refused(settings, said) -> None:
    plan = {"strategy": "aced"} | settings
    if plan["strategy"] == "fedasync":
        plan["buffer_size"] = 1
    with pytest.raises(ConfigurationError, match=said) as caught:
        check_aggregation(AggregationPlan(**plan), "task.toml")
    assert str(caught.value).startswith("task.toml: ")


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "aced", "robust": MEDIAN},
        {"strategy": "aced", "robust": ZENO},
        {"strategy": "fedbuff", "robust": RobustPlan("fltrust", trusted_devices=("mine", "other"))},
        {"strategy": "fedbuff", "buffer_size": 7, "robust": RobustPlan("bulyan", hostile_share=0.1)},
        {"strategy": "aced", "robust": RobustPlan("centred_clipping", bucket_size=2), "server_momentum": 0.9},
    ],
)
def test_what_goes_together_is_taken(settings) -> None:
    check_aggregation(AggregationPlan(**settings), "task.toml")


@pytest.mark.parametrize(
    ("rule", "share", "given", "enough"),
    [
        ("bulyan", 0.2, 5, 15),
        ("bulyan", 0.2, 16, 19),
        ("bulyan", 0.1, 6, 7),
        ("krum", 0.2, 4, 5),
        ("multi_krum", 0.4, 14, 15),
        ("trimmed_mean", 0.2, 1, 5),
    ],
)
def test_a_buffer_too_small_for_a_rule_is_refused_with_how_large_it_has_to_be(rule, share, given, enough) -> None:
    robust = RobustPlan(rule, hostile_share=share)
    check_aggregation(AggregationPlan(buffer_size=enough, robust=robust), "task.toml")
    with pytest.raises(ConfigurationError, match=f"write aggregation.buffer_size = {enough}, or take 'aced'"):
        check_aggregation(AggregationPlan(buffer_size=given, robust=robust), "task.toml")


def test_one_at_least_may_be_hostile() -> None:
    assert [RobustPlan("krum", hostile_share=0.1).hostile_of(count) for count in (5, 9, 10, 11, 20)] == [1, 1, 1, 2, 2]


def described(**settings) -> bytes:
    task = load_bundle(find_recipe("digits") / "bundle").description
    return msgspec.json.encode(msgspec.structs.replace(task, **settings))


def test_task_without_a_rule_is_written_as_before_there_were_any() -> None:
    task = parse_description(described())
    assert task.aggregation.rule is None
    assert b"robust" not in described()


def test_task_with_a_rule_is_read_as_it_was_written() -> None:
    for robust in (RobustPlan("trimmed_mean", hostile_share=0.1), ZENO):
        plan = AggregationPlan(strategy="aced", robust=robust)
        assert parse_description(described(aggregation=plan)).aggregation == plan


def test_rule_without_a_name_and_unknown_settings_are_refused() -> None:
    plan = AggregationPlan(strategy="aced", robust=MEDIAN)
    text = described(aggregation=plan)
    for changed in (text.replace(b'"rule":"median"', b'"rule":"vote"'), text.replace(b'"rule":', b'"rules":')):
        assert changed != text
        with pytest.raises(ConfigurationError, match=r"robust"):
            parse_description(changed)


ACED = AggregationPlan(strategy="aced", robust=MEDIAN)
IN_BLOCKS = [Parameter("first.weight", [4, 8]), Parameter("last.bias", [4], block=2)]
WITH_STATISTICS = [Parameter("head.weight", [4, 8]), Parameter("norm.mean", [4], trainable=False)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"clusters": ClusterPlan()}, r"\[clusters\], where devices train different copies; leave one"),
        ({"split": THREE_BLOCKS, "parameters": IN_BLOCKS}, r"\[split\], where an update holds some blocks alone"),
        ({"privacy": PrivacyPlan(devices=hiding_plan())}, r"\[privacy.devices\], which bounds"),
        ({"parameters": WITH_STATISTICS}, "the model has 4 values of them; take GroupNorm"),
    ],
)
def test_tasks_of_which_no_whole_updates_are_seen_are_refused(tmp_path, settings, said) -> None:
    with pytest.raises(ConfigurationError, match=rf"\[aggregation.robust\] compares .*{said}"):
        write_bundle(tmp_path / "bundle", aggregation=ACED, **settings)


def test_task_with_masks_is_refused(tmp_path) -> None:
    helpers = [MaskHelperOnDisk(f"mask-{number}", tmp_path / f"helper-{number}") for number in range(2)]
    with pytest.raises(ConfigurationError, match=r"\[privacy.masks\], which shows the coordinator sums alone; leave"):
        masked_bundle(tmp_path / "bundle", helpers, aggregation=ACED)
