"""One contestant of `benchmarks.train_step` in a process of its own: a round per line on standard input.

    python -m benchmarks.train_step_child FOLDER ENGINE ROUNDS TORCH_FOLDER

It prints each round's seconds of processor time, and at the end its peak resident memory. `python-api` is
onnxruntime-training as its documentation uses it; its import needs torch, which is found in TORCH_FOLDER.
"""

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, plan_batches
from fleet_protocol.bundle_files import ORT_CHECKPOINT_FILE, ORT_OPTIMISER_FILE, ORT_TRAINING_FILE, TRAIN_FILE

STEPS = 50
BATCH = 16
LEARNING_RATE = 0.05
CLASSES = 10
ORT_FILES = (ORT_TRAINING_FILE, ORT_OPTIMISER_FILE, ORT_CHECKPOINT_FILE)


def make_round(folder: Path, engine: str) -> Callable[[], object]:
    """One round of `STEPS` steps on the data in `folder`."""
    data = np.load(folder / "data.npz")
    samples = Samples(data["inputs"], data["labels"])
    weights = data["weights"]
    plan = plan_batches(len(samples.labels), STEPS, BATCH, 0)
    rates = Rates(LEARNING_RATE)
    if engine == "onnx-step":
        from edge_agent.training.onnx_step import OnnxStepEngine  # noqa: PLC0415

        stock = OnnxStepEngine(folder / TRAIN_FILE, 1)
        return lambda: stock.train(weights, samples, plan, rates)
    if engine == "ort-training":
        from edge_agent.training.ort_training import OrtTrainingEngine  # noqa: PLC0415

        training = OrtTrainingEngine({name: folder / name for name in ORT_FILES}, CLASSES, 1)
        module, optimiser = training.open_sessions(weights)
        optimiser.set_learning_rate(LEARNING_RATE)
        return lambda: training.run_steps(module, optimiser, {}, samples, plan)
    return python_api_round(folder, samples, plan.rows, weights)


def python_api_round(folder: Path, samples: Samples, rows: np.ndarray, weights: np.ndarray) -> Callable[[], object]:
    """The same with the documented classes."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime  # noqa: PLC0415
    from onnxruntime.training.api import CheckpointState, Module, Optimizer  # noqa: PLC0415

    state = CheckpointState.load_checkpoint(str(folder / ORT_CHECKPOINT_FILE))
    module = Module(str(folder / ORT_TRAINING_FILE), state)
    module.copy_buffer_to_parameters(onnxruntime.OrtValue.ortvalue_from_numpy(weights)._ortvalue, False)
    optimiser = Optimizer(str(folder / ORT_OPTIMISER_FILE), module)
    optimiser.set_learning_rate(LEARNING_RATE)
    row_weights = np.full(BATCH, 1 / BATCH, np.float32)

    def run() -> None:
        for row in rows:
            module(samples.inputs[row], samples.labels[row], row_weights)
            optimiser.step()
            module.lazy_reset_grad()

    return run


def main() -> None:
    """Run a round whenever told to."""
    folder, engine, rounds, torch_folder = sys.argv[1:]
    if engine == "python-api":
        sys.path.append(torch_folder)
    run = make_round(Path(folder), engine)
    for _ in range(int(rounds)):
        sys.stdin.readline()
        start = time.process_time()
        run()
        print(time.process_time() - start, flush=True)
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    print(f"peak_kib {peak[1] if peak else 0}", flush=True)


if __name__ == "__main__":
    main()
