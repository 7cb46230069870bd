"""Which samples of a simulated device have told what a task with privacy of samples allows, and what a round adds."""

from collections.abc import Sequence

from edge_agent.core.noise_choice import RoundCount
from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.core.sample_ledger import Charge
from edge_agent.training.engine import TrainingEngine
from edge_agent.training.private.engine import PrivateEngine
from edge_agent.worker.contract import Withheld
from fleet_protocol.task_description import TaskDescription


def as_chosen(
    engine: TrainingEngine, task: TaskDescription, owner: PrivacySettings
) -> tuple[TrainingEngine, TaskDescription]:
    """The fleet's engine and task with the noise that a device of this owner adds."""
    if owner.noise == "task" or (count := RoundCount.of(task, owner)) is None:
        return engine, task
    if isinstance(engine, PrivateEngine):
        engine = engine.with_noise(count.chosen.noise_multiplier)
    return engine, count.described(task)


def spent_samples(charges: Sequence[Charge], task: TaskDescription, owner: PrivacySettings) -> int:
    """The number up to which samples can't bear another round; 0 where all can, or nothing is counted."""
    count = RoundCount.of(task, owner)
    return 0 if count is None else count.spent_through(charges)


def charged(charges: list[Charge], task: TaskDescription, newest: int, owner: PrivacySettings) -> Withheld | None:
    """Add a round on the samples up to the number `newest`; or say why there is none."""
    if (count := RoundCount.of(task, owner)) is None:
        return None
    if newest <= count.spent_through(charges):
        return Withheld("spent", count.spent_words(charges, newest), newest, 0.0)
    charges.append(Charge(newest, count.round))
    return None
