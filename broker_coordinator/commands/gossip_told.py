"""What operators are told of tasks that devices learn by gossip, and which commands have nothing to do with these."""

from sqlalchemy import Engine

from broker_coordinator.distribution.places import why_not_all
from broker_coordinator.storage.roster_registry import RosterRegistry
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription


def gossip_told(engine: Engine, task: TaskDescription) -> dict[str, object]:
    """Who is whose neighbour, and how many devices are in which roster; nothing of a task that a coordinator makes
    versions of.
    """
    plan = task.gossip
    if plan is None:
        return {}
    drawn = f", seed {plan.seed}" if plan.topology == "random" else ""
    roster = RosterRegistry(engine).published(task.task)
    return {
        "gossip": f"{plan.topology}, {plan.rule}{drawn}: devices learn from each other, and no versions are made",
        "roster": roster.number if roster else None,
        "roster_devices": len(roster.members) if roster else 0,
    }


def gossip_advice(engine: Engine, task: TaskDescription) -> list[str]:
    """Why nobody or not everybody who is approved learns such a task."""
    if task.gossip is None:
        return []
    return why_not_all(task.gossip.topology, RosterRegistry(engine).candidates())


def require_versions(registry: TaskRegistry, name: str, command: str) -> None:
    """Refuse a command that needs versions or updates, which the coordinator has not of every task.

    Raises:
        ConfigurationError: there is no such task, or devices learn it by gossip.
    """
    if registry.description(name).gossip is not None:
        raise ConfigurationError(
            f"{command} {name}: devices learn this task by gossip, so the coordinator has no versions of it and no"
            " updates; each device has the model that it predicts with (edge-agent status), and the roster says who"
            f" learns it (broker-coordinator tasks show {name})"
        )


def kept_by_neighbours(registry: TaskRegistry, device: str) -> str:
    """What forgetting a device does not take out, in a sentence; empty where no task is learned by gossip."""
    named = [each.name for each in registry.tasks() if registry.description(each.name).gossip is not None]
    if not named:
        return ""
    return (
        f"of {', '.join(named)}, which devices learn by gossip, other devices keep what they learned from {device};"
        " to begin such a task anew, publish it with another `seed` in [gossip] of task.toml"
    )
