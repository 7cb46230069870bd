"""`edge-agent doctor`: looks at everything that a device needs to take part, and says what to do about what lacks."""

import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from edge_agent.configuration import AgentConfiguration
from edge_agent.core.gossip.status import GossipStatus
from edge_agent.core.lifecycle import State
from edge_agent.profiles import Limits, misfits, read_profile
from edge_agent.shell.connection.pinned_authorities import believing, pinned_authorities
from edge_agent.shell.host import machine
from edge_agent.shell.host.this_board import this_board
from edge_agent.sources.unix_socket import Status
from edge_agent.verbs.own_status import NoAgentError, ask
from edge_agent.worker.installed import check_installed
from fleet_host.key_files import read_key_file
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import write_verify_key
from fleet_protocol.limits import MIB

CONNECT_SECONDS = 10.0
"""Longest wait for the broker's answer."""
LOAD_SECONDS = 120.0
"""Longest time in which a Pi Zero loads numpy and onnxruntime from its card."""
LEAST_FREE_MIB = 64.0
"""Room for the outbox and the next versions of common tasks."""
DAYS_TO_RENEW = 14.0
"""The broker's certificate is renewed in time."""
DAY_SECONDS = 86_400.0
LOAD_LIBRARIES = (sys.executable, "-P", "-c", "import numpy, onnxruntime")


class ProblemError(Exception):
    """What a check found, and what to do."""


Check = Callable[[AgentConfiguration, str], str]
"""Takes the configuration and the program's name; returns what is well, and raises `ProblemError` otherwise."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    is_well: bool
    words: str

    def __str__(self) -> str:
        """One line."""
        return f"{'ok' if self.is_well else 'PROBLEM':8}{self.check}: {self.words}"


def examine(configuration: AgentConfiguration, program: str) -> Iterator[Finding]:
    """Make every check, whatever the ones before it found."""
    for name, check in CHECKS.items():
        try:
            yield Finding(name, True, check(configuration, program))
        except (ProblemError, ConfigurationError) as error:
            yield Finding(name, False, str(error))


def _key(configuration: AgentConfiguration, program: str) -> str:
    return f"public key {write_verify_key(read_key_file(configuration.key_file, program).verify_key)}"


def _clock(configuration: AgentConfiguration, _program: str) -> str:
    """A Pi without a clock begins in the past: TLS takes no certificate that is not valid yet."""
    now, written = time.time(), configuration.key_file.stat().st_mtime if configuration.key_file.exists() else 0.0
    shown = time.strftime("%Y-%m-%d %H:%M", time.localtime(now))
    if now < written:
        raise ProblemError(f"it is {shown}, before the key file was written; let the machine take the network's time")
    return shown


def _disk(configuration: AgentConfiguration, _program: str) -> str:
    folder = next(each for each in (configuration.state_folder, *configuration.state_folder.parents) if each.exists())
    if not os.access(folder, os.W_OK):
        raise ProblemError(f"{folder} can't be written by this account; run this with the agent's, or chown it")
    free = shutil.disk_usage(folder).free / MIB
    if free < LEAST_FREE_MIB:
        raise ProblemError(f"{free:.0f} MiB are free at {folder}, at least {LEAST_FREE_MIB:.0f} are wanted; make room")
    return f"{free:.0f} MiB free at {folder}"


def _broker(configuration: AgentConfiguration, _program: str) -> str:
    broker = configuration.broker
    if (pinned := pinned_authorities(configuration.state_folder, broker)) is not None:
        broker = believing(broker, pinned.file)
    broker.password()
    context, where = broker.tls_context(), f"{broker.host}:{broker.port}"
    try:
        with socket.create_connection((broker.host, broker.port), CONNECT_SECONDS) as connection:
            if context is None:
                return f"{where} takes connections, without TLS"
            with context.wrap_socket(connection, server_hostname=broker.host) as secured:
                return f"{where} takes connections; {_validity(secured)}"
    except ssl.SSLCertVerificationError as error:
        raise ProblemError(
            f"{where}: {error.verify_message}; compare broker.host, broker.tls.authority, the clock"
        ) from error
    except OSError as error:
        raise ProblemError(
            f"{where}: {error}; check broker.host and port, the network, and that the broker runs"
        ) from error


def _validity(secured: ssl.SSLSocket) -> str:
    certificate = secured.getpeercert() or {}
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / DAY_SECONDS
    if days < DAYS_TO_RENEW:
        raise ProblemError(f"the broker's certificate ends in {days:.0f} days; renew it")
    return f"its certificate is valid for {days:.0f} days"


def _status(configuration: AgentConfiguration) -> Status:
    try:
        return msgspec.json.decode(ask(configuration.sample_socket, "status"), type=Status)
    except msgspec.MsgspecError as error:
        raise ProblemError(f"the running agent is another release ({error}); restart it") from error


def _neighbours(configuration: AgentConfiguration, _program: str) -> str:
    try:
        gossip = _status(configuration).gossip
    except NoAgentError:
        return "not known, as no agent runs"
    if lacking := [f"{task}: {each.why_not}" for task, each in gossip.items() if each.why_not]:
        raise ProblemError("; ".join(lacking))
    found = [f"{task}: {_words_of_neighbours(each)}" for task, each in gossip.items()]
    return "; ".join(found) or "no task whose bundle is here is learned among neighbours"


def _words_of_neighbours(gossip: GossipStatus) -> str:
    needs = "needs no coordinator" if gossip.is_complete else "needs the coordinator, for files that are not here yet"
    return f"neighbours: {len(gossip.neighbours)}, by roster {gossip.number} of {gossip.devices} devices; {needs}"


def _coordinator(configuration: AgentConfiguration, _program: str) -> str:
    status = _status(configuration)
    if not status.connected:
        raise ProblemError("the running agent is not connected to the broker; see its log: journalctl -u edge-agent")
    unenrolled = [task.reason for task in status.tasks.values() if task.state is State.UNENROLLED]
    if unenrolled:
        approve = f"on the server: broker-coordinator devices approve {configuration.device}"
        raise ProblemError(f"{unenrolled[0]}; {approve}")
    if status.coordinator_key not in ("", configuration.coordinator_key.strip().lower()):
        line = f'coordinator_key = "{status.coordinator_key}"'
        return f"it accepts this device; its key is a newer one than agent.toml has: write {line} there"
    return "it accepts this device"


def _training(configuration: AgentConfiguration, _program: str) -> str:
    check_installed(configuration.worker.engine)
    try:
        loaded = subprocess.run(LOAD_LIBRARIES, check=False, capture_output=True, text=True, timeout=LOAD_SECONDS)
    except subprocess.TimeoutExpired:
        raise ProblemError(
            f"numpy and onnxruntime are not loaded within {LOAD_SECONDS:.0f} s; check the card"
        ) from None
    if loaded.returncode:
        said = loaded.stderr.strip().rpartition("\n")[2] or f"ended with code {loaded.returncode}"
        raise ProblemError(f"numpy and onnxruntime do not load on this CPU: {said}; install wheels that are for it")
    return "numpy and onnxruntime load on this CPU"


def _guards(configuration: AgentConfiguration, _program: str) -> str:
    if lacking := machine.missing(configuration.guards):
        raise ProblemError(f"{'; '.join(lacking)}; name one in [guards], or leave that limit out")
    return "the machine gives every reading that they ask for"


def _profile(configuration: AgentConfiguration, _program: str) -> str:
    name = configuration.profile_name
    limits = Limits(configuration.guards, configuration.worker, configuration.store)
    if found := misfits(name, read_profile(configuration.profile), limits, this_board()):
        raise ProblemError("; ".join(found))
    return f"{name}: the machine has what the agent may take"


CHECKS: dict[str, Check] = {
    "key": _key,
    "clock": _clock,
    "disk": _disk,
    "broker": _broker,
    "coordinator": _coordinator,
    "neighbours": _neighbours,
    "training": _training,
    "guards": _guards,
    "profile": _profile,
}
"""In the order in which they are made."""
