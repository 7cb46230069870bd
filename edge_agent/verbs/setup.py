"""`edge-agent setup`: a device's folder from a few answers, so that only approval is left."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.configuration import AgentConfiguration
from edge_agent.profiles import read_profile
from fleet_host.configuration_file import parse_with_paths
from fleet_host.program_folder import BrokerAnswers, make_program_folder, quoted
from fleet_protocol.keys import VerifyKey, read_verify_key

AGENT = """\
# Written by edgeflock. docs/configuration-reference.md lists every key. Relative paths start at this folder.

fleet = {fleet}
device = {device}
coordinator_key = {coordinator_key}
key_file = "agent.key"
state_folder = {state_folder}
sample_socket = {sample_socket}
profile = {profile}
{shard}
{broker}
{tasks}"""
STATE_FOLDER = "/var/lib/edge-agent"
SAMPLE_SOCKET = "/run/edge-agent/samples.sock"
FIRST_TASK = "digits"
"""Where nobody names another."""
FIRST_SHARD = "0"
TASK = "[[tasks]]\nname = {name}\n"


@dataclass(frozen=True, slots=True)
class Answers:
    """What only the person who sets a device up can know, and where its program has its files."""

    fleet: str
    device: str
    coordinator_key: str
    broker: BrokerAnswers
    profile: str
    tasks: list[str]
    state_folder: str = STATE_FOLDER
    sample_socket: str = SAMPLE_SOCKET


@dataclass(frozen=True, slots=True)
class AgentText:
    """What stands in agent.toml. `broker` is its table `[broker]`."""

    fleet: str
    device: str
    coordinator_key: str
    broker: str
    profile: str
    tasks: Sequence[str]
    shard: str = FIRST_SHARD
    state_folder: str = STATE_FOLDER
    sample_socket: str = SAMPLE_SOCKET


def agent_text(words: AgentText) -> str:
    """The text of agent.toml.

    Raises:
        ConfigurationError: there is no such profile.
    """
    return AGENT.format(
        fleet=quoted(words.fleet),
        device=quoted(words.device),
        coordinator_key=quoted(words.coordinator_key),
        state_folder=quoted(words.state_folder),
        sample_socket=quoted(words.sample_socket),
        profile=quoted(words.profile),
        shard="" if words.shard == FIRST_SHARD else f"shard = {quoted(words.shard)}\n",
        broker=words.broker,
        tasks="\n".join(TASK.format(name=quoted(name)) for name in words.tasks or [FIRST_TASK]),
    )


def answers_text(answers: Answers, broker: str) -> str:
    """The text of agent.toml with the table `broker`.

    Raises:
        ConfigurationError: there is no such profile.
    """
    return agent_text(
        AgentText(
            answers.fleet,
            answers.device,
            answers.coordinator_key,
            broker,
            answers.profile,
            answers.tasks,
            state_folder=answers.state_folder,
            sample_socket=answers.sample_socket,
        )
    )


def set_up_device(configuration: Path, answers: Answers, program: str) -> VerifyKey:
    """Write agent.toml and what it names beside it; returns the device's public key.

    Raises:
        ConfigurationError: an answer can't be, a file is missing, or there is a configuration already.
    """
    read_verify_key(answers.coordinator_key, "--coordinator-key", "`broker-coordinator key` on the server")
    table = answers.broker.table("device")
    text = answers_text(answers, table)
    read_profile(answers.profile)
    parse_with_paths(text.encode(), AgentConfiguration, str(configuration))
    return make_program_folder(
        configuration, text, "agent.key", answers.broker.copies("device", answers.device), program
    )
