"""How fast this machine trains: `python -m edge_agent.training.measured_step BUNDLE` prints a `MeasuredStep` as JSON.

A process of its own, so that its peak memory is a worker's.
"""

import re
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from edge_agent.worker.measured import MeasuredStep
from fleet_protocol.codec import read_weights

STORED_SAMPLES = 256
STEPS = 200
ROUNDS = 5
KIB_IN_MIB = 1024
OPERATIONS_PER_WEIGHT_AND_SAMPLE = 6
"""Of a dense layer: a multiplication and an addition, once forward and twice backward; the simulator counts so too."""


def main() -> None:
    """Run a few rounds in one thread on inputs drawn evenly; the fastest counts."""
    bundle = load_bundle(Path(sys.argv[1]))
    task = bundle.description
    random = np.random.default_rng(0)
    inputs = random.random((STORED_SAMPLES, *task.input.shape), dtype=np.float32)
    samples = Samples(inputs, random.integers(0, task.label.classes, STORED_SAMPLES))
    weights = read_weights(bundle.weights, task.parameters)
    engine = OnnxStepEngine.of_task(task, bundle.files)
    plan = plan_batches(STORED_SAMPLES, STEPS, task.training.batch_size, seed=0)
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        engine.train(weights, samples, plan, Rates.planned(task.training))
        seconds.append(time.perf_counter() - start)
    peak_kib = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    operations = OPERATIONS_PER_WEIGHT_AND_SAMPLE * task.parameter_count * task.training.batch_size
    found = MeasuredStep(min(seconds) / STEPS, operations, int(peak_kib[1]) / KIB_IN_MIB if peak_kib else 0.0)
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
