"""The training engines by their names in `agent.toml`; only the one that is used is imported."""

from collections.abc import Mapping
from pathlib import Path

from edge_agent.training.engine import EngineError, TrainingEngine
from edge_agent.training.private.engine import PrivateEngine
from edge_agent.worker.contract import EngineName, engine_files
from edge_agent.worker.installed import check_installed
from fleet_protocol.bundle_files import verify_blob
from fleet_protocol.task_description import TaskDescription


def make_engine(
    name: EngineName, files: Mapping[str, Path], task: TaskDescription, threads: int, *, samples_alone: bool = False
) -> TrainingEngine:
    """The engine, on files that are what the task description says; `samples_alone` as in `PrivateEngine`.

    Raises:
        ConfigurationError: its package isn't installed.
        ProtocolError: `WRONG_HASH`, naming the file.
        EngineError, GraphError: a file can't be loaded.
    """
    check_installed(name)
    for file in engine_files(name, task):
        verify_blob(file, files[file].read_bytes(), task.files[file])
    if task.sample_privacy is not None:
        if name != "onnx-step":
            raise EngineError(
                f"{task.task} promises privacy of samples, which engine {name} can't keep; write engine = 'onnx-step'"
                " in [worker] of agent.toml"
            )
        return PrivateEngine(task, files, threads, samples_alone=samples_alone)
    if name == "ort-training":
        from edge_agent.training.ort_training import OrtTrainingEngine  # noqa: PLC0415 - the package may be absent

        return OrtTrainingEngine(files, task.label.classes if task.label.is_index else 0, threads)
    from edge_agent.training.onnx_step import OnnxStepEngine, is_divisible  # noqa: PLC0415

    return OnnxStepEngine.of_task(task, files, threads, divisible=is_divisible(task.training))
