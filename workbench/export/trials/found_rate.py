"""The learning rate that a task lacks, found on its finished graphs and written into its description."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from bundle_runtime.runner import BundleRunner
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.bundle_files import WEIGHTS_FILE
from fleet_protocol.codec import read_weights
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription
from workbench.data.narrow_inputs import narrow_inputs
from workbench.data.samples import read_samples
from workbench.data.scale import scaled_by
from workbench.export.trials.random_samples import random_samples
from workbench.export.trials.range_test import find_learning_rate, trial

HARDLY_LEARNS: Final = (
    "the model hardly learns from these samples, and devices will do no better: normalise between its layers"
    " (LayerNorm), give it fewer of them, or check labels and inputs"
)


def with_learning_rate(
    task: TaskDescription, files: Mapping[str, bytes], data: Path | None, tell: Callable[[str], None]
) -> TaskDescription:
    """`task` with the learning rate that a range test finds on the samples in `data`, or on random ones.

    Raises:
        ConfigurationError: the samples don't fit the task, or no rate lowers the loss on them.
    """
    raw = random_samples(task) if data is None else read_samples(data, task)
    span = f"inputs from {raw.inputs.min():.3g} to {raw.inputs.max():.3g}"
    source = f"{len(raw)} random samples ({span})" if data is None else f"the {len(raw)} samples of {data}"
    samples = BundleRunner(task, files).featured(raw)
    engine = OnnxStepEngine.of_task(scaled_by(samples, task), files)
    weights = read_weights(files[WEIGHTS_FILE], task.parameters)
    try:
        found = find_learning_rate(trial(engine, weights, samples, task.training))
    except ConfigurationError as error:
        raise ConfigurationError(f"{task.task}: on {source}, {error}") from error
    tell(
        f"learning rate {found.chosen:g}, found on {source}: the loss falls from {found.first_loss:.3g} to"
        f" {found.best_loss:.3g} with {found.best:g}; to choose another, write learning_rate in [training] of task.toml"
    )
    if data and (words := narrow_inputs(raw.inputs, task)):
        tell(words)
    if found.hardly_learns:
        tell(HARDLY_LEARNS + ("" if data else "; these samples are random: try --data with real ones"))
    return msgspec.structs.replace(task, training=msgspec.structs.replace(task.training, learning_rate=found.chosen))
