"""Hands rounds over to a Ray cluster as they begin, and takes what they give at their ends."""

from dataclasses import replace
from pathlib import Path
from weakref import WeakKeyDictionary

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

from edge_agent.training.round import DivergedError
from edge_agent.worker.contract import TrainingResult, Withheld
from fleet_protocol.errors import ConfigurationError, ProtocolError
from workbench.simulation.local_training import Ingredients
from workbench.simulation.on_ray.arithmetic import arithmetic
from workbench.simulation.on_ray.worker import Diverged, Outcome, Supplies, carry_out
from workbench.simulation.round_job import RoundJob

MOST_TRIES = 3
"""Of a round whose process dies: then it may be the round that kills it."""
DEATHS = (NodeDiedError, OutOfMemoryError, WorkerCrashedError)


class RayTrainer:
    """See `world.Trainer`; this process is connected to the cluster. The samples go there once, a round as a task of
    one CPU. Where its process or machine dies, Ray carries it out again elsewhere: it gives the same.
    """

    def __init__(self, made_of: Ingredients, *, zstd: bool) -> None:
        contents = {name: each.read_bytes() if isinstance(each, Path) else each for name, each in made_of.files.items()}
        self._supplies = ray.put(Supplies(replace(made_of, files=contents), zstd, arithmetic()))
        self._carry_out = ray.remote(num_cpus=1, max_retries=MOST_TRIES - 1)(carry_out)
        self._under_way: WeakKeyDictionary[RoundJob, ray.ObjectRef] = WeakKeyDictionary()
        """Without the rounds of devices that were switched off, which nobody has any more."""

    def begin(self, job: RoundJob) -> None:
        """See `world.Trainer`."""
        try:
            self._under_way[job] = self._carry_out.remote(job, [self._supplies])
        except RayError as error:
            raise _failed(
                job, f"can't be handed over ({_first_line(error)}); see the cluster's memory and disk"
            ) from error

    def result(self, job: RoundJob) -> TrainingResult | Withheld:
        """See `world.Trainer`."""
        try:
            found: Outcome = ray.get(self._under_way.pop(job))
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ConfigurationError | ProtocolError):
                raise cause from error
            why = f"{type(cause).__name__}: {_first_line(cause)}"
            raise _failed(
                job, f"fails at its worker ({why}); each needs edgeflock[ray] and all that the task does"
            ) from error
        except DEATHS as error:
            words = f"has lost {MOST_TRIES} processes ({_first_line(error)}); give them more memory"
            raise _failed(job, words) from error
        except RayError as error:
            raise _failed(job, f"is lost ({_first_line(error)}); see the cluster's memory and disk") from error
        if isinstance(found, Diverged):
            diverged = DivergedError(found.words)
            diverged.drift = found.drift
            raise diverged
        return found


def _failed(job: RoundJob, words: str) -> ConfigurationError:
    return ConfigurationError(f"--ray: a round of device {job.device} {words}, or simulate without --ray")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
