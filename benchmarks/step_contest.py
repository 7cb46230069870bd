"""What a training step costs to several contestants, who take turns.

Times are medians over the rounds, of the processor time of one thread, so that whatever else the machine does hits all
alike.
"""

import contextlib
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from fleet_protocol.errors import ConfigurationError
from workbench.export.ort_training import ort_training_files
from workbench.export.recipe.recipe import Recipe

STEPS = 50
"""Of one round."""
BATCH = 16
WARM_UP_ROUNDS = 2
TREE = Path(__file__).parents[1]
ORT_PYTHON = TREE / ".venv-ort" / "bin" / "python"


def write_artifacts(recipe: Recipe, ort_python: Path, folder: Path) -> str:
    """Write what onnxruntime-training needs; returns why it can't, or nothing."""
    try:
        files = ort_training_files(recipe, ort_python)
    except ConfigurationError as error:
        return str(error)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return ""


def child_command(python: Path, folder: Path, engine: str, rounds: int) -> list[str]:
    """What runs `benchmarks.train_step_child`."""
    torch_folder = str(Path(torch.__file__).parents[1])
    return [str(python), "-m", "benchmarks.train_step_child", str(folder), engine, str(rounds), torch_folder]


@contextlib.contextmanager
def ort_rounds(python: Path, folder: Path, rounds: int) -> Iterator[Iterator[float]]:
    """Each `next` lets the other process run one round, and is its seconds; there is none if it can't run the model."""
    command = child_command(python, folder, "ort-training", rounds + WARM_UP_ROUNDS)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TREE) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the process was started without pipes")
        stdin, stdout = process.stdin, process.stdout

        def run() -> Iterator[float]:
            while process.poll() is None:
                stdin.write("go\n")
                stdin.flush()
                if not (said := stdout.readline()):
                    return
                yield float(said)

        yield run()
        stdin.close()
        stdout.read()  # its last line is of no interest here, but must find a reader


def medians(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Microseconds per step of each; they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + WARM_UP_ROUNDS):
        for name, run in contestants.items():
            took = run()
            if number >= WARM_UP_ROUNDS:
                seconds[name].append(took)
    return {name: round(statistics.median(took) / STEPS * 1e6, 1) for name, took in seconds.items()}


def timed(run: Callable[[], object]) -> float:
    """Seconds of processor time."""
    start = time.process_time()
    run()
    return time.process_time() - start
