"""A fleet in virtual time whose suspicious updates are held, by the core that ships."""

from itertools import count
from typing import Any

import msgspec
import numpy as np
import pytest

from broker_coordinator.aggregation.version import Version
from broker_coordinator.serving.served_task import ServedTask
from edge_agent.worker.contract import TrainingResult
from fleet_protocol.codec import decode_update, encode_update
from fleet_protocol.quarantine_plan import QuarantinePlan
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import UpdatePlan
from tests.support.simulated_fleet import HOUR, bundle, fleet, workload
from workbench.simulation import event_queue
from workbench.simulation.checkpoint.file import resume, write_checkpoint
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.verdict import remarks

DENSE = UpdatePlan(1.0, quantisation="float32", selection="dense")


def exaggerates(device: int, task: TaskDescription, result: TrainingResult) -> TrainingResult:
    """No loss rises: training that collapses goes back, and what began before it is compared with what is older."""
    result = msgspec.structs.replace(result, loss=1.0)
    if device:
        return result
    delta = decode_update(result.packed, task.shapes)
    vector = np.zeros(task.parameter_count, np.float32)
    vector[delta.indices] = 5 * delta.values
    packed = encode_update(vector, task.shapes, DENSE, np.random.default_rng(1)).packed
    return msgspec.structs.replace(result, packed=packed)


def simulation(plan: QuarantinePlan | None) -> Simulation:
    options = Options(seed=3, seconds=4 * HOUR, plain=True)
    quarantine = msgspec.UNSET if plan is None else plan
    return Simulation(fleet(9), bundle(quarantine=quarantine), workload(), options, tamper=exaggerates)


def test_what_is_suspicious_is_held_and_a_checkpoint_goes_on(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(event_queue, "EVENTS_BETWEEN_TICKS", 50)
    paths = []

    def tick(_: float) -> None:
        paths.append(tmp_path / str(len(paths)))
        write_checkpoint(paths[-1], {}, whole)

    whole, resumed = (simulation(QuarantinePlan()) for _ in range(2))
    summary = whole.run(tick=tick).summary
    assert summary.collapses == 0
    assert summary.held > 3
    assert summary.held <= whole.agents[0].updates_made
    assert any("held in quarantine as suspicious" in words for words in remarks(summary))
    assert resume(paths[len(paths) // 2], {}, resumed)
    assert msgspec.json.encode(resumed.run().summary) == msgspec.json.encode(summary)
    assert simulation(None).run().summary.held == 0


@pytest.mark.parametrize("seed", [3, 5])
def test_honest_updates_behind_a_return_to_an_older_version_are_not_held(seed: int, monkeypatch) -> None:
    """All begin with one version then, so they are unlike what was sent before it; and once five were taken, judged."""
    rounds, known = count(), []

    def collapses(_device: int, _task: TaskDescription, result: TrainingResult) -> TrainingResult:
        return msgspec.structs.replace(result, loss=9.0 if 100 <= next(rounds) < 160 else 0.1)

    def go_back_and_note(task: ServedTask, version: Version, *more: Any) -> None:
        go_back(task, version, *more)
        known.append((task, len(task.quarantine.last)))

    go_back = ServedTask.go_back
    monkeypatch.setattr(ServedTask, "go_back", go_back_and_note)
    options = Options(seed=seed, seconds=100 * HOUR, updates=200, plain=True)
    fleet_of_nine = Simulation(
        fleet(9), bundle(buffer_size=3, quarantine=QuarantinePlan()), workload(), options, tamper=collapses
    )
    summary = fleet_of_nine.run().summary
    assert (summary.collapses, summary.held) == (1, 0)
    ((task, compared),) = known
    assert (compared, len(task.quarantine.last)) == (0, 9)
