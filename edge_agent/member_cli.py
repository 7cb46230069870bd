"""What the commands of a fleet's members have in common: of an agent, and of a helper, which has no samples."""

import argparse
import asyncio
import contextlib
import faulthandler
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.configuration import AgentConfiguration
from edge_agent.worker.installed import check_installed
from fleet_host.command_line import Verbs, add_broker_options, add_verb, whole_number
from fleet_host.key_files import read_key_file
from fleet_protocol.limits import MAX_WAIT_SECONDS

if TYPE_CHECKING:
    from edge_agent.shell.connection.identity import Identity

STANDARD_ERROR = 2
JOIN_SECONDS = 60
"""Longest wait of `join` where it is not told another."""


def add_run(verbs: Verbs, noun: str, *parents: argparse.ArgumentParser) -> None:
    """Add `run`; `noun` is what the program is."""
    add_verb(verbs, "run", f"Run the {noun} in the foreground until SIGTERM or Ctrl-C.", *parents)


def add_join(verbs: Verbs, noun: str, machine: str, *parents: argparse.ArgumentParser) -> None:
    """Add `join`; `noun` is what the program is, `machine` what it runs on."""
    join = add_verb(verbs, "join", f"Join a fleet with an invitation, and start the {noun}.", *parents)
    join.add_argument("invitation", metavar="INVITATION", help="what `broker-coordinator devices invite` prints")
    join.add_argument("--profile", metavar="NAME", help=f"the kind of {machine} (found out)")
    join.add_argument(
        "--wait",
        type=whole_number(0, MAX_WAIT_SECONDS),
        default=JOIN_SECONDS,
        metavar="SECONDS",
        help=f"how long to wait for the clock, the network and the coordinator ({JOIN_SECONDS})",
    )
    join.add_argument("--folder", type=Path, metavar="DIR", help="put everything there, and start nothing")


def add_setup(verbs: Verbs, machine: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add `setup`, to which the program adds what tasks it is for."""
    setup = add_verb(
        verbs, "setup", f"Make this {machine}'s key, and write its configuration from a few answers.", *parents
    )
    add_broker_options(setup)
    setup.add_argument("--device", required=True, metavar="NAME", help=f"this {machine}'s name")
    setup.add_argument(
        "--coordinator-key", required=True, metavar="KEY", help="what `broker-coordinator key` prints on the server"
    )
    setup.add_argument(
        "--authority",
        metavar="FINGERPRINT",
        help="where the coordinator makes the broker's accounts: what `broker-coordinator key` prints as that",
    )
    setup.add_argument("--profile", default="generic", metavar="NAME", help=f"the kind of {machine} (generic)")
    return setup


def identity_of(configuration: AgentConfiguration, program: str) -> "Identity":
    """Who this machine is in its fleet.

    Raises:
        ConfigurationError: its key can't be read, or what it computes with is not installed.
    """
    from edge_agent.shell.connection.identity import Identity  # noqa: PLC0415 - `run` alone has one

    check_installed(configuration.worker.engine)
    return Identity(
        configuration.fleet,
        configuration.shard,
        configuration.device,
        read_key_file(configuration.key_file, program),
        configuration.coordinator_key,
        encrypt_updates=configuration.encrypt_updates,
    )


async def until_signalled(running: Coroutine[Any, Any, None]) -> None:
    """Run it until it ends, or SIGTERM or SIGINT cancels it."""
    task = asyncio.ensure_future(running)
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def run_in_foreground(running: Coroutine[Any, Any, None]) -> None:
    """Run a program whose event loop the service manager watches."""
    faulthandler.enable(STANDARD_ERROR)  # the watchdog's SIGABRT shows where it hung
    asyncio.run(running)
