"""`edge-agent setup`: a device's folder from a few answers, so that only approval is left."""

from dataclasses import dataclass
from pathlib import Path

from edge_agent.configuration import AgentConfiguration
from edge_agent.profiles import read_profile
from fleet_host.configuration_file import parse_with_paths
from fleet_host.program_folder import BrokerAnswers, make_program_folder, quoted
from fleet_protocol.keys import VerifyKey, read_verify_key

AGENT = """\
# Written by `edge-agent setup`. docs/configuration-reference.md lists every key. Relative paths start at this folder.

fleet = {fleet}
device = {device}
coordinator_key = {coordinator_key}
key_file = "agent.key"
state_folder = "/var/lib/edge-agent"
sample_socket = "/run/edge-agent/samples.sock"
profile = {profile}

{broker}
{tasks}"""
TASK = "[[tasks]]\nname = {name}\n"


@dataclass(frozen=True, slots=True)
class Answers:
    """What only the person who sets a device up can know."""

    fleet: str
    device: str
    coordinator_key: str
    broker: BrokerAnswers
    profile: str
    tasks: list[str]


def set_up_device(configuration: Path, answers: Answers, program: str) -> VerifyKey:
    """Write agent.toml and what it names beside it; returns the device's public key.

    Raises:
        ConfigurationError: an answer can't be, a file is missing, or there is a configuration already.
    """
    read_verify_key(answers.coordinator_key, "--coordinator-key", "`broker-coordinator key` on the server")
    text = AGENT.format(
        fleet=quoted(answers.fleet),
        device=quoted(answers.device),
        coordinator_key=quoted(answers.coordinator_key),
        profile=quoted(answers.profile),
        broker=answers.broker.table("device"),
        tasks="\n".join(TASK.format(name=quoted(name)) for name in answers.tasks),
    )
    read_profile(answers.profile)
    parse_with_paths(text.encode(), AgentConfiguration, str(configuration))
    return make_program_folder(
        configuration, text, "agent.key", answers.broker.copies("device", answers.device), program
    )
