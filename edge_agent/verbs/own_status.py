"""What `edge-agent status` and `train --now` ask the running agent at its sample socket."""

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_agent.core.analytics.policy import ROUNDING, QueryUse
from edge_agent.core.gossip.status import GossipStatus, NeighbourStatus
from edge_agent.preparation.preparation import SeriesStatus
from edge_agent.shell.samples.dropped_samples import dropped_words
from edge_agent.sources.tally import SourceStatus
from edge_agent.sources.unix_socket import Status
from edge_agent.verbs.setup import FIRST_SHARD
from fleet_protocol.errors import ConfigurationError, why_unreadable
from fleet_protocol.limits import MIB
from fleet_protocol.printable import printable

ANSWER_SECONDS = 10.0
"""Longest wait for the agent's answer."""
WATCH_SECONDS = 2.0
"""Between two looks."""
MAX_STATUS_BYTES = 1_000_000
"""Of an answer: some kilobytes for each of many tasks."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A program at a socket, for people: what it is, and its service."""

    noun: str
    service: str

    @property
    def start(self) -> str:
        """How to start it."""
        return f"start the {self.noun}: systemctl start {self.service}"


AGENT = Listener("agent", "edge-agent")


class NoAgentError(ConfigurationError):
    """Nobody listens at the sample socket."""


def ask(path: Path, command: str) -> bytes:
    """The line of JSON that the agent which listens at the socket answers to a command; raises as `ask_line` does."""
    return ask_line(path, msgspec.json.encode({"command": command}))


def ask_line(path: Path, question: bytes, listener: Listener = AGENT) -> bytes:
    """The line of JSON that the agent, or another program, which listens at the socket answers to a line.

    Raises:
        NoAgentError: nobody listens there.
        ConfigurationError: it gives no answer.
    """
    try:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(ANSWER_SECONDS)
            asking.connect(str(path))
            asking.sendall(question + b"\n")
            with asking.makefile("rb") as answers:
                answer = answers.readline(MAX_STATUS_BYTES)
    except OSError as error:
        raise unanswered(path, error, listener) from error
    if not answer.endswith(b"\n"):
        raise ConfigurationError(f"sample_socket {path}: the {listener.noun} gave no whole answer; see its log")
    return answer


def unanswered(path: Path, error: OSError, listener: Listener = AGENT) -> ConfigurationError:
    """Why the program at the socket could not be asked; `NoAgentError` where none listens."""
    if isinstance(error, ConnectionRefusedError):
        return NoAgentError(
            f"sample_socket {path}: no {listener.noun} listens; start it: systemctl start {listener.service}"
        )
    kind = NoAgentError if isinstance(error, FileNotFoundError) else ConfigurationError
    return kind(f"sample_socket {path}: {why_unreadable(error, listener.start)}")


def ask_for_training(path: Path) -> None:
    """Ask for a round of every task.

    Raises:
        ConfigurationError: the agent does not answer, or is another release.
    """
    answer = ask(path, "train")
    if answer != b'{"ok":true}\n':
        raise ConfigurationError(f"the agent's answer is not this release's ({answer!r}): restart it")


def show_status(path: Path, write: Callable[[str], object], *, as_json: bool, watch: bool) -> None:
    """Write the status once, or whenever it has changed.

    Raises:
        ConfigurationError: the agent does not answer, or is another release.
    """
    shown = b""
    while True:
        answer = ask(path, "status")
        if answer != shown:
            write(answer.decode() if as_json else words_of(answer))
            shown = answer
        if not watch:
            return
        time.sleep(WATCH_SECONDS)


def words_of(answer: bytes) -> str:
    """The lines that people read.

    Raises:
        ConfigurationError: the agent is another release.
    """
    try:
        status = msgspec.json.decode(answer, type=Status)
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"the agent's answer is not this release's ({error}): restart it") from error
    return "".join(f"{printable(line)}\n" for line in _lines(status))


def _lines(status: Status) -> Iterator[str]:
    link = "connected" if status.connected else "not connected to the broker"
    where = "" if status.shard in {"", FIRST_SHARD} else f", in shard {status.shard}"
    yield f"{status.device}: {status.state}, {link}{where}"
    yield (
        f"updates: {status.waiting_updates} waiting for a receipt{_size(status.waiting_bytes)}; since the start"
        f" {status.accepted_updates} accepted, {status.rejected_updates} refused, {status.withheld_updates} not sent"
    )
    if status.merged_updates:
        yield f"  {status.merged_updates} found no room in the outbox, and are learned again with the next round"
    if status.queries != QueryUse():
        use = status.queries
        later = f", {use.promised:g} more is promised to rounds to come" if use.promised > ROUNDING else ""
        yield f"queries: {use.answered} answered, {use.refused} refused; epsilon {use.epsilon:g} counts now{later}"
    if status.coordinator_key:
        yield f"coordinator key: {status.coordinator_key}"
    for task, found in status.tasks.items():
        version = f"version {status.versions[task]}" if task in status.versions else "no version yet"
        version = "no versions" if task in status.gossip else version
        yield f"{task}: {found.state}; {found.reason}"
        cluster = f", cluster {status.clusters[task]}" if task in status.clusters else ""
        stored, new = status.samples.get(task, 0), status.new_samples.get(task, 0)
        yield f"  {version}{cluster}, {stored} samples stored, {new} new"
        yield from _lines_of_told(status, task)
        if task in status.gossip:
            yield from _lines_of_neighbours(status.gossip[task])
        for budget, count in status.resting.get(task, {}).items():
            yield f"  {count} samples rest, as another round would pass what the budget {budget} allows"
        if dropped := dropped_words(status.dropped.get(task, {})):
            yield f"  {dropped}"
        if found.waits_for:
            yield f"  waits for {found.waits_for}"
    for name, series in status.series.items():
        yield _line_of_series(name, series)
    for source in status.sources:
        yield from _lines_of_source(source)
    if status.progress is not None:
        progress = status.progress
        yield f"in the round: {progress.phase}, step {progress.steps_done} of {progress.steps}"


def _size(size: int) -> str:
    return f" ({size / MIB:.1f} MiB)" if size >= MIB / 10 else ""


def _lines_of_told(status: Status, task: str) -> Iterator[str]:
    at_delta = f" (delta {status.delta:g})"
    if task in status.told:
        told = status.told[task]
        yield (
            "  rounds have told of samples what no epsilon bounds"
            if told is None
            else f"  rounds have told epsilon {told:.3g} of a sample at most{at_delta}"
        )
    if task in status.told_of_device:
        yield f"  updates have told epsilon {status.told_of_device[task]:.3g} of this device at most{at_delta}"


def _lines_of_neighbours(gossip: GossipStatus) -> Iterator[str]:
    if gossip.why_not:
        yield f"  among neighbours: trains nothing, as {gossip.why_not}"
    elif not gossip.is_complete:
        yield "  among neighbours: not all files of the bundle are here yet; keep the coordinator running"
    refused = ", ".join(f"{count} {reason}" for reason, count in gossip.refused.items())
    yield (
        f"  among {gossip.devices} devices: {_counted(gossip.rounds, 'round')},"
        f" {_counted(gossip.changes, 'change')} told"
        f"{f'; refused from neighbours: {refused}' if refused else ''}"
    )
    for name, known in gossip.neighbours.items():
        yield f"    {name}: {_words_of_neighbour(known)}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _words_of_neighbour(known: NeighbourStatus) -> str:
    seconds, rounds = known.seconds_ago, known.rounds_ago
    heard = "nothing heard since the start" if seconds is None else f"last heard {seconds:.0f} s ago"
    if rounds is None or known.distance is None:
        return f"{heard}, and no copy of its model yet" if seconds is None else f"{heard}, is mixed in the next round"
    return f"{heard}, its copy is {_counted(rounds, 'round')} old, its model {known.distance:.3g} from this one"


def _line_of_series(name: str, series: SeriesStatus) -> str:
    waiting = f", {series.waiting_for_label} samples wait for a label" if series.waiting_for_label else ""
    lost = f", {series.unlabelled} were dropped without one" if series.unlabelled else ""
    return f"readings for {name}: {series.readings} of {series.window} in the window{waiting}{lost}"


def _lines_of_source(source: SourceStatus) -> Iterator[str]:
    counts = ", ".join(f"{count} {reason}" for reason, count in source.refused.items())
    name = f"{source.source} for {source.task}" if source.task else source.source
    yield f"from {name}: {source.taken} taken{f'; refused: {counts}' if counts else ''}"
    if source.last_refusal:
        yield f"  the last refusal: {source.last_refusal}"
    if source.failure:
        yield f"  it does not run now: {source.failure}"
