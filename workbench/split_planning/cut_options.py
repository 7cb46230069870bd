"""What each cut of a task would cost a kind of device, which of them fit it, and which is best for it alone. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.profiles import Profile
from fleet_protocol.limits import MIB
from fleet_protocol.split_costs import Party, StepCost, memory_bytes, step_cost
from fleet_protocol.split_plan import WHOLE, Cut
from fleet_protocol.task_description import TaskDescription


@dataclass(frozen=True, slots=True)
class CutOption:
    """One cut on one kind of device. `memory_bytes` is what its worker would need, `limit_bytes` what it may take."""

    cut: Cut
    memory_bytes: int
    limit_bytes: int
    cost: StepCost

    @property
    def fits(self) -> bool:
        """Whether the worker has room for it."""
        return self.memory_bytes <= self.limit_bytes

    @property
    def why_not(self) -> str:
        """Why it does not fit, in words; empty where it does."""
        if self.fits:
            return ""
        return f"needs {self.memory_bytes / MIB:.0f} MiB, memory_limit_mib is {self.limit_bytes / MIB:.0f}"


def cut_options(
    task: TaskDescription, profile: Profile, helper_flops: float | None, stored_samples: int | None = None
) -> list[CutOption]:
    """The whole step first, then every cut of a task with a `split`; without helpers (None) the whole step alone.

    `helper_flops` is the speed of a helper, in floating point operations a second. Left out, as many samples are stored
    as the profile keeps.

    Raises:
        ValueError: the task has no `split`.
    """
    party = _party(profile, helper_flops or 1.0)
    samples = _most_samples(task, profile) if stored_samples is None else stored_samples
    cuts = [WHOLE, *(task.split.cuts if task.split and helper_flops else [])]
    limit = profile.worker.memory_limit_mib * MIB
    return [
        CutOption(cut, memory_bytes(task, cut, stored_samples=samples), limit, step_cost(task, cut, party))
        for cut in cuts
        if cut is WHOLE or cut.helper
    ]


def best_alone(options: Sequence[CutOption]) -> CutOption | None:
    """The fitting option with the shortest step, for a device that has a helper for itself; None where none fits."""
    return min((option for option in options if option.fits), key=lambda option: option.cost.seconds, default=None)


def flops_of(profile: Profile) -> float:
    """What a machine of this kind does in training, in floating point operations a second."""
    return 1e6 * profile.simulation.training_mflops * profile.worker.cpu_share


def _party(profile: Profile, helper_flops: float) -> Party:
    link = profile.simulation
    bytes_of_kbit = 1000 / 8
    return Party(
        flops_of(profile),
        bytes_of_kbit * link.uplink_kbit_s,
        bytes_of_kbit * link.downlink_kbit_s,
        link.latency_ms / 1000,
        helper_flops,
    )


def _most_samples(task: TaskDescription, profile: Profile) -> int:
    """As many as the store keeps at most, by their number and by their bytes."""
    one = 4 * task.input.size
    return min(profile.store.maximum_samples, profile.store.maximum_mib * MIB // one)
