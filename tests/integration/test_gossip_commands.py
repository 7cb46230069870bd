"""What an operator is told of a task that devices learn by gossip, and which commands have nothing to do with it."""

import json
from pathlib import Path

import pytest

from broker_coordinator.cli import main
from broker_coordinator.dashboard.changes import CHANGES
from broker_coordinator.dashboard.pages import task_page
from broker_coordinator.dashboard.questions import Nothing
from broker_coordinator.storage.journal import Journal
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.gossip_plan import GossipPlan
from tests.support.bench import OPEN, Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.commands import configuration_of
from tests.support.device import SigningDevice


class Place:
    """A coordinator's configuration, and its database with a task on random neighbours."""

    def __init__(self, folder: Path) -> None:
        self.bundle = write_bundle(folder / "bundle", gossip=GossipPlan("random", seed=3))
        self.bench = Bench(folder / "fleet.db", self.bundle, OPEN)
        self.configuration = configuration_of(self.bench, folder)

    def run(self, *arguments: str) -> int:
        noun, *others = arguments
        return main([noun, "--config", str(self.configuration), *others])

    def enrol(self, *numbers: int) -> None:
        for device in (SigningDevice(f"pi-{number}") for number in numbers):
            self.bench.handle(device, device.enrolment())
        self.bench.now += 2
        self.bench.make_versions()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("gossip"))
    place.enrol(0)
    yield place
    place.bench.journal.close()


def test_a_roster_of_one_is_told_with_a_way_out(place, capsys) -> None:
    assert place.run("tasks", "show", TASK, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["gossip"] == "random, mean, seed 3: devices learn from each other, and no versions are made"
    assert (shown["roster_devices"], "quarantine" in shown) == (1, False)
    words = "no device trains yet, topology 'random' of 1 device: it takes 5 or more; add devices: approve 4 more"
    assert any(words in each for each in shown["advice"])
    assert place.run("tasks", "diagnose", TASK, "--json") == 0
    assert any(words in each for each in json.loads(capsys.readouterr().out)["advice"])
    folder = place.configuration.parent / "bundle"
    assert place.run("tasks", "publish", str(folder)) == 0
    assert f"warning: {TASK}: {words}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ("tasks", "pause"),
        ("tasks", "invite"),
        ("tasks", "aggregate"),
        ("tasks", "quarantine"),
        ("tasks", "evaluate"),
        ("tasks", "variety"),
        ("tasks", "verify"),
    ],
    ids=" ".join,
)
def test_what_is_of_versions_is_refused_in_words(place, capsys, command) -> None:
    assert place.run(*command, TASK) == 2
    said = capsys.readouterr().err
    assert f"{' '.join(command)} {TASK}: devices learn this task by gossip, so the coordinator has no versions" in said


def test_so_are_commands_that_name_more_than_the_task(place, capsys, tmp_path) -> None:
    for command in (
        ("tasks", "rollback", TASK, "0"),
        ("tasks", "export", TASK, str(tmp_path / "out")),
        ("devices", "forget", "pi-0", "--task", TASK),
    ):
        assert place.run(*command) == 2
        assert "devices learn this task by gossip" in capsys.readouterr().err
    assert place.run("clusters", "show", TASK) == 2
    assert place.run("tasks", "refine", TASK) == 2


def test_forgetting_says_what_neighbours_keep(place, capsys) -> None:
    assert place.run("devices", "forget", "pi-0") == 0
    assert f"of {TASK}, which devices learn by gossip, other devices keep what they learned" in (
        capsys.readouterr().err
    )


def test_a_fleet_that_is_large_enough_is_told_nothing(place, capsys) -> None:
    place.enrol(1, 2, 3, 4)
    assert place.run("tasks", "show", TASK, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["roster_devices"], shown["roster"]) == (5, 2)
    assert not any("gossip" in each or "topology" in each for each in shown["advice"])


def test_the_dashboard_tells_it_and_refuses_what_the_commands_refuse(place) -> None:
    with Journal.open_to_look(place.bench.database) as journal:
        assert dict(task_page(journal, TASK).told)["gossip"].startswith("random, mean")
    with pytest.raises(ConfigurationError, match="tasks pause tiny: devices learn this task by gossip"):
        CHANGES["/api/tasks/{subject}/pause"].do(place.bench.journal, None, TASK, Nothing())
