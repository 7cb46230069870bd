"""The table [gossip]: which tasks can have it, which settings it makes meaningless, and what stays as it was."""

import msgspec
import pytest

from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle import parse_description
from fleet_protocol.downlink_plan import DownlinkPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.gossip_plan import AS_BUNDLED, MAX_WHOLE_VALUES, GossipPlan
from fleet_protocol.kinds import TOLD
from fleet_protocol.limits import MAX_UPDATE_BYTES
from fleet_protocol.parameter import Parameter
from fleet_protocol.selection_plan import SelectionPlan
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import UpdatePlan
from tests.support.bundles import write_bundle


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> TaskDescription:
    return write_bundle(tmp_path_factory.mktemp("plan") / "bundle", gossip=GossipPlan("ring")).description


def read(task: TaskDescription, **changes: object) -> TaskDescription:
    return parse_description(msgspec.json.encode(msgspec.structs.replace(task, **changes)), "task.json")


def test_the_table_is_read_back_and_a_task_without_it_does_not_name_it(task):
    assert read(task).gossip == GossipPlan("ring")
    assert msgspec.json.decode(msgspec.json.encode(task))["gossip"] == {"topology": "ring"}
    plain = msgspec.structs.replace(task, gossip=None)
    assert b"gossip" not in msgspec.json.encode(plain)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gossip": GossipPlan("ring", "vote")}, "task.json: a vote on a ring"),
        ({"selection": SelectionPlan()}, r"\[selection\] does not go with gossip"),
        ({"downlink": DownlinkPlan()}, "downlink.differences is 'lossy', and no version travels"),
        ({"downlink": DownlinkPlan("exact")}, r"leave \[downlink\] out"),
        ({"update": UpdatePlan(0.5, feedback="momentum")}, "update.feedback 'momentum' has no effect"),
        ({"aggregation": AggregationPlan(buffer_size=3)}, "aggregation.buffer_size has no effect"),
        ({"aggregation": AggregationPlan(strategy="aced")}, "max_delta_norm and max_staleness count"),
        ({"aggregation": AggregationPlan(server_learning_rate=0.5)}, "aggregation.server_learning_rate has no effect"),
        ({"parameters": [Parameter("weight", [MAX_WHOLE_VALUES + 1])]}, "float32 values is no message"),
    ],
)
def test_what_needs_a_coordinator_or_has_no_effect_is_refused_at_load(task, changes, words):
    with pytest.raises(ConfigurationError, match=words):
        read(task, **changes)


def test_settings_that_count_are_free(task):
    plan = AggregationPlan(max_staleness=5, max_delta_norm=3.0)
    for gossip in (GossipPlan("grid"), GossipPlan("random", "vote", 9)):
        assert read(task, gossip=gossip, aggregation=plan).gossip == gossip


def test_a_copy_of_the_largest_model_is_a_message():
    assert 4 * MAX_WHOLE_VALUES + 16_000 < TOLD.max_bytes == MAX_UPDATE_BYTES


def test_no_bit_of_the_weights_that_all_begin_with_is_rounded():
    assert not AS_BUNDLED.packs(0)
