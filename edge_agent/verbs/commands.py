"""What the owner's commands do, all but `run`: an agent that runs for years does not hold this in memory."""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from edge_agent.configuration import CONFIGURATION, PROGRAM, load_configuration
from edge_agent.profiles import detected_profile
from edge_agent.shell.host.this_board import this_board
from edge_agent.verbs.doctor import examine
from edge_agent.verbs.join import JoinSettings, join_fleet
from edge_agent.verbs.measure import measure
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
from edge_agent.verbs.service import install_service, start_service, systemd_runs, uninstall_service
from edge_agent.verbs.setup import FIRST_TASK, SAMPLE_SOCKET, STATE_FOLDER, Answers, set_up_device
from edge_agent.verbs.setup_with_account import set_up_with_account
from fleet_host.command_line import (
    DISTRIBUTION,
    broker_answers,
    print_key,
    print_new_key,
)
from fleet_host.key_files import read_key_file
from fleet_protocol.device_invitation import read_invitation
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import write_verify_key

EXIT_PROBLEM = 1
"""`doctor` has found one, or `predict` a reading without a prediction."""


def _join(options: argparse.Namespace) -> None:
    folder: Path | None = options.folder and options.folder.resolve()
    settings = JoinSettings(
        folder / "agent.toml" if folder else options.config,
        options.profile or detected_profile(this_board()),
        PROGRAM,
        version(DISTRIBUTION),
        str(folder / "state") if folder else STATE_FOLDER,
        str(folder / "samples.sock") if folder else SAMPLE_SOCKET,
        options.wait,
    )
    join_fleet(read_invitation(options.invitation), settings, lambda words: _write_line(words + "\n"))
    if settings.configuration == CONFIGURATION and systemd_runs():
        start_service()
    else:
        _write_line(f"start the agent: {PROGRAM} run --config {settings.configuration}\n")


def _setup(options: argparse.Namespace) -> None:
    tasks = options.task or [FIRST_TASK]
    answers = Answers(
        options.fleet, options.device, options.coordinator_key, broker_answers(options), options.profile, tasks
    )
    if options.authority is None:
        made = set_up_device(options.config, answers, PROGRAM)
    elif options.certificates is None:
        made = set_up_with_account(options.config, answers, options.authority, PROGRAM)
    else:
        raise ConfigurationError("--authority is for a broker with passwords, --certificates for another; name one")
    sys.stdout.write(
        f"wrote {options.config}; start the agent: sudo {PROGRAM} install-service\n"
        f"then approve it on the server: broker-coordinator devices approve {options.device} {write_verify_key(made)}\n"
    )


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
            configuration.sample_socket, task, readings, _write_line, as_json=options.json, follows=follows
        ):
            sys.exit(EXIT_PROBLEM)


def _write_line(line: str) -> None:
    """At once, as another program may read it through a pipe."""
    sys.stdout.write(line)
    sys.stdout.flush()


def _status(options: argparse.Namespace) -> None:
    socket_path = load_configuration(options.config).sample_socket
    with contextlib.suppress(KeyboardInterrupt):
        show_status(socket_path, _write_line, as_json=options.json, watch=options.watch)


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


def _keygen(options: argparse.Namespace) -> None:
    print_new_key(options.file, PROGRAM)


def _key(options: argparse.Namespace) -> None:
    file = options.file or load_configuration(options.config).key_file
    print_key(read_key_file(file, PROGRAM).verify_key)


VERBS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "join": _join,
    "setup": _setup,
    "predict": _predict,
    "status": _status,
    "samples": _samples,
    "train": _train,
    "doctor": _doctor,
    "measure": _measure,
    "reset": _reset,
    "keygen": _keygen,
    "key": _key,
    "install-service": install_service,
    "uninstall-service": uninstall_service,
}
