"""What each verb of `edge-agent samples` does; samples_options.py has them as a command line."""

import argparse
import sys
from collections.abc import Callable, Mapping

import msgspec

from edge_agent.configuration import AgentConfiguration
from edge_agent.verbs.own_samples import changed_by, export_samples, forget_samples, show_stats
from fleet_protocol.errors import ConfigurationError


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
