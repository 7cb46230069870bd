"""A simulated fleet whose training collapses goes back to the last good version, however far back that is."""

from itertools import count

import msgspec

from edge_agent.worker.contract import TrainingResult
from fleet_protocol.task_description import TaskDescription
from tests.support.simulated_fleet import HOUR, bundle, fleet, workload
from workbench.simulation.simulation import Options, Simulation


def test_the_only_good_level_begins_before_the_versions_that_are_looked_at() -> None:
    """Each version holds one update: those that a level is of are sixteen versions."""
    rounds = count()

    def tamper(_device: int, _task: TaskDescription, result: TrainingResult) -> TrainingResult:
        number = next(rounds)
        return msgspec.structs.replace(result, loss=0.1 if number < 20 else 0.25 if number < 80 else 9.0)

    options = Options(seed=3, seconds=100 * HOUR, updates=120, plain=True)
    summary = Simulation(fleet(4), bundle(buffer_size=1), workload(), options, tamper=tamper).run().summary
    assert summary.collapses == 1
    assert summary.versions > 100
