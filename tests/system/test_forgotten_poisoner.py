"""Over a real Mosquitto, an agent that was taught wrong labels is revoked with --forget; the fleet goes on without."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent import AgentProcess, copy_digits_bundle, sample
from tests.support.broker import Broker
from tests.support.connected_device import ConnectedDevice
from tests.support.coordinator import CoordinatorProcess
from tests.support.waiting import until

NAMES = ("attic", "barn", "evil")


class PoisonedFleet:
    """Two agents that tell the truth, and one whose samples have each the label after their own."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        copy_digits_bundle(folder / "digits", buffer_size=2, strategy="fedbuff")
        self.coordinator = CoordinatorProcess(folder / "coordinator", broker, [folder / "digits"])
        self.coordinator.start_serving()
        self.agents = {name: AgentProcess(folder / name, name, broker, self.coordinator.public_key) for name in NAMES}
        for agent in self.agents.values():
            agent.start()
        self.awake = ConnectedDevice("awake", broker, self.coordinator.public_key)
        """Hears each manifest at once, which agents that sleep do not."""
        self._fed = dict.fromkeys(NAMES, 0)

    def end(self) -> None:
        self.awake.close()
        for process in (*self.agents.values(), self.coordinator):
            process.kill()

    def train(self, *names: str) -> None:
        """A round of each, one after the other; returns when all updates have their receipts."""
        for name in names:
            accepted = self.accepted()
            for _ in range(4):
                told = sample(self._fed[name])
                self._fed[name] += 1
                wrong = (told["label"] + 1) % 10
                assert self.agents[name].ask(told | {"label": wrong} if name == "evil" else told) == {"ok": True}
            until(lambda accepted=accepted: self.accepted() == accepted + 1, f"an update of {name} is taken")

    def accepted(self) -> int:
        with self.coordinator.journal() as journal:
            return journal.overview.update_counts("digits")[0]

    def reaches(self, version: int) -> bytes:
        """The weights of a version, when it is the newest."""
        until(lambda: self.newest() == version, f"version {version} is made")
        with self.coordinator.journal() as journal:
            weights = journal.weights_of("digits", version)
        assert weights is not None
        return weights

    def newest(self) -> int:
        """The number of the newest version."""
        with self.coordinator.journal() as journal:
            return journal.newest_number("digits")


@pytest.fixture
def fleet(tmp_path: Path, broker: Broker) -> Iterator[PoisonedFleet]:
    made = PoisonedFleet(tmp_path, broker)
    yield made
    made.end()


def test_fleet_goes_on_from_what_it_was_without_the_poisoner(fleet: PoisonedFleet) -> None:
    fleet.train("attic", "barn")
    honest = fleet.reaches(1)
    fleet.train("evil", "evil")
    poisoned = fleet.reaches(2)
    assert poisoned != honest
    forget = ("revoke", "evil", "--forget", "--since", "2")
    told = fleet.coordinator.devices(*forget, "--dry-run")
    assert fleet.newest() == 2
    assert fleet.reaches(2) == poisoned, "a dry run makes none"
    assert fleet.coordinator.devices(*forget) == told
    (row,) = told
    assert (row["version"], row["replayed_from"], row["updates"], row["others"], row["remains"]) == (3, 1, 2, 0, "")
    assert row["distance"] > 0
    assert fleet.reaches(3) == honest, "to the last bit"
    until(lambda: fleet.awake.received.manifests["digits"].version == 3, "version 3 is announced")
    fleet.train("attic", "barn")
    fleet.reaches(4)
    with fleet.coordinator.journal() as journal:
        assert {(row.device, row.base_version) for row in journal.held_updates("digits", 4)} == {
            ("attic", 3),
            ("barn", 3),
        }
    shown = fleet.coordinator.tasks("show", "digits")["versions"]
    assert [row["number"] for row in shown if row["with_forgotten"]] == [2]
    assert fleet.coordinator.tasks("verify", "digits")
