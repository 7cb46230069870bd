"""Who takes part in the month, and with which settings; limits are small, so that the month reaches them."""

from dataclasses import dataclass
from pathlib import Path

from bundle_runtime.bundle import Bundle
from edge_agent.configuration import AgentConfiguration, TaskSettings
from edge_agent.core.guards import GuardSettings
from edge_agent.core.store_settings import StoreSettings
from edge_agent.core.triggers import TriggerSettings
from edge_agent.sources.settings import SourceSettings
from fleet_host.broker_settings import BrokerSettings
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.keys import VerifyKey, write_verify_key
from tests.month.device import SOURCE
from tests.support.bundles import TASK, write_bundle
from tests.support.fleet import FLEET

BRIEF = "brief"
"""A second task, which ends amid the month."""
KEPT_SAMPLES = 256
WAITING_ROOM = 3
"""Of `tests.month.device.ROOM`: some ten updates."""


@dataclass(frozen=True, slots=True)
class Member:
    """What one device has of its own."""

    name: str
    store: StoreSettings
    trigger: TriggerSettings
    guards: GuardSettings
    encrypt_updates: bool = False


def _guards(**own) -> GuardSettings:
    return GuardSettings(
        minimum_samples=4,
        maximum_waiting_updates=100,
        maximum_waiting_mib=WAITING_ROOM,
        minimum_free_memory_mib=None,
        recheck_seconds=600,
        **own,
    )


MEMBERS = (
    Member(
        "attic",
        StoreSettings(maximum_samples=KEPT_SAMPLES, maximum_mib=1024),
        TriggerSettings(new_samples=12),
        _guards(),
    ),
    Member(
        "barn",
        StoreSettings(maximum_samples=5000, maximum_mib=KEPT_SAMPLES * 32 // 1024, retention="reservoir"),
        TriggerSettings(new_samples=20, schedule="30 2 * * *"),
        _guards(daily_cpu_seconds=100),
    ),
    Member(
        "cellar",
        StoreSettings(maximum_samples=KEPT_SAMPLES, maximum_mib=1024, retention="balanced"),
        TriggerSettings(new_samples=8, new_version=True),
        _guards(quiet_hours=["22:00-07:30"]),
        encrypt_updates=True,
    ),
)


def configuration_of(member: Member, folder: Path, coordinator_key: VerifyKey) -> AgentConfiguration:
    """Its agent.toml."""
    home = folder / member.name
    home.mkdir()
    return AgentConfiguration(
        fleet=FLEET,
        device=member.name,
        key_file=home / "device.key",
        coordinator_key=write_verify_key(coordinator_key),
        state_folder=home / "state",
        sample_socket=home / "socket",
        broker=BrokerSettings("broker.example"),
        tasks=[TaskSettings(TASK, member.trigger), TaskSettings(BRIEF, TriggerSettings(new_samples=6))],
        encrypt_updates=member.encrypt_updates,
        guards=member.guards,
        store=member.store,
        sources=[SourceSettings(SOURCE, task) for task in (TASK, BRIEF)],
    )


@dataclass(frozen=True, slots=True)
class Bundles:
    """Those of the two tasks, and what takes the place of the first amid the month."""

    first: Bundle
    brief: Bundle
    second: Bundle


def write_bundles(folder: Path) -> Bundles:
    """Two updates make a version, and updates soon become stale."""
    plan = AggregationPlan(buffer_size=2, max_staleness=3)
    return Bundles(
        write_bundle(folder / "first", aggregation=plan),
        write_bundle(folder / "brief", task=BRIEF, aggregation=plan),
        write_bundle(folder / "second", aggregation=plan, graph_bytes=300),
    )
