"""The Grafana dashboard and the alert rules ask for metrics that coordinator and relay have."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics_core import Metric

from broker_coordinator.serving.metrics import Metrics
from session_relay.relay.metrics import RelayMetrics
from tests.support.sessions_world import World

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD, ALERTS = DEPLOY / "grafana" / "edgeflock.json", DEPLOY / "prometheus" / "edgeflock-alerts.yaml"
OF_TYPE = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
"""What Prometheus stores of a metric, behind its name."""
OF_PROMETHEUS = {"job", "instance", "le"}
"""Labels that it gives itself."""


def expressions() -> Iterator[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))
    for variable in dashboard["templating"]["list"][1:]:
        yield variable["definition"].split(", ")[0].removeprefix("label_values(")
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


@pytest.fixture(scope="module")
def metrics() -> list[Metric]:
    """Of a coordinator and of a relay."""
    return [*Metrics().registry.collect(), *RelayMetrics(World().relay).collect()]


def test_every_metric_that_is_asked_for_is_there(metrics):
    there = {each.name + ending for each in metrics for ending in OF_TYPE[each.type]}
    for expression in expressions():
        asked = set(re.findall(r"\bedgeflock_\w+", expression))
        assert asked <= there, expression


def test_every_metric_is_on_the_dashboard(metrics):
    asked = set(re.findall(r"\bedgeflock_\w+", " ".join(expressions())))
    for each in metrics:
        assert asked & {each.name + ending for ending in OF_TYPE[each.type]}, each.name


def test_labels_that_are_asked_for_are_there(metrics):
    there = {label: each.name for each in metrics for sample in each.samples for label in sample.labels}
    documented = set(re.findall(r"`edgeflock_\w+\{([\w, ]+)\}`", (DEPLOY.parent / "docs" / "operating.md").read_text()))
    labels = OF_PROMETHEUS | there.keys() | {name for names in documented for name in names.split(", ")}
    for expression in expressions():
        grouped = re.findall(r"\b(?:by|on) \(([\w, ]+)\)", expression)
        matched = re.findall(r"[{,] ?(\w+)=", expression)
        asked = {name.strip() for names in grouped for name in names.split(",")} | set(matched)
        assert asked - {"__name__"} <= labels, expression


def test_panels_have_a_place_and_a_number_of_their_own():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells
