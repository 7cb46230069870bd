"""`clusters.found_by`: what contradicts it is refused at load, and nothing stands where it is left out."""

import msgspec
import pytest

from fleet_protocol.bundle import parse_description
from fleet_protocol.cluster_plan import ClusterPlan, check_found_by
from fleet_protocol.errors import ConfigurationError
from workbench.recipe_folder import find_recipe

DIGITS = msgspec.json.decode((find_recipe("digits") / "bundle" / "task.json").read_bytes())


@pytest.mark.parametrize("found_by", ["directions", "devices"])
def test_a_task_says_by_what_its_clusters_are_found(found_by):
    said = {"most": 3, "found_by": found_by}
    read = parse_description(msgspec.json.encode(DIGITS | {"clusters": said})).clusters
    assert read.by_devices is (found_by == "devices")
    assert read.by_coordinator is (found_by == "directions")
    assert msgspec.to_builtins(read) == said


def test_a_task_without_it_has_the_bytes_that_it_had():
    assert msgspec.json.encode(ClusterPlan(3)) == b'{"most":3}'
    assert not (ClusterPlan().by_devices or ClusterPlan().by_coordinator)
    assert ClusterPlan(activations="second").by_coordinator


REFUSED = {
    "activations": (ClusterPlan(activations="second", found_by="directions"), {}, "another way to find them"),
    "call": (ClusterPlan(call=0, found_by="devices"), {}, "another way to find them"),
    "split": (ClusterPlan(found_by="directions"), {"has_split": True}, "run the whole model"),
    "every": (ClusterPlan(every=5, found_by="devices"), {}, "chooses before each of its rounds"),
    "relevant": (ClusterPlan(found_by="devices"), {"sending_rule": "relevant"}, "may be another copy"),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_contradictions_are_refused_in_words(refused):
    plan, others, words = refused
    with pytest.raises(ConfigurationError, match=words) as error:
        check_found_by(plan, **{"sending_rule": "always", "has_split": False, "name": "task.json"} | others)
    assert str(error.value).startswith(f"task.json: clusters.found_by = {plan.found_by!r}")


def test_every_goes_with_directions():
    check_found_by(ClusterPlan(every=5, found_by="directions"), "relevant", "task.json", has_split=False)
