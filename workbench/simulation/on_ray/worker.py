"""In a process of a Ray cluster: carries out the rounds that it is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import msgspec
import ray

from edge_agent.training.round import DivergedError
from edge_agent.worker.contract import TrainingResult, Withheld
from fleet_protocol.codec import encode_update
from fleet_protocol.task_description import TaskDescription
from workbench.simulation.local_training import Ingredients, LocalTraining
from workbench.simulation.on_ray.arithmetic import Arithmetic
from workbench.simulation.round_job import RoundJob, carried_out


@dataclass(frozen=True, slots=True)
class Supplies:
    """What all rounds of a simulation are carried out with: `made_of`, with the files' content, and updates with `zstd`
    or without; with the `arithmetic` of the process that simulates.
    """

    made_of: Ingredients
    zstd: bool
    arithmetic: Arithmetic


class Diverged(msgspec.Struct, frozen=True):
    """A round that has diverged: the words of its error, and what it leaves against drift."""

    words: str
    drift: bytes | None = None


Outcome = TrainingResult | Withheld | Diverged


def carry_out(job: RoundJob, supplies: "Sequence[ray.ObjectRef]") -> Outcome:
    """A task of Ray: what a round gives. `supplies` is one reference, in a list so that a process fetches it once.

    Raises:
        ConfigurationError: this process would not give the same bits, or can't run the graphs.
    """
    bench = _bench(supplies[0])
    try:
        return carried_out(job, bench.training(job.task), encode=bench.encode)
    except DivergedError as error:
        return Diverged(str(error), error.drift)


@lru_cache(1)
def _bench(supplies: "ray.ObjectRef") -> "_Bench":
    return _Bench(ray.get(supplies))


class _Bench:
    """The graphs of a task, loaded once for many rounds."""

    def __init__(self, supplies: Supplies) -> None:
        supplies.arithmetic.adopt()
        self.encode = partial(encode_update, zstd=supplies.zstd)
        self._made_of = supplies.made_of
        self._loaded: tuple[TaskDescription, LocalTraining] | None = None

    def training(self, task: TaskDescription) -> LocalTraining:
        """That of a task, which is another one once it has its scale."""
        if self._loaded is None or self._loaded[0] != task:
            self._loaded = task, self._made_of.training(task)
        return self._loaded[1]
