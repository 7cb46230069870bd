"""`broker-coordinator setup`: a whole server with `--host`; with `--broker`, the coordinator beside another broker."""

import argparse
import subprocess
import sys
from pathlib import Path

from broker_coordinator.commands.broker_setup import BrokerPlan, Step, unwritable
from broker_coordinator.commands.certificates import NEEDS_TIME
from broker_coordinator.commands.places import server_places
from broker_coordinator.commands.server_host import check_host
from broker_coordinator.commands.service import SERVICE
from broker_coordinator.commands.systemd_units import BROKER_UNIT, SYSTEMD_RUNS, restart_or_say
from broker_coordinator.configuration import PROGRAM, CoordinatorConfiguration, load_configuration
from fleet_host.addresses import is_loopback
from fleet_host.command_line import Verbs, add_broker_options, add_verb, broker_answers
from fleet_host.configuration_file import parse_with_paths
from fleet_host.program_folder import AUTHORITY, PASSWORD_FILE, TLS_PORT, give_to, make_program_folder, quoted
from fleet_host.services import installer_here
from fleet_host.wall_clock import require_time
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import write_verify_key

KEY_FILE = "coordinator.key"
UNITS = (BROKER_UNIT, PROGRAM)

COORDINATOR = """\
# Written by `broker-coordinator setup`. docs/configuration-reference.md lists every key. Relative paths start at this
# folder. Tasks are served from the database: broker-coordinator tasks publish FOLDER

fleet = {fleet}
key_file = "coordinator.key"
database = {database}
enrolment = "closed" # a new device needs an invitation, or waits for: broker-coordinator devices approve
{more}
{broker}"""
OWN_BROKER = """\
[broker]
host = "localhost"
port = {port}
username = "broker-coordinator"
password_file = "broker.password"

[broker.tls]
authority = "ca.crt"

[invitations]
host = {host}
port = {port}
"""


def add_parser(verbs: Verbs, *parents: argparse.ArgumentParser) -> None:
    """The verb."""
    setup = add_verb(
        verbs, "setup", "Set this server up: broker, certificates, the coordinator's key and configuration.", *parents
    )
    add_broker_options(setup, required=False)
    setup.add_argument(
        "--host", metavar="HOST", help="give the fleet a broker of its own here, which devices reach by this name"
    )
    setup.add_argument("--folder", type=Path, metavar="DIR", help="put everything there, and start nothing")
    setup.add_argument("--dry-run", action="store_true", help="with --host: say what would be done, and do nothing")


def run(options: argparse.Namespace) -> None:
    """Do what the options say.

    Raises:
        ConfigurationError: it can't be done; what to change.
    """
    if (options.host is None) == (options.broker is None):
        raise ConfigurationError(
            "name either --host, by which devices reach this server, or --broker, a broker that runs already"
        )
    if options.host is not None:
        _set_up_server(options)
    elif options.folder or options.dry_run:
        raise ConfigurationError("--folder and --dry-run go with --host")
    else:
        _set_up_beside_broker(options)


def _set_up_beside_broker(options: argparse.Namespace) -> None:
    """Write coordinator.toml and what it names beside it."""
    broker = broker_answers(options)
    text = COORDINATOR.format(
        fleet=quoted(options.fleet),
        database=quoted("/var/lib/broker-coordinator/coordinator.db"),
        more="",
        broker=broker.table("coordinator"),
    )
    path: Path = options.config
    parse_with_paths(text.encode(), CoordinatorConfiguration, str(path))
    public = make_program_folder(path, text, KEY_FILE, broker.copies("coordinator", PROGRAM), PROGRAM)
    sys.stdout.write(
        f"wrote {path}; keep a copy of {path.parent / KEY_FILE} in a safe place\n"
        f"every device pins this public key: {write_verify_key(public)}\n"
    )


def _set_up_server(options: argparse.Namespace) -> None:
    check_host(options.host)
    require_time(NEEDS_TIME)
    plan, configuration, database = _places(options)
    starts = options.folder is None and SYSTEMD_RUNS.exists()
    text = COORDINATOR.format(
        fleet=quoted(options.fleet),
        database=quoted(str(database)),
        more='broker_accounts = "dynamic-security"\n',
        broker=OWN_BROKER.format(host=quoted(plan.host), port=plan.port),
    )
    parse_with_paths(text.encode(), CoordinatorConfiguration, str(configuration))
    try:
        _require_ours(configuration)
        _require_known_authority(plan, configuration)
        plan.check()
        if options.folder is not None and not options.dry_run:
            options.folder.mkdir(parents=True, exist_ok=True)  # the accounts of both programs pass through it
        had_certificate = (plan.folder / "broker.crt").exists()
        renewed = had_certificate and any(step.do for step in plan.certificate_steps())
        steps = [*plan.steps(configuration.parent / PASSWORD_FILE), _configuration_step(plan, configuration, text)]
        if starts:  # first: it makes the accounts that the files are for
            steps.insert(0, Step("install both services", lambda: installer_here().install(SERVICE, {})))
        for step in steps:
            sys.stdout.write(f"{_state_of(step, dry_run=options.dry_run)}: {step.words}\n")
            if step.do is not None and not options.dry_run:
                step.do()
    except BrokenPipeError:  # of the output, which is read no further
        raise
    except OSError as error:
        raise unwritable(error, plan.folder) from error
    _start(plan, starts=starts, dry_run=options.dry_run)
    if renewed and not options.dry_run:
        sys.stdout.write(restart_or_say([BROKER_UNIT], starts=starts) + ": it has another certificate\n")
    if is_loopback(plan.host):
        sys.stdout.write(
            f"no device elsewhere reaches {plan.host}: name what they reach this server by, where there are any\n"
        )
    sys.stdout.write(
        f"devices connect to {plan.host}, TCP port {plan.port}: open it in the firewall, and no other\n"
        f"keep a copy of {configuration.parent / KEY_FILE} and of {plan.authority} in a safe place\n"
        f"then: {PROGRAM} tasks publish FOLDER, and for each device: {PROGRAM} devices invite NAME\n"
    )


def _require_ours(configuration: Path) -> None:
    if configuration.exists() and load_configuration(configuration).broker_accounts is None:
        raise ConfigurationError(
            f"{configuration} exists, for a broker that somebody else runs; it stays as it is: move it away, and run"
            f" this again (keep {KEY_FILE} beside it, which devices know)"
        )


def _require_known_authority(plan: BrokerPlan, configuration: Path) -> None:
    """Another authority is no stand-in for one whose key is elsewhere: neither coordinator nor devices believe it."""
    key = plan.authority / "ca.key"
    has_certificate = key.exists() or plan.given is not None or (plan.folder / "broker.crt").exists()
    if (configuration.parent / AUTHORITY).exists() and not has_certificate:
        raise ConfigurationError(
            f"{key}: missing, and devices believe the authority that it is of; put {plan.authority} back from a backup,"
            " and run this again"
        )


def _places(options: argparse.Namespace) -> tuple[BrokerPlan, Path, Path]:
    """The broker's plan, coordinator.toml, and the database."""
    places = server_places(options.config, options.folder)
    port = options.port or TLS_PORT
    plan = BrokerPlan(options.host, port, places.broker, places.broker_state, places.authority, options.certificates)
    return plan, places.configuration, places.database


def _configuration_step(plan: BrokerPlan, configuration: Path, text: str) -> Step:
    def write() -> None:
        copies = {AUTHORITY: plan.certificates / AUTHORITY}
        give_to(PROGRAM, configuration.parent / PASSWORD_FILE)
        make_program_folder(configuration, text, KEY_FILE, copies, PROGRAM)

    words = f"make the coordinator's key, and write {configuration}"
    return Step(words, None if configuration.exists() else write)


def _state_of(step: Step, *, dry_run: bool) -> str:
    if step.do is None:
        return "is there"
    return "would do" if dry_run else "do"


def _start(plan: BrokerPlan, *, starts: bool, dry_run: bool) -> None:
    command = ["systemctl", "enable", "--now", *UNITS]
    if dry_run or not starts:
        by_hand = " ".join(command)
        without = f"mosquitto -c {plan.configuration}, and {PROGRAM} run"
        sys.stdout.write(f"{'would start' if dry_run else 'start'} both: {by_hand} (without systemd: {without})\n")
        return
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigurationError(
            f"{' '.join(command)}: {done.stderr.strip()}; everything is written, so mend that and run this again"
        )
    sys.stdout.write(f"both run: {' and '.join(UNITS)}\n")
