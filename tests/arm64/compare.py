"""The agent's worker on arm64 and on this machine, given the same job: the same update must come of it.

python -m tests.arm64.compare FOLDER [RECIPE ...], after prepare.sh. Each recipe of models/ trains `STEPS` steps of its
own plan on samples drawn from its schema, in the worker process that the agent starts: natively, and under qemu-user
as each of `CPU_MODELS`. To compare numbers and not the ties of a selection, the job asks for the update uncompressed.
Prints one JSON object as its last line; ends with code 1 where a difference exceeds `TOLERANCE`.
"""

import asyncio
import json
import platform
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np

from benchmarks.one_device import WORKER, training_job
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.worker import supervisor, warm_process
from edge_agent.worker.contract import TrainingResult
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE, WEIGHTS_FILE
from fleet_protocol.codec import decode_update
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import UpdatePlan

CPU_MODELS = ("cortex-a53", "cortex-a72")
TOLERANCE = 1e-5
SAMPLES = 200
STEPS = 10
"""Fewer than a round has: an emulated core takes seconds for a step of the larger networks."""
MODELS = Path(__file__).parents[2] / "models"
UNCOMPRESSED = UpdatePlan(keep_fraction=1.0, quantisation="float32", selection="dense")
JOBS = Path("jobs")
"""Inside the arm64 root, and the same path outside: a job holds paths."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one worker made of a job: `delta` float32 [P], the mean loss, and how long the process lived."""

    delta: np.ndarray
    loss: float
    seconds: float


def compare(bundle: Path, root: Path) -> dict[str, Any]:
    """Largest differences between this machine and each model of a CPU, for one recipe."""
    description = parse_description((bundle / DESCRIPTION_FILE).read_bytes())
    training = msgspec.structs.replace(description.training, steps=STEPS, epochs_per_round=0)
    description = msgspec.structs.replace(description, training=training, update=UNCOMPRESSED)
    here = root / JOBS / description.task
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(bundle, here)
    _fill_store(here / "samples.db", description)
    native = _run(here, description, warm_process.WORKER_COMMAND)
    result: dict[str, Any] = {"parameters": description.parameter_count, "steps": description.training.steps}
    result["largest_change"] = float(np.abs(native.delta).max())
    result["x86_64_seconds"] = round(native.seconds, 1)
    for cpu in CPU_MODELS:
        print(f"{description.task}: {cpu} ...", flush=True)
        emulated = _run(Path("/") / JOBS / description.task, description, _emulated(root, cpu))
        result[cpu] = {
            "max_abs_diff": float(np.abs(emulated.delta - native.delta).max()),
            "loss_diff": abs(emulated.loss - native.loss),
            "seconds_under_qemu": round(emulated.seconds, 1),
        }
    return result


def _fill_store(path: Path, description: TaskDescription) -> None:
    """Samples spread evenly over what the schema allows, a label for each."""
    random, schema = np.random.default_rng(7), description.input
    store = SampleStore(path, SAMPLES)
    for number in range(SAMPLES):
        inputs = random.uniform(schema.minimum, schema.maximum, schema.size).astype(np.float32)
        label = number % description.label.classes if description.label.kind == "class" else b""
        store.add(description.task, inputs.tobytes(), label)
    store.close()


def _run(folder: Path, description: TaskDescription, command: tuple[str, ...]) -> Outcome:
    """One round in the worker that `command` starts; `folder` is where that worker finds the job's files.

    Raises:
        RuntimeError: the round failed.
    """
    job = training_job(folder, description, folder / WEIGHTS_FILE, folder / "samples.db")
    with mock.patch.object(warm_process, "WORKER_COMMAND", command):
        start = time.perf_counter()
        verdict = asyncio.run(supervisor.train_in_child(job, WORKER))
        seconds = time.perf_counter() - start
    if not isinstance(verdict, TrainingResult):
        raise RuntimeError(f"{description.task}: {' '.join(command[:4])} ...: {verdict.error}")  # noqa: TRY004
    delta = decode_update(verdict.packed, description.shapes)
    dense = np.zeros(description.parameter_count, np.float32)
    delta.add_to(dense)
    return Outcome(dense, verdict.loss, seconds)


def _emulated(root: Path, cpu: str) -> tuple[str, ...]:
    """The worker's command inside the arm64 root. /sys stays out of it: with it, onnxruntime crashes under qemu."""
    environment = (f"QEMU_CPU={cpu}", "PYTHONPATH=/opt/wheels:/opt/edgeflock")
    entered = ("chroot", str(root), "/usr/bin/qemu-aarch64-static", "/usr/bin/python3.11")
    return ("env", *environment, *entered, *warm_process.WORKER_COMMAND[1:])


def main() -> None:
    """Compare every recipe."""
    root = Path(sys.argv[1]).resolve() / "root"
    named = sys.argv[2:] or sorted(bundle.parent.name for bundle in MODELS.glob("*/bundle"))
    recipes = {}
    for name in named:
        recipes[name] = compare(MODELS / name / "bundle", root)
        print(f"{name}: {json.dumps(recipes[name])}", flush=True)
    worst = max(recipe[cpu]["max_abs_diff"] for recipe in recipes.values() for cpu in CPU_MODELS)
    report = {"native": platform.machine(), "tolerance": TOLERANCE, "max_abs_diff": worst, "recipes": recipes}
    print(json.dumps(report))
    if not worst <= TOLERANCE:
        sys.exit(f"the worker differs by {worst:g} between arm64 and this machine; at most {TOLERANCE:g} is allowed")


if __name__ == "__main__":
    main()
