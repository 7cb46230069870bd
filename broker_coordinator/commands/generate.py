"""`broker-coordinator generate TASK FOLDER`: synthesises data of what devices told, trains on it, publishes a version.

A process of `prompt_synthesis` does the work; it is started by its name, and the coordinator imports nothing of it.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from fleet_host.child_process import bound
from fleet_host.command_line import Verbs, add_verb, name_of, whole_number
from fleet_protocol.limits import MAX_SETTING

MODULE: Final = "prompt_synthesis"
MOST_SAMPLES: Final = 100_000
"""Of each class."""
MOST_EPOCHS: Final = 10_000
MOST_REPLAYS: Final = 10_000
MOST_THREADS: Final = 256


class GenerateJob(msgspec.Struct, frozen=True):
    """What the command line asks for. `generator` is empty where it is the task's own."""

    task: str
    folder: str
    generator: str
    count: int
    seed: int
    epochs: int
    data_only: bool
    replays: int
    replay_epochs: int
    threads: int
    json: bool


def add_parser(verbs: Verbs, *parents: argparse.ArgumentParser) -> None:
    """The verb."""
    sentence = "Synthesise training data of devices' prompts, train on it, and publish the result as a version."
    generate = add_verb(verbs, "generate", sentence, *parents)
    generate.add_argument("task", type=name_of("task"), metavar="TASK", help="the task's name")
    generate.add_argument("folder", type=Path, metavar="FOLDER", help="for the data; what is there is not made again")
    generate.add_argument("--generator", default="", metavar="NAME", help="not the task's own")
    options = {
        "count": (200, MOST_SAMPLES, "N", "samples of each class (200)"),
        "seed": (0, MAX_SETTING, "N", "of all that is drawn (0)"),
        "epochs": (20, MOST_EPOCHS, "N", "how often training goes over the data (20)"),
        "replays": (0, MOST_REPLAYS, "N", "train on the data again behind so many versions of the devices' own (0)"),
        "replay-epochs": (2, MOST_EPOCHS, "N", "how often each of these goes over the data (2)"),
        "threads": (1, MOST_THREADS, "N", "of the computation (1)"),
    }
    for name, (usual, most, metavar, words) in options.items():
        least = 0 if name in ("seed", "replays") else 1
        kind = whole_number(least, most)
        generate.add_argument(f"--{name}", type=kind, default=usual, metavar=metavar, help=words)
    generate.add_argument("--data-only", action="store_true", help="publish nothing: write the data and the report")
    generate.add_argument("--json", action="store_true", help="print one JSON value")


def run(options: argparse.Namespace) -> int:
    """Wait for the process to end; returns its exit status."""
    job = GenerateJob(
        options.task,
        str(options.folder.absolute()),  # a generator may change the process's folder
        options.generator,
        options.count,
        options.seed,
        options.epochs,
        options.data_only,
        options.replays,
        options.replay_epochs,
        options.threads,
        options.json,
    )
    sys.stdout.flush()
    command = [sys.executable, "-P", "-m", MODULE, str(options.config.absolute()), msgspec.json.encode(job).decode()]
    with subprocess.Popen(bound(command)) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:  # the child has it too, and ends by itself
            return child.wait()
