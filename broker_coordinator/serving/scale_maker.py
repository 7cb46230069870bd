"""Publishes the scale that a task has awaited, as its next generation."""

from broker_coordinator.aggregation.fleet_scale import constant_targets
from broker_coordinator.consumers.statistics import read_scale
from broker_coordinator.serving.awaited_scale import NextScale
from broker_coordinator.serving.task_changes import say_constant_targets, say_scale
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.journal import TasksChangedError
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle


class ScaleMaker:
    """Of all tasks in a registry. Every method raises JournalUnavailableError where the database fails."""

    def __init__(self, registry: TaskRegistry, devices: DeviceRegistry) -> None:
        self._registry = registry
        self._devices = devices

    def approved_devices(self) -> int:
        """How many devices could report."""
        return self._devices.approved_count()

    def publish(self, before: Bundle, scale: NextScale) -> None:
        """Serve the bundle with its scale in place of the one `before`, unless an operator has changed the task."""
        made = scale.aggregate
        try:
            task = self._registry.publish_rescaled(
                scale.bundle,
                made.aggregate,
                before=before.hash,
                payload_count=made.payload_count,
                last_position=made.last_position,
            )
        except TasksChangedError:
            return
        say_scale(task, read_scale(made.aggregate.state))
        say_constant_targets(task.name, constant_targets(before.description, scale.bundle.description))
