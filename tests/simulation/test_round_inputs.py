"""A simulated round takes what it needs at its beginning, as on a device: what comes later is for the next one."""

from edge_agent.worker.contract import TrainingResult, Withheld
from tests.support.simulated_fleet import HOUR, bundle, fleet, workload
from workbench.simulation.round_job import RoundJob, carried_out
from workbench.simulation.simulation import Options, Result, Simulation

SLOW_LINK = {"uplink_kbit_s": 0.1, "start_seconds": 400.0}
"""A receipt comes while the next round runs."""
LATE = {"max_staleness": 0, "buffer_size": 1, "max_delta_norm": 1e6}


class Witness:
    """Carries rounds out in this process, and notes which rejected updates each took, and which came meanwhile."""

    def __init__(self, run: Simulation) -> None:
        self._run = run
        self.begun: list[RoundJob] = []
        self.taken: dict[int, list[set[int]]] = {}
        self.came: dict[int, list[set[int]]] = {}

    def begin(self, job: RoundJob) -> None:
        self.begun.append(job)

    def result(self, job: RoundJob) -> TrainingResult | Withheld:
        waiting = {row.sequence for row in self._run.agents[job.device]._memory.returned}
        self.taken.setdefault(job.device, []).append(set(job.returned))
        self.came.setdefault(job.device, []).append(waiting - set(job.returned))
        return carried_out(job, self._run.world.workload, encode=self._run.world.encode)


def simulation(**conditions: float) -> Simulation:
    options = Options(seed=4, seconds=12 * HOUR)
    return Simulation(fleet(6, **SLOW_LINK | conditions), bundle(**LATE), workload(), options)


def witnessed(**conditions: float) -> tuple[Witness, Result]:
    run = simulation(**conditions)
    witness = Witness(run)
    run.world.spread(witness)
    return witness, run.run()


def test_update_that_is_rejected_during_a_round_is_given_back_to_the_next_one():
    witness, result = witnessed()
    assert set(result.summary.refused) == {"too_stale"}
    assert not result.summary.rounds_diverged, "which would take nothing"
    assert any(came for rounds in witness.came.values() for came in rounds), "some come during a round"
    for device, rounds in witness.taken.items():
        for came, following in zip(witness.came[device], rounds[1:], strict=False):
            assert came <= following
        taken = [number for each in rounds for number in each]
        assert len(taken) == len(set(taken)), "each is given back once"


def test_another_trainer_changes_nothing():
    assert witnessed()[1] == simulation().run()


def test_round_of_a_device_that_is_switched_off_is_never_asked_for():
    witness, result = witnessed(crashes_per_day=40.0)
    ended = sum(len(rounds) for rounds in witness.taken.values())
    assert result.summary.rounds_lost > 0
    assert len(witness.begun) > ended
    assert len(witness.begun) - ended <= result.summary.rounds_lost + len(witness.taken)
