"""The predictor: loads a version once, answers each sample that comes on its standard input, and ends with it.

The agent starts it when something is asked and closes its input when nothing has been for a while.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.drawn_models import DrawnModels
from bundle_runtime.runner import BundleRunner
from edge_agent.training.confinement import limit, shut_in
from edge_agent.worker.contract import LENGTH_BYTES
from edge_agent.worker.prediction import (
    PredictionFailure,
    PredictorJob,
    Reply,
    Scores,
    read_job,
    write_reply,
)
from fleet_host.child_process import die_with
from fleet_protocol.bundle_files import verify_blob
from fleet_protocol.codec import device_model, read_distribution, read_model
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.sample_schema import WHOLE_ROW
from fleet_protocol.task_description import TaskDescription

EXPECTED_ERRORS = (ConfigurationError, ProtocolError, MemoryError, OSError)
"""What may keep a version from predicting. Anything else is a defect, whose traceback the agent reports."""


class Predictor:
    """One version, ready to answer.

    Raises:
        ConfigurationError, ProtocolError, OSError: a file can't be used.
    """

    def __init__(self, job: PredictorJob) -> None:
        self._task = job.description
        self._job = job
        files = {name: Path(path) for name, path in job.files.items()}
        for name, path in files.items():
            verify_blob(name, path.read_bytes(), self._task.files[name])
        version = Path(job.weights).read_bytes()
        model = read_model(version, self._task, job.cluster)
        self._weights = device_model(model, job.own, self._task)
        self._drawn = _drawn_models(version, self._task)
        shut_in(files.values(), None)
        self._runner = BundleRunner(self._task, files, job.threads)

    def answer(self, inputs: bytes) -> Reply:
        """The scores of one sample, whose inputs the agent has checked."""
        row = np.frombuffer(inputs, np.float32).reshape(1, *self._task.input.shape)
        try:
            features = self._runner.features(row)
            if self._drawn is not None:
                scores, spread = self._drawn.predict(lambda model: self._runner.predict_features(model, features))
                return Scores({WHOLE_ROW: _listed(scores)}, {WHOLE_ROW: _listed(spread)})
            values = {
                head: self._scores(head, features, off_by=label.kind == "reconstruction")
                for head, label in self._task.each_label.items()
            }
        except EXPECTED_ERRORS as error:
            return PredictionFailure(_words(error, self._job))
        return Scores({head: _listed(each) for head, each in values.items()})

    def _scores(self, head: str, features: NDArray[np.float32], *, off_by: bool) -> NDArray[np.float32]:
        scores = self._runner.predict_features(self._weights, features, head)
        return scores - features.reshape(scores.shape) if off_by else scores


def _drawn_models(version: bytes, task: TaskDescription) -> DrawnModels | None:
    """Of a task whose model is a distribution over weights."""
    if task.posterior is None:
        return None
    mean, deviation = read_distribution(version, task, task.posterior)
    return DrawnModels(mean, deviation, task.posterior.draws, task.label.is_index)


def _listed(scores: NDArray[np.float32]) -> list[float]:
    listed: list[float] = scores.astype(np.float64).ravel().tolist()
    return listed


def _words(error: Exception, job: PredictorJob) -> str:
    """onnxruntime names a lack of memory in the words of C++ alone."""
    if isinstance(error, MemoryError) or "bad_alloc" in str(error):
        return f"the predictor passed its memory limit of {job.memory_limit_mib} MiB; raise [worker] memory_limit_mib"
    return str(error)


def frames(stream: BinaryIO) -> Iterator[bytes]:
    """Their contents, up to the end of the stream."""
    while len(length := stream.read(LENGTH_BYTES)) == LENGTH_BYTES:
        yield stream.read(int.from_bytes(length, "big"))


def main() -> None:
    """Serve, and end with the agent, whose process id is the one argument."""
    die_with(int(sys.argv[1]))
    serve()


def serve() -> None:
    """Answer until standard input ends; whatever else prints goes to standard error."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0) as channel:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        asked = frames(sys.stdin.buffer)
        job = read_job(next(asked))
        try:
            limit(job)
            predictor = Predictor(job)
        except EXPECTED_ERRORS as error:
            channel.write(write_reply(PredictionFailure(_words(error, job), ends=True)))
            return
        for inputs in asked:
            channel.write(write_reply(predictor.answer(inputs)))


if __name__ == "__main__":
    main()
