"""Why a round of a simulated device would not count."""

from edge_agent.core.sample_budget import is_spent
from edge_agent.core.turns import why_not_yet
from workbench.simulation.conditions import FleetMember
from workbench.simulation.device.privacy_budget import spent_samples
from workbench.simulation.device.version_follower import SimulatedVersionFollower
from workbench.simulation.device_memory import DeviceMemory
from workbench.simulation.masks.device import why_no_round
from workbench.simulation.world import SimulatedWorld


class RoundPermits:
    """Those of one device."""

    __slots__ = ("_member", "_memory", "_number", "_versions", "_world")

    def __init__(
        self,
        world: SimulatedWorld,
        number: int,
        member: FleetMember,
        memory: DeviceMemory,
        versions: SimulatedVersionFollower,
    ) -> None:
        self._world = world
        self._number = number
        self._member = member
        self._memory = memory
        self._versions = versions

    @property
    def may_be_drawn(self) -> bool:
        """Whether an experiment that has devices train may choose this one."""
        count = self._world.workload.count(self._number)
        return self._member.holds_enough(count) and not (self._is_spent or self._waits_its_turn)

    def why_not_yet(self, newest: int, cohort: bytes) -> str | None:
        """Why an update would not count now, in words, where the task takes few of one device or sums cohorts."""
        task, memory = self._world.task, self._memory
        waits = bool(memory.outbox)
        if task.masks is not None:
            bundle = memory.known.bundle if memory.known else ""
            return why_no_round(task, bundle, cohort, memory.noised, self._member.owner, waits=waits)
        if (plan := task.device_privacy) is None:
            return None
        return why_not_yet(plan, memory.turns, newest, waiting=len(memory.outbox))

    @property
    def _is_spent(self) -> bool:
        """Whether it has trained on its samples as often as it may, and no new one has come."""
        memory, task = self._memory, self._world.task
        told_all = 0 < memory.newest_sample <= spent_samples(memory.charges, task, self._member.owner)
        return told_all or (not memory.new_samples and is_spent(task.training, memory.epochs))

    @property
    def _waits_its_turn(self) -> bool:
        """Whether an update would not count behind the newest version, where the task takes few of one device; or no
        cohort would sum it; or others are selected.
        """
        task, coordinator = self._world.task, self._world.coordinator
        if task.selection is not None and self._versions.why_not_asked(self._world.newest):
            return True
        cohort = coordinator.manifest().cohort if task.masks else b""
        return self.why_not_yet(coordinator.version, cohort) is not None
