"""Real training of a simulated fleet with and without Ray: `python -m benchmarks.simulation_ray [--hours 24]`.

The command `edgeflock simulate` trains a fleet of `pi-4` and `pi-zero-2w` on made-up samples, once in one process and
once with `--ray` on the CPUs of this machine, in turn: seconds of wall clock, the start of both included. Small rounds
(`digits`: a dense network of some thousand weights) and larger ones (`keyword_dscnn`: convolutions). Both must write
the same bytes, else it ends with an error. Prints one JSON object as its last line; `speedup` is the first over the
second, of the fastest of `--repeats` each.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.task_description import TaskDescription
from workbench.recipe_folder import find_bundle

TASKS = ("digits", "keyword_dscnn")
DEVICES = 20
SAMPLES = 4_000
SEED = 1
NOISE = 0.5
FILES = ("summary.json", "history.jsonl")


def write_samples(path: Path, task: TaskDescription) -> None:
    """Samples around one made-up input for each class."""
    generator = np.random.default_rng(SEED)
    assert isinstance(task.input.minimum, float)
    shape = tuple(task.input.shape)
    centres = generator.uniform(task.input.minimum, task.input.maximum, (task.label.classes, *shape))
    labels = generator.integers(0, task.label.classes, SAMPLES)
    inputs = centres[labels] + NOISE * generator.standard_normal((SAMPLES, *shape))
    np.savez(path, inputs=np.clip(inputs, task.input.minimum, task.input.maximum).astype(np.float32), labels=labels)


def seconds_of(task: str, data: Path, hours: float, out: Path, *further: str) -> float:
    """Wall clock of one command."""
    command = [sys.executable, "-m", "workbench.cli", "simulate", "--task", task, "--data", str(data)]
    options = ["--devices", str(DEVICES), "--hours", str(hours), "--seed", str(SEED), "--score-every", "50"]
    profiles = ["--profile", "pi-4", "--profile", "pi-zero-2w"]
    begun = time.perf_counter()
    done = subprocess.run(
        [*command, *options, *profiles, "--out", str(out), *further], capture_output=True, text=True, check=False
    )
    if not (out / FILES[0]).exists():
        raise SystemExit(done.stderr)
    return time.perf_counter() - begun


def compared(task: str, hours: float, repeats: int) -> dict[str, Any]:
    """One task, both ways."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_samples(folder / "samples.npz", load_bundle(find_bundle(task)).description)
        ways: dict[str, tuple[str, ...]] = {"one_process": (), "ray": ("--ray",)}
        took: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, way in ways.items():
                took[name].append(seconds_of(task, folder / "samples.npz", hours, folder / name, *way))
        for file in FILES:
            if len({(folder / name / file).read_bytes() for name in ways}) != 1:
                raise SystemExit(f"{task}: {file} differs with Ray")
        summary = json.loads((folder / "ray" / FILES[0]).read_text())
    seconds = {name: min(each) for name, each in took.items()}
    found = {
        "task": task,
        "devices": DEVICES,
        "hours": hours,
        "updates": summary["updates"],
        "score": round(summary["score"], 4),
        "seconds": {name: [round(each, 1) for each in runs] for name, runs in took.items()},
        "speedup": round(seconds["one_process"] / seconds["ray"], 2),
        "equal_bytes": True,
    }
    print(json.dumps(found), file=sys.stderr)
    return found


def main() -> None:
    """Print what each task took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=TASKS, help="recipes")
    parser.add_argument("--hours", type=float, default=24.0, help="virtual hours of each")
    parser.add_argument("--repeats", type=int, default=2, help="of each way")
    options = parser.parse_args()
    tasks = [compared(task, options.hours, options.repeats) for task in options.tasks]
    print(json.dumps({"cores": len(os.sched_getaffinity(0)), "load_before": os.getloadavg()[0], "tasks": tasks}))


if __name__ == "__main__":
    main()
