"""What the owner's commands do, all but `run`: an agent that runs for years does not hold this in memory."""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from edge_agent.configuration import PROGRAM, load_configuration
from edge_agent.verbs.doctor import examine
from edge_agent.verbs.measure import measure
from edge_agent.verbs.member_verbs import Member
from edge_agent.verbs.own_predictions import (
    STANDARD_INPUT,
    Reading,
    lines_of_file,
    readings_of_file,
    show_predictions,
    takes_names,
)
from edge_agent.verbs.own_status import ask_for_training, show_status
from edge_agent.verbs.reset import reset_device
from edge_agent.verbs.samples_verb import run_samples_verb, task_of
from edge_agent.verbs.service import SERVICE, install_service, start_service, uninstall_service
from edge_agent.verbs.setup import SAMPLE_SOCKET
from fleet_host.command_line import write_at_once

EXIT_PROBLEM = 1
"""`doctor` has found one, or `predict` a reading without a prediction."""


def _predict(options: argparse.Namespace) -> None:
    configuration = load_configuration(options.config)
    task = task_of(options, configuration)
    readings: Iterator[Reading]
    if options.reading is not None:
        readings = iter([options.reading.encode()])
    elif options.follow or options.file == STANDARD_INPUT:
        readings = lines_of_file(options.file, follow=options.follow)
    else:
        mapped = any(source.has_own_form for source in configuration.sources if source.task == task)
        readings = readings_of_file(options.file, mapped=mapped or takes_names(configuration.sample_socket, task))
    follows = options.reading is None
    with contextlib.suppress(KeyboardInterrupt):
        if show_predictions(
            configuration.sample_socket, task, readings, write_at_once, as_json=options.json, follows=follows
        ):
            sys.exit(EXIT_PROBLEM)


def _status(options: argparse.Namespace) -> None:
    socket_path = load_configuration(options.config).sample_socket
    with contextlib.suppress(KeyboardInterrupt):
        show_status(socket_path, write_at_once, as_json=options.json, watch=options.watch)


def _samples(options: argparse.Namespace) -> None:
    run_samples_verb(options, load_configuration(options.config))


def _train(options: argparse.Namespace) -> None:
    ask_for_training(load_configuration(options.config).sample_socket)
    sys.stdout.write(f"asked; what becomes of it: {PROGRAM} status\n")


def _doctor(options: argparse.Namespace) -> None:
    is_well = True
    for found in examine(load_configuration(options.config), PROGRAM):
        sys.stdout.write(f"{found}\n")
        is_well = is_well and found.is_well
    if not is_well:
        sys.exit(EXIT_PROBLEM)


def _measure(options: argparse.Namespace) -> None:
    measure(options.out, time.strftime("%Y-%m-%d"), sys.stdout.write)


def _reset(options: argparse.Namespace) -> None:
    gone = reset_device(load_configuration(options.config).state_folder, with_samples=options.samples)
    sys.stdout.write(f"deleted: {', '.join(gone) or 'nothing, as nothing was there'}\n")


MEMBER = Member(SERVICE, "agent", Path(SAMPLE_SOCKET), load_configuration, start_service)
VERBS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    **MEMBER.verbs(),
    "predict": _predict,
    "status": _status,
    "samples": _samples,
    "train": _train,
    "doctor": _doctor,
    "measure": _measure,
    "reset": _reset,
    "install-service": install_service,
    "uninstall-service": uninstall_service,
}
