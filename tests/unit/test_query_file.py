"""query.toml: what it may say, and what is said of one that can't be asked."""

import textwrap
from pathlib import Path

import pytest

from broker_coordinator.commands.new_query import query_of
from broker_coordinator.commands.query_file import read_query_file
from fleet_protocol.analytics.answers import is_understood
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import LabelSchema
from tests.support.queries import TASK, described, stored

GOOD = """
name = "hours"
task = "tiny"
ask = "histogram"
field = "received_at"
edges = [1.0, 2.0, 4.0]
since = 2026-11-01T00:00:00Z
until = 2026-11-08T00:00:00Z
minimum_devices = 20
epsilon = 0.5

[[where]]
field = "label"
at_most = 1.0
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "query.toml"
    file.write_text(text)
    return file


def test_file_is_what_devices_are_asked(tmp_path) -> None:
    query = query_of(read_query_file(written(tmp_path, GOOD)), TASK, 5).query
    assert (query.number, query.name, query.ask, query.field) == (5, "hours", "histogram", "received_at")
    assert query.edges == (1.0, 2.0, 4.0)
    assert query.until - query.since == 7 * 86_400
    assert (query.where[0].at_least, query.where[0].at_most) == (None, 1.0)
    assert is_understood(query)


def test_example_of_the_guide_can_be_read(tmp_path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "analytics.md").read_text()
    example = guide.split("names the query, the task, what is asked, and a field:\n")[1].split("\n| `ask`")[0]
    file = read_query_file(written(tmp_path, textwrap.dedent(example)))
    assert (file.name, file.ask, file.where[0].at_most) == ("voltage", "histogram", 3)


@pytest.mark.parametrize(
    ("ask", "keys", "words"),
    [
        ("mean", {}, "needs lower and upper"),
        ("mean", {"lower": 1.0, "upper": 1.0}, "the lower one first"),
        ("mean", {"lower": 1.0}, "write both"),
        ("histogram", {"edges": [1.0, 1.0]}, "ascend"),
        ("histogram", {"edges": [1.0, 2.0], "lower": 1.0, "upper": 2.0}, "stand without"),
        ("labels", {}, "has no classes"),
        ("labels", {"field": "label[3]"}, "label"),
        ("quantiles", {"probabilities": (0.1,) * 8, "bins": 100}, "too many"),
        ("distinct", {"epsilon": 1.0}, "takes no epsilon"),
        ("distinct", {"samples_per_device": 1000}, "takes 512"),
        ("heavy_hitters", {}, "are of text.NAME"),
        ("mean", {"field": "text.places", "lower": 0.0, "upper": 1.0}, "are of text.NAME"),
        ("heavy_hitters", {"field": "text.places", "where": [{"field": "label"}]}, "no property of a sample"),
        ("count", {"where": [{"field": "text.places"}]}, "no property of a sample"),
        ("count", {"where": [{"field": "label", "at_least": 2.0, "at_most": 1.0}]}, "no label is from 2 to 1"),
        ("count", {"field": "input[12]"}, "has 4 values in tiny"),
        ("count", {"epsilon": 1e-5}, "a round takes 0.001"),
        ("quantiles", {"epsilon": 1.0}, "with epsilon needs lower and upper"),
        ("histogram", {"epsilon": 1.0}, "with epsilon needs lower and upper"),
        ("count", {"epsilon": 1.0, "samples_per_device": 2}, "for one sample"),
    ],
)
def test_query_that_can_not_be_asked_is_refused_with_what_to_change(ask, keys, words) -> None:
    with pytest.raises(ConfigurationError, match=words):
        stored(ask, **keys)


def test_labels_of_more_classes_than_an_answer_holds_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="the limit is 511"):
        stored("labels", task=described(LabelSchema(1000)), field="label")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (("minimum_devices = 20", "minimum_devices = 2"), "minimum_devices"),
        (("epsilon = 0.5", "epsilon = nan"), "epsilon"),
        (("epsilon = 0.5", "epsilon = 1e9"), "epsilon"),
        (("2026-11-08", "2026-10-08"), "since is not before until"),
        (("epsilon = 0.5", "probabilities = []"), "probabilities"),
        (('ask = "histogram"', 'ask = "average"'), "ask"),
        (("2026-11-01T00:00:00Z", "1960-11-01T00:00:00Z"), "no sample came before 1970"),
        (("2026-11-01T00:00:00Z", "0001-01-01T00:00:00"), "no sample came before 1970"),
        (("epsilon = 0.5", "epsylon = 0.5"), "epsylon"),
        (('"label"', '"' + "x" * 200 + '"'), "field"),
    ],
)
def test_key_that_is_wrong_is_named(tmp_path, changed, words) -> None:
    text = GOOD.replace(*changed)
    with pytest.raises(ConfigurationError, match=words):
        query_of(read_query_file(written(tmp_path, text)), TASK, 5)
