"""A fleet in virtual time that corrects its drift: through sleep, crashes, a checkpoint and a change of process."""

import pickle
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from edge_agent.training.client_drift.steering import DriftMemory
from edge_agent.worker.contract import TrainingResult, Withheld
from tests.support.digits_rounds import digits
from tests.support.drift_task import correcting_bundle
from tests.support.simulated_fleet import HOUR, fleet
from workbench.simulation import event_queue
from workbench.simulation.checkpoint.file import resume, write_checkpoint
from workbench.simulation.round_job import RoundJob, carried_out
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.workload import trained_workload

DEVICES, UPDATES = 6, 36


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("drift") / "digits"
    correcting_bundle(found, maximum_epochs=0)
    return found


def simulation(folder: Path, *, correction: str = "scaffold", crashes: float = 0.0, **options) -> Simulation:
    bundle = load_bundle(folder)
    training = msgspec.structs.replace(bundle.description.training, correction=correction, validation_share=0.0)
    aggregation = msgspec.structs.replace(
        bundle.description.aggregation, strategy="fedbuff", buffer_size=3, max_staleness=1000
    )
    task = msgspec.structs.replace(bundle.description, training=training, aggregation=aggregation)
    parts = [digits(2 * (number % 5) + np.arange(100) % 2, seed=number) for number in range(DEVICES)]
    workload = trained_workload(folder, task, parts, digits(np.arange(200) % 10, seed=100))
    chosen = {"seed": 1, "seconds": 100 * HOUR, "updates": UPDATES, "score_every": UPDATES, "plain": True} | options
    return Simulation(fleet(DEVICES, crashes_per_day=crashes), Bundle(task, bundle.files), workload, Options(**chosen))


def kept(made: Simulation) -> dict[int, bytes]:
    return {agent.number: agent._memory.drift for agent in made.agents}


class Elsewhere:
    """Carries rounds out as another process would: what is not in the job does not come along."""

    def __init__(self, run: Simulation) -> None:
        self._run, self.corrected = run, 0

    def begin(self, _: RoundJob) -> None:
        """Nothing yet."""

    def result(self, job: RoundJob) -> TrainingResult | Withheld:
        sent = pickle.loads(pickle.dumps(job))
        self.corrected += bool(sent.drift and sent.last_weights is not None and sent.versions_since > 0)
        return carried_out(sent, self._run.world.workload, encode=self._run.world.encode)


def test_fleet_of_two_classes_a_device_learns_all_of_them(folder):
    plain, made = simulation(folder, correction="off", concurrent=3), simulation(folder, concurrent=3)
    plain.run()
    found = made.run().summary
    assert not found.refused
    assert not found.rounds_diverged
    assert found.score > found.first_score + 0.5
    assert not any(kept(plain).values())
    assert all(kept(made).values())


def test_rounds_in_another_process_give_the_same(folder):
    run, here = simulation(folder, crashes=24.0), simulation(folder, crashes=24.0)
    trainer = Elsewhere(run)
    run.world.spread(trainer)
    assert run.run() == here.run()
    assert kept(run) == kept(here)
    assert trainer.corrected > UPDATES / 2


def test_what_devices_keep_goes_on_from_a_checkpoint(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(event_queue, "EVENTS_BETWEEN_TICKS", 50)
    paths = []

    def tick(_: float) -> None:
        paths.append(tmp_path / str(len(paths)))
        write_checkpoint(paths[-1], {}, whole)

    whole, resumed = simulation(folder), simulation(folder)
    expected = whole.run(tick=tick)
    assert resume(paths[len(paths) // 2], {}, resumed)
    assert any(kept(resumed).values())
    assert resumed.run().summary == expected.summary
    assert kept(resumed) == kept(whole)
    assert all(msgspec.msgpack.decode(each, type=DriftMemory).variate for each in kept(whole).values())
