"""A simulation whose rounds are computed on a Ray cluster."""

from collections.abc import Iterator
from contextlib import contextmanager

from fleet_protocol.errors import ConfigurationError
from workbench.simulation.local_training import Ingredients
from workbench.simulation.on_ray.cluster import ray_cluster
from workbench.simulation.simulation import Simulation


@contextmanager
def spread_over_ray(simulation: Simulation, address: str, *, plain: bool) -> Iterator[None]:
    """Within the block, the rounds of a prepared simulation are computed at `address`, as of `ray_cluster`; `plain` as
    of its options.

    Raises:
        ConfigurationError: its rounds can't be computed elsewhere, or there is no cluster.
        ModuleNotFoundError: Ray is not installed.
    """
    made_of = what_is_sent(simulation)
    samples_bytes = sum(part.inputs.nbytes + part.labels.nbytes for part in made_of.parts)
    with ray_cluster(address, samples_bytes):
        from workbench.simulation.on_ray.trainer import RayTrainer  # noqa: PLC0415 - Ray is an extra

        simulation.world.spread(RayTrainer(made_of, zstd=not plain))
        yield


def what_is_sent(simulation: Simulation) -> Ingredients:
    """What rounds are made of.

    Raises:
        ConfigurationError: they can't be computed elsewhere, and why.
    """
    task = simulation.bundle.description
    one_generator = "are drawn from one generator, in the order in which rounds end; leave --ray out"
    if task.masks is not None:
        raise ConfigurationError(f"--ray: masks {one_generator}")
    if task.sample_privacy is not None:
        raise ConfigurationError(f"--ray: batches and noise of a task with privacy of samples {one_generator}")
    made_of = simulation.world.workload.made_of
    if made_of is None:
        raise ConfigurationError("--ray: without --data nothing real is computed; add --data, or leave --ray out")
    return made_of
