"""What the training child may use."""

import math
from typing import Annotated

import msgspec

from edge_agent.worker.contract import EngineName
from fleet_protocol.bundle import PositiveInt, PositiveSeconds

MAX_THREADS = 1024
"""More than any device or gateway has cores for; beyond, the library would try to start as many."""


class WorkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the training child may use."""

    threads: Annotated[int, msgspec.Meta(ge=1, le=MAX_THREADS)] = 1
    """Threads of the training."""
    cpu_share: Annotated[float, msgspec.Meta(ge=0.01, le=1)] = 1.0
    """Once its libraries are loaded, it runs for this share of the time only: devices get hot, or run on batteries."""
    nice: Annotated[int, msgspec.Meta(ge=0, le=19)] = 10
    """Its nice level."""
    memory_limit_mib: PositiveInt = 512
    """Most memory, in MiB."""
    time_limit_seconds: PositiveSeconds = 300.0
    """It is ended after so many seconds."""
    engine: EngineName = "onnx-step"
    """What it trains with (docs/training-engines.md)."""

    @property
    def cpu_limit_seconds(self) -> int:
        """Processor time that no round within the time limit uses: for a worker that nobody kills any more."""
        return 1 + math.ceil(self.threads * self.time_limit_seconds)
