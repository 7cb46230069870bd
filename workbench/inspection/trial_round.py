"""One round of a bundle, tried as a device runs it: does training stay steady?

`python -m workbench.inspection.trial_round BUNDLE [SAMPLES]` prints a `Trial` as JSON: a graph that hangs or crashes
ends that process only.
"""

import sys
from pathlib import Path

import msgspec
import numpy as np

from bundle_runtime.runner import BundleRunner, bundle_paths
from bundle_runtime.samples import Samples
from edge_agent.training.engine import TrainingEngine
from edge_agent.training.onnx_step import OnnxStepEngine
from edge_agent.training.round import DivergedError, Earlier, learn, train_round
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE, WEIGHTS_FILE
from fleet_protocol.codec import read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.remedies import STEADIER_TRAINING
from fleet_protocol.task_description import TaskDescription
from workbench.data.samples import read_samples
from workbench.data.scale import scaled_by
from workbench.inspection.child import run_child
from workbench.inspection.measured_round import drawn_samples

LOSS_GROWTH = 2.0
"""Training that only fails to learn leaves the loss about where it was; one that more than doubles it overshoots."""
PART_OF_A_ROUND = 4
"""The mean loss of the last quarter of the steps is compared with that of the first."""


class Trial(msgspec.Struct, frozen=True):
    """`samples` says what was trained on, `unsteady` what went wrong, with the remedy: None where nothing did."""

    samples: str
    unsteady: str | None


def try_round(bundle: Path, task: TaskDescription, samples: Path | None) -> Trial:
    """Run the trial in a process of its own, on a file of samples or on inputs spread over what the schema allows.

    Raises:
        ConfigurationError: the file does not hold samples of the task, or the graph does not train.
    """
    if samples is not None:
        read_samples(samples, task)  # what is wrong with it is said here, in its own words
    return run_child("workbench.inspection.trial_round", [bundle, *filter(None, [samples])], Trial, task.task)


def why_unsteady(engine: TrainingEngine, weights: FloatVector, samples: Samples, task: TaskDescription) -> str | None:
    """What goes wrong in a round from `weights` f32[P], with the remedy; None where nothing does.

    Raises:
        EngineError, GraphError: bundle and samples contradict each other.
    """
    losses: list[FloatVector] = []

    def note(_: int, seen: FloatVector) -> None:
        losses.append(seen)

    try:
        if task.posterior is not None:  # what is sent is a factor, which takes versions with precisions: f32[P + H]
            learn(engine, weights, samples, task, 0, on_progress=note)
        else:
            train_round(engine, weights, samples, task, Earlier(b"", (), 0, 1), on_progress=note)
    except DivergedError as error:
        return str(error)
    growth = _growth(losses[-1], task.training.learning_rate)
    return growth and f"{growth}; {STEADIER_TRAINING}"


def _growth(losses: FloatVector, learning_rate: float) -> str | None:
    part = max(1, len(losses) // PART_OF_A_ROUND)
    first, last = float(np.mean(losses[:part])), float(np.mean(losses[-part:]))
    if not last > LOSS_GROWTH * first > 0:
        return None
    return f"in {len(losses)} steps with learning rate {learning_rate:g} the loss rises from {first:.3g} to {last:.3g}"


def main() -> None:
    """Try the bundle on what the command line names."""
    folder, *file = map(Path, sys.argv[1:])
    task = parse_description((folder / DESCRIPTION_FILE).read_bytes())
    files = bundle_paths(folder, task)
    raw = read_samples(file[0], task) if file else drawn_samples(task)
    span = f"inputs from {np.nanmin(raw.inputs):.4g} to {np.nanmax(raw.inputs):.4g}"
    told = f"the {len(raw)} samples of {file[0]}, {span}" if file else f"{span}, spread evenly over the schema's bounds"
    weights = read_weights((folder / WEIGHTS_FILE).read_bytes(), task.parameters)
    samples = BundleRunner(task, files).featured(raw)
    task = scaled_by(samples, task)
    found = Trial(told, why_unsteady(OnnxStepEngine.of_task(task, files), weights, samples, task))
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
