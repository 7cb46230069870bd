"""What the agent tells its training worker, and what it hears back. Neither side imports more than msgspec here."""

import msgspec

from fleet_protocol.bundle import TaskDescription


class TrainingJob(msgspec.Struct, frozen=True):
    """One round, and what the process that runs it may use.

    Paths are given as text, `backbone` is empty if the task has none; `residual` is the state of the error feedback,
    empty at first; `seed` picks the batches.
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
    backbone: str = ""


class TrainingResult(msgspec.Struct, frozen=True, tag="result"):
    """A finished round. `packed` is the update, `residual` what it leaves behind; `loss` is the mean over the steps.

    `life` is the error feedback's. `features_computed` counts the samples that the backbone saw in this round; the
    others' features were there.
    """

    packed: bytes
    residual: bytes
    samples: int
    steps: int
    trained_through: int
    loss: float
    life: int = 0
    features_computed: int = 0


class TrainingFailure(msgspec.Struct, frozen=True, tag="failure"):
    """The round was dropped, in words; the weights and the residual stay as they were."""

    error: str


Verdict = TrainingResult | TrainingFailure
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
