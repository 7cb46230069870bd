"""`edge-agent samples`: its own verbs, and what each does."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from edge_agent.configuration import AgentConfiguration
from edge_agent.sources.sample_commands import HIGHEST_NUMBER
from edge_agent.verbs.own_samples import changed_by, export_samples, forget_samples, show_stats
from fleet_host.command_line import Verbs, add_verb, whole_number
from fleet_protocol.errors import ConfigurationError

_SAMPLE_NUMBER = whole_number(1, HIGHEST_NUMBER)


def add_samples_verb(verbs: Verbs, *parents: argparse.ArgumentParser) -> None:
    """Add it, with its own verbs."""
    sentence = "Show, export, correct or forget the samples that are stored on this device."
    what = add_verb(verbs, "samples", sentence).add_subparsers(dest="what", required=True, metavar="WHAT")
    stats = add_verb(what, "stats", "Show how many samples of each task are stored.", *parents)
    stats.add_argument("--json", action="store_true", help="one JSON object")
    export = add_verb(what, "export", "Write a task's samples to a csv file on this device.", *parents)
    export.add_argument("file", type=Path, metavar="FILE", help="the file to write, readable by you alone")
    export.add_argument("--task", metavar="NAME", help="the task (the first in agent.toml)")
    export.add_argument("--numbers", action="store_true", help="with each sample's number in front")
    correct = add_verb(what, "correct", "Give a stored sample its right label; it counts as new.", *parents)
    correct.add_argument("sample", type=_SAMPLE_NUMBER, metavar="NUMBER", help="as `export --numbers` writes it")
    correct.add_argument("label", metavar="LABEL", help="as JSON, as the sample socket takes it")
    correct.add_argument("--task", metavar="NAME", help="the task (the first in agent.toml)")
    forget = add_verb(what, "forget", "Delete samples, all or some.", *parents)
    forget.add_argument("--yes", action="store_true", required=True, help="nothing else has them")
    forget.add_argument("--task", metavar="NAME", help="those of one task (of all)")
    forget.add_argument(
        "--sample", type=_SAMPLE_NUMBER, action="append", metavar="NUMBER", help="this one; several times for more"
    )


def _label(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"label {text!r} is no JSON ({error}); write 4, 0.5 or [0.5, 1]") from None


def task_of(options: argparse.Namespace, configuration: AgentConfiguration) -> str:
    """The task that a command is for, which agent.toml has to list.

    Raises:
        ConfigurationError: it does not.
    """
    tasks = [task.name for task in configuration.tasks]
    if options.task is not None and options.task not in tasks:
        raise ConfigurationError(f"--task {options.task!r}: agent.toml lists {', '.join(tasks)}")
    return options.task or tasks[0]


def _stats(options: argparse.Namespace, configuration: AgentConfiguration) -> None:
    show_stats(configuration, sys.stdout.write, as_json=options.json)


def _export(options: argparse.Namespace, configuration: AgentConfiguration) -> None:
    count = export_samples(configuration, task_of(options, configuration), options.file, numbers=options.numbers)
    sys.stdout.write(f"wrote {count} samples to {options.file}\n")


def _correct(options: argparse.Namespace, configuration: AgentConfiguration) -> None:
    question = {"command": "correct", "task": task_of(options, configuration), "sample": options.sample}
    changed = changed_by(configuration.sample_socket, question | {"label": _label(options.label)})
    sys.stdout.write(f"corrected; its number is {changed.sample} from now on\n")


def _forget(options: argparse.Namespace, configuration: AgentConfiguration) -> None:
    task = task_of(options, configuration)
    tasks = [task] if options.task else [each.name for each in configuration.tasks]
    if options.sample and len(tasks) > 1:
        raise ConfigurationError("--sample needs --task: agent.toml lists several")
    sys.stdout.write(f"forgotten: {forget_samples(configuration, tasks, options.sample)} samples\n")


_VERBS: Mapping[str, Callable[[argparse.Namespace, AgentConfiguration], None]] = {
    "stats": _stats,
    "export": _export,
    "correct": _correct,
    "forget": _forget,
}


def run_samples_verb(options: argparse.Namespace, configuration: AgentConfiguration) -> None:
    """Do what the command line says.

    Raises:
        ConfigurationError: it can't be done; what to change.
    """
    _VERBS[options.what](options, configuration)
