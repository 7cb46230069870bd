"""What the training child may use."""

from typing import Annotated

import msgspec

from edge_agent.worker.contract import EngineName
from fleet_protocol.bundle import PositiveFloat, PositiveInt


class WorkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[worker]` of agent.toml: the child's limits, and the engine that it trains with (docs/training-engines.md).

    With a `cpu_share` below 1 it runs for that share of the time only, once its libraries are loaded: for devices that
    get hot, or run on batteries.
    """

    threads: PositiveInt = 1
    cpu_share: Annotated[float, msgspec.Meta(ge=0.01, le=1)] = 1.0
    nice: Annotated[int, msgspec.Meta(ge=0, le=19)] = 10
    memory_limit_mib: PositiveInt = 512
    time_limit_seconds: PositiveFloat = 300.0
    engine: EngineName = "onnx-step"
