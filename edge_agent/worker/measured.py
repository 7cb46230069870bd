"""What a child that measures a training step says."""

import msgspec


class MeasuredStep(msgspec.Struct, frozen=True):
    """The fastest step in seconds of one thread, its size in floating point operations, peak resident memory in MiB."""

    step_seconds: float
    operations: int
    peak_memory_mib: float
