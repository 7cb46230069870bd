"""The messages between the agent and its predictor: a child that stays for a while and answers one sample at a time.

Frames as in `worker.contract`, in both directions: the job, then inputs as float32 in bytes; back comes a `Scores` or a
`PredictionFailure` for each of them.
"""

import msgspec

from edge_agent.worker.contract import LENGTH_BYTES
from fleet_protocol.bundle_files import BACKBONE_FILE, PREDICT_FILE
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.limits import MIB
from fleet_protocol.task_description import TaskDescription

MAX_ANSWER_BYTES = 64 * MIB
"""The scores of one sample: a picture of a thousand values a side in sixteen classes."""


def predicting_files(task: TaskDescription) -> tuple[str, ...]:
    """What a device needs of a bundle to predict, besides the weights."""
    return (PREDICT_FILE, BACKBONE_FILE) if task.backbone else (PREDICT_FILE,)


class PredictorJob(msgspec.Struct, frozen=True):
    """What a predictor loads, and what it may use; `files` has those of `predicting_files`, by their names."""

    description: TaskDescription
    files: dict[str, str]
    weights: str
    threads: int
    nice: int
    memory_limit_mib: int
    cpu_limit_seconds: int
    cluster: int = NO_CLUSTER
    """Whose copy of the parameters it is, where the task has copies."""
    own: bytes = b""
    """What the device keeps of the model to itself, where the task has it keep something."""


class Scores(msgspec.Struct, frozen=True, tag="scores"):
    """What the model says of one sample: by each head's name, all values in C order, as `predict.onnx` gives them.

    Of a head that gives back its inputs, how far each value is off. `spreads` are of a task whose model is a
    distribution over weights: by how much the models drawn from it differ in each probability, or number.
    """

    values: dict[str, list[float]]
    spreads: dict[str, list[float]] = {}


class PredictionFailure(msgspec.Struct, frozen=True, tag="failure"):
    """Why there are none; `ends`: the predictor can't answer any other sample either."""

    error: str
    ends: bool = False


Reply = Scores | PredictionFailure
_REPLIES: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def frame(body: bytes) -> bytes:
    """With its length in front."""
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def write_job(job: PredictorJob) -> bytes:
    """The first frame."""
    return frame(msgspec.msgpack.encode(job))


def read_job(body: bytes) -> PredictorJob:
    """The other end of `write_job`, without the length."""
    return msgspec.msgpack.decode(body, type=PredictorJob)


def write_reply(reply: Reply) -> bytes:
    """The answer to one sample."""
    return frame(msgspec.msgpack.encode(reply))


def read_reply(body: bytes) -> Reply:
    """The other end of `write_reply`, without the length.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _REPLIES.decode(body)
