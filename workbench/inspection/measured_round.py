"""A worker's round, its time and memory measured: `python -m workbench.inspection.measured_round BUNDLE` prints it as
JSON.

A process of its own, so that its peak memory is a worker's and not the workbench's.
"""

import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from bundle_runtime.runner import BundleRunner, bundle_paths
from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE, WEIGHTS_FILE
from fleet_protocol.codec import read_weights
from fleet_protocol.sample_rules import ValueRule, input_rule
from fleet_protocol.task_description import TaskDescription

STORED_SAMPLES = 256
ROUNDS = 3
KIB_IN_MIB = 1024


class Measurement(msgspec.Struct, frozen=True):
    """One step, and one sample's features (0 without a backbone), in milliseconds; peak resident memory in MiB."""

    step_ms: float
    feature_ms: float
    peak_memory_mib: float


def drawn_samples(task: TaskDescription) -> Samples:
    """Samples spread evenly over what the schema allows."""
    random = np.random.default_rng(0)
    drawn = [_drawn(input_rule(schema), random) for schema in task.each_input.values()]
    inputs = np.concatenate(drawn, axis=1).reshape(STORED_SAMPLES, *task.input.shape).astype(np.float32)
    sizes = [(max(label.classes, 2) if label.kind == "class" else 2, label.size) for label in task.each_label.values()]
    row = np.concatenate([random.integers(0, most, (STORED_SAMPLES, size)) for most, size in sizes], axis=1)
    return Samples(inputs, row[:, 0] if task.label.is_index else row.astype(np.float32))


def _drawn(rule: ValueRule, random: np.random.Generator) -> NDArray[np.float64]:
    values = random.uniform(rule.lowest, rule.highest, (STORED_SAMPLES, rule.count))
    return np.rint(values) if rule.whole else values


def featured(task: TaskDescription, files: Mapping[str, Path], samples: Samples) -> tuple[Samples, float]:
    """The samples as training takes them, and the processor time that the backbone took for each, in milliseconds.

    Like in a worker, the backbone is freed when it returns.
    """
    if task.backbone is None:
        return samples, 0.0
    runner = BundleRunner(task, files)
    runner.featured(samples.take(slice(1)))  # loads it
    start = time.process_time()
    made = runner.featured(samples)
    return made, (time.process_time() - start) / len(samples) * 1000


def main() -> None:
    """Run a few rounds; the fastest counts, in processor time: other processes don't."""
    folder = Path(sys.argv[1])
    task = parse_description((folder / DESCRIPTION_FILE).read_bytes())
    weights = read_weights((folder / WEIGHTS_FILE).read_bytes(), task.parameters)
    files = bundle_paths(folder, task)
    samples, feature_ms = featured(task, files, drawn_samples(task))
    engine = OnnxStepEngine.of_task(task, files)
    plan = plan_batches(STORED_SAMPLES, task.training.steps, task.training.batch_size, seed=0)
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        engine.train(weights, samples, plan, Rates.planned(task.training))
        seconds.append(time.process_time() - start)
    peak_kib = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    if peak_kib is None:  # getrusage does not help: it includes the process before exec
        raise RuntimeError("/proc/self/status has no VmHWM")
    step_ms = min(seconds) / task.training.steps * 1000
    sys.stdout.buffer.write(msgspec.json.encode(Measurement(step_ms, feature_ms, int(peak_kib[1]) / KIB_IN_MIB)))


if __name__ == "__main__":
    main()
