"""Privacy of samples over a real Mosquitto: a budget ends rounds, a kill is paid for, an owner's word counts."""

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec

from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from tests.support.agent import AgentProcess
from tests.support.broker import Broker
from tests.support.coordinator import CoordinatorProcess
from tests.support.private_task import private_recipe
from tests.support.waiting import until
from workbench.export.bundle_writer import export_bundle

TWO_ROUNDS = "[privacy.samples]\nepsilon = 4\nrounds = 2\n"
SLOW = ("learning_rate = 0.3", "learning_rate = 0.003")
OWNER = '\n[privacy]\nat_least = "samples"\nepsilon = {}\n'


def steps_charged(agent: AgentProcess) -> list[tuple[int, int]]:
    """By the newest sample of each round. Only while it does not run."""
    with closing(sqlite3.connect(agent.folder / "state" / "agent.db")) as database:
        return database.execute("SELECT newest, steps FROM sample_steps ORDER BY newest").fetchall()


def private_bundle(folder: Path, promise: str = TWO_ROUNDS) -> Path:
    bundle = folder / "bundle"
    task = export_bundle(private_recipe(folder / "recipe", SLOW, promise=promise), bundle)
    every_update = msgspec.structs.replace(task.aggregation, strategy="fedbuff", buffer_size=1, server_momentum=0.0)
    text = msgspec.json.encode(msgspec.structs.replace(task, aggregation=every_update))
    parse_description(text)
    (bundle / DESCRIPTION_FILE).write_bytes(text)
    return bundle


def owned(folder: Path, name: str, broker: Broker, coordinator: CoordinatorProcess, owner: str) -> AgentProcess:
    agent = AgentProcess(folder / name, name, broker, coordinator.public_key)
    agent.configuration.write_text(agent.configuration.read_text() + owner)
    agent.start()
    return agent


def test_device_trains_until_its_samples_have_told_what_they_may_and_says_so(tmp_path: Path, broker: Broker) -> None:
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [private_bundle(tmp_path / "private")])
    coordinator.start_serving()
    kitchen = owned(tmp_path, "kitchen", broker, coordinator, OWNER.format(0))
    attic = owned(tmp_path, "attic", broker, coordinator, OWNER.format(0.01))
    try:
        attic.feed(4)
        until(lambda: "event=task_refused task=digits" in attic.log(), "the owner's limit is below one round")
        assert "allows 0.01" in attic.log()
        kitchen.feed(4)
        until(lambda: kitchen.status()["accepted_updates"] == 1, "the first round's update was accepted")
        assert 0 < kitchen.status()["told"]["digits"] < 4
        kitchen.kill()
        assert steps_charged(kitchen) == [(4, 60)]
        kitchen.start()
        kitchen.ask({"command": "train"})
        until(lambda: kitchen.status()["accepted_updates"] == 1, "the second round's update was accepted")
        kitchen.ask({"command": "train"})
        until(lambda: "event=samples_spent task=digits" in kitchen.log(), "a third round would tell too much")
        kitchen.feed(4, first=4)
        until(lambda: kitchen.status()["accepted_updates"] == 2, "new samples are trained on")
        shown = coordinator.tasks("show", "digits")
        assert shown["sample_privacy"]["most_rounds_of_a_device"] == 3
        assert shown["sample_privacy"]["rounds_of_a_sample"] == 2
        assert all(version["mean_loss"] is None for version in shown["versions"])
        kitchen.stop()
        attic.stop()
        assert steps_charged(kitchen) == [(4, 120), (8, 60)]
        assert steps_charged(attic) == []
        with coordinator.journal() as journal:
            assert [row.device for row in journal.updates("digits")] == ["kitchen"] * 3
    finally:
        kitchen.kill()
        attic.kill()
        coordinator.kill()


def test_devices_with_more_noise_and_without_share_a_task_and_each_is_told_of_for_what_it_is(
    tmp_path: Path, broker: Broker
) -> None:
    bundle = private_bundle(tmp_path / "private", f"{TWO_ROUNDS}owners_choose = true\n")
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [bundle])
    coordinator.start_serving()
    more = owned(tmp_path, "more", broker, coordinator, f'{OWNER.format(1)}noise = "own"\n')
    none = owned(tmp_path, "none", broker, coordinator, '\n[privacy]\nnoise = "none"\n')
    try:
        for agent in (more, none):
            agent.feed(4)
            until(lambda agent=agent: agent.status()["accepted_updates"] == 1, "the first round's update was accepted")
            agent.ask({"command": "train"})
            until(lambda agent=agent: agent.status()["accepted_updates"] == 2, "the second round's update was accepted")
            agent.ask({"command": "train"})
            until(lambda agent=agent: "event=samples_spent task=digits" in agent.log(), "no more rounds are planned")
        assert 0.5 < more.status()["told"]["digits"] <= 1.0
        assert none.status()["told"]["digits"] is None
        shown = coordinator.tasks("show", "digits")["sample_privacy"]
        assert {kind: row["devices"] for kind, row in shown["by_noise"].items()} == {"none": 1, "more": 1}
        assert shown["by_noise"]["none"]["epsilon"] is None
        assert shown["by_noise"]["more"]["epsilon"] <= 1.0
    finally:
        more.kill()
        none.kill()
        coordinator.kill()
