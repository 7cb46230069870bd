"""What each cut of a task would cost a kind of device, which of them fit it, and which is best for it alone. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.profiles import Profile
from fleet_protocol.limits import MIB
from fleet_protocol.split_costs import memory_bytes
from fleet_protocol.split_plan import WHOLE, Cut
from fleet_protocol.split_step_costs import Party, StepCost, step_cost
from fleet_protocol.task_description import TaskDescription
from workbench.split_planning.round_ends import NOTHING, RoundEnd, device_round_end

BYTES_OF_KBIT = 1000 / 8


@dataclass(frozen=True, slots=True)
class Machine:
    """A device or a helper: floating point operations a second in training, its link to the broker in bytes a second
    each way, and the latency of that, one way, in seconds.
    """

    flops: float
    uplink: float
    downlink: float
    latency: float


@dataclass(frozen=True, slots=True)
class CutOption:
    """One cut on one kind of device. `memory_bytes` is what its worker would need, `limit_bytes` what it may take.

    `costs` are of a step with each helper alone, in their order; the whole step costs the same with all. `round_end` is
    what the end of a round takes, `round_seconds` that of each step for it.
    """

    cut: Cut
    memory_bytes: int
    limit_bytes: int
    costs: tuple[StepCost, ...]
    round_end: RoundEnd = NOTHING
    round_seconds: float = 0.0
    round_steps: int = 1

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

    @property
    def seconds(self) -> float:
        """Of a step, with its share of a round's end, for a device that has the best helper for itself."""
        return min(cost.seconds for cost in self.costs) + self.round_seconds

    @property
    def step_bytes(self) -> float:
        """Both ways of a step, with its share of a round's end."""
        cost, end = self.costs[0], self.round_end
        return cost.up_bytes + cost.down_bytes + (end.up_bytes + end.down_bytes) / self.round_steps


def cut_options(
    task: TaskDescription, profile: Profile, helpers: Sequence[Machine], stored_samples: int | None = None
) -> list[CutOption]:
    """The whole step first, then every cut of a task with a `split`; without helpers the whole step alone.

    Left out, as many samples are stored as the profile keeps.

    Raises:
        ValueError: the task has no `split`.
    """
    samples = _most_samples(task, profile) if stored_samples is None else stored_samples
    cuts = [WHOLE, *(task.split.cuts if task.split and helpers else [])]
    limit = profile.worker.memory_limit_mib * MIB
    device, options = machine_of(profile), []
    for cut in cuts:
        if cut is WHOLE or cut.helper:
            needs = memory_bytes(task, cut, stored_samples=samples)
            options.append(machine_option(task, cut, device, helpers, needs=needs, limit=limit))
    return options


def machine_option(
    task: TaskDescription, cut: Cut, device: Machine, helpers: Sequence[Machine], *, needs: int = 0, limit: int = 0
) -> CutOption:
    """One cut on a device whose worker `needs` so many bytes, and may take `limit`.

    Raises:
        ValueError: the task has no `split`.
    """
    machines = (helpers or [device]) if cut.helper else [device]
    cost_of = {each: step_cost(task, cut, _party(device, each)) for each in set(machines)}
    end = device_round_end(task, cut)
    seconds = (end.up_bytes / device.uplink + end.down_bytes / device.downlink) / task.training.steps
    return CutOption(cut, needs, limit, tuple(cost_of[each] for each in machines), end, seconds, task.training.steps)


def best_alone(options: Sequence[CutOption]) -> CutOption | None:
    """The fitting option with the shortest step, for a device that has a helper for itself; None where none fits."""
    return min((option for option in options if option.fits), key=lambda option: option.seconds, default=None)


def machine_of(profile: Profile) -> Machine:
    """A machine of this kind, as far as its worker may use it."""
    link = profile.simulation
    return Machine(
        1e6 * link.training_mflops * profile.worker.cpu_share,
        BYTES_OF_KBIT * link.uplink_kbit_s,
        BYTES_OF_KBIT * link.downlink_kbit_s,
        link.latency_ms / 1000,
    )


def _party(device: Machine, helper: Machine) -> Party:
    """Alone with each other: the broker passes frames on as they come, so the narrower link counts."""
    return Party(
        device.flops,
        min(device.uplink, helper.downlink),
        min(device.downlink, helper.uplink),
        device.latency + helper.latency,
        helper.flops,
    )


def _most_samples(task: TaskDescription, profile: Profile) -> int:
    """As many as the store keeps at most, by their number and by their bytes."""
    one = 4 * task.input.size
    return min(profile.store.maximum_samples, profile.store.maximum_mib * MIB // one)
