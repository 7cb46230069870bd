"""What the agent tells its training worker, and what it hears back. Neither side imports more than msgspec here."""

import msgspec

from fleet_protocol.bundle import TaskDescription


class PackedFile(msgspec.Struct, frozen=True):
    """Weights as they came: a difference from the file `base` (empty for none) to the one with this hash, in hex."""

    base: str
    difference: bytes
    sha256: str


class TrainingJob(msgspec.Struct, frozen=True):
    """One round, and what the process that runs it may use.

    Paths are given as text; `residual` is the state of the error feedback, empty at first; `seed` picks the batches.
    """

    description: TaskDescription
    train_graph: str
    weights: str
    sample_store: str
    residual: bytes
    returned: list[bytes]
    seed: int
    threads: int
    nice: int
    memory_limit_mib: int
    packed: PackedFile | None = None
    """What to unpack into the file `weights` first."""


class TrainingResult(msgspec.Struct, frozen=True, tag="result"):
    """A finished round. `packed` is the update, `residual` what it leaves behind; `loss` is the mean over the steps."""

    packed: bytes
    residual: bytes
    samples: int
    steps: int
    trained_through: int
    loss: float


class TrainingFailure(msgspec.Struct, frozen=True, tag="failure"):
    """The round was dropped, in words; the weights and the residual stay as they were."""

    error: str


class RebuildFailure(msgspec.Struct, frozen=True, tag="rebuild_failure"):
    """Nothing was trained, as the packed weights could not be unpacked, in words: the whole weights will do."""

    error: str


Verdict = TrainingResult | TrainingFailure | RebuildFailure
_VERDICTS: msgspec.msgpack.Decoder[Verdict] = msgspec.msgpack.Decoder(Verdict)


def write_job(job: TrainingJob) -> bytes:
    """For the worker's standard input."""
    return msgspec.msgpack.encode(job)


def read_job(data: bytes) -> TrainingJob:
    """The other end of `write_job`."""
    return msgspec.msgpack.decode(data, type=TrainingJob)


def write_verdict(verdict: Verdict) -> bytes:
    """For the worker's standard output."""
    return msgspec.msgpack.encode(verdict)


def read_verdict(data: bytes) -> Verdict:
    """The other end of `write_verdict`.

    Raises:
        msgspec.DecodeError: the worker died before it had written everything.
    """
    return _VERDICTS.decode(data)
