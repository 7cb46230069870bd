"""What the training child may use."""

import math
from typing import Annotated

import msgspec

from edge_agent.worker.contract import EngineName
from fleet_protocol.configuration import Seconds
from fleet_protocol.limits import MAX_WAIT_SECONDS

MAX_THREADS = 256
"""More than any machine that an agent runs on has cores; each takes memory."""
MAX_MEMORY_MIB = 1024 * 1024
"""One TiB."""


class WorkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the training child may use."""

    threads: Annotated[int, msgspec.Meta(ge=1, le=MAX_THREADS)] = 1
    """Threads of the training."""
    cpu_share: Annotated[float, msgspec.Meta(ge=0.01, le=1)] = 1.0
    """Once its libraries are loaded, it runs for this share of the time only: devices get hot, or run on batteries."""
    nice: Annotated[int, msgspec.Meta(ge=0, le=19)] = 10
    """Its nice level."""
    memory_limit_mib: Annotated[int, msgspec.Meta(ge=1, le=MAX_MEMORY_MIB)] = 512
    """Most memory, in MiB."""
    time_limit_seconds: Seconds = 300.0
    """It is ended after so many seconds."""
    stay_seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_WAIT_SECONDS)] = 10.0
    """So long after a round, the worker keeps its libraries loaded, and their memory, for the next one."""
    engine: EngineName = "onnx-step"
    """What it trains with (docs/training-engines.md)."""

    @property
    def cpu_limit_seconds(self) -> int:
        """Processor time that no round within the time limit uses: for a worker that nobody kills any more."""
        return 1 + math.ceil(self.threads * self.time_limit_seconds)
