"""Fleets in virtual time for tests: devices of one kind, the digits task, and a workload that needs no training."""

from pathlib import Path

import msgspec

from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from edge_agent.core.guards import GuardSettings
from fleet_protocol.codec import read_weights
from fleet_protocol.selection_plan import SelectionPlan
from workbench.simulation.conditions import Conditions, FleetMember
from workbench.simulation.workload import Workload, synthetic_workload

BUNDLE = load_bundle(Path(__file__).parents[2] / "models" / "digits" / "bundle")
HOUR = 3600.0
STEADY = Conditions(
    training_mflops=1000.0,
    start_seconds=5.0,
    uplink_kbit_s=1000.0,
    downlink_kbit_s=1000.0,
    latency_ms=20.0,
    samples_per_hour=240.0,
)


def fleet(devices: int, **changes: float) -> list[FleetMember]:
    """Devices of one kind."""
    return [FleetMember(msgspec.structs.replace(STEADY, **changes), GuardSettings())] * devices


def bundle(
    *,
    keep_fraction: float = 0.02,
    versions_from: str = "update",
    maximum_epochs: int = 0,
    selection: SelectionPlan | None = None,
    **aggregation: object,
) -> Bundle:
    """The digits task with other plans, and rounds of its 60 steps, however few samples there are."""
    task = BUNDLE.description
    plan = {"strategy": "fedbuff", "buffer_size": 4, "max_staleness": 1000, "averaged_versions": 1} | aggregation
    return Bundle(
        msgspec.structs.replace(
            task,
            update=msgspec.structs.replace(task.update, keep_fraction=keep_fraction),
            aggregation=msgspec.structs.replace(task.aggregation, **plan),
            training=msgspec.structs.replace(task.training, epochs_per_round=0, maximum_epochs=maximum_epochs),
            versions_from=versions_from,
            selection=selection,
        ),
        BUNDLE.files,
    )


def workload() -> Workload:
    """The synthetic one."""
    return synthetic_workload(read_weights(BUNDLE.weights, BUNDLE.description.parameters), seed=1)
