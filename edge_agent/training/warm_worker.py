"""The warm worker: loads the libraries once, and forks a process for each round that the agent orders.

The round's process is the training worker as it is without this one: it shuts itself in, sees one job, and gives its
memory back at its end. This process runs no graph and reads no job, so nothing that a bundle does can stay in it.
"""

import os
import select
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from typing import NoReturn

from edge_agent.training import worker
from edge_agent.worker.warm_contract import ASK_SECONDS, ORDER, REPORT, SOCKETS_OF_AN_ORDER, STOP
from fleet_host.child_process import die_with

SHARE_PERIOD_SECONDS = 0.2
STANDARD_INPUT, STANDARD_OUTPUT, STANDARD_ERROR = 0, 1, 2


def main() -> None:
    """Serve, and end with the agent, whose process id is the one argument."""
    die_with(int(sys.argv[1]))
    serve()


def serve() -> None:
    """Serve orders on the socket that is standard input and output, until it ends; prints go to standard error."""
    control = socket.socket(fileno=os.dup(STANDARD_INPUT))
    os.dup2(STANDARD_ERROR, STANDARD_OUTPUT)
    while order := _next_order(control):
        share, channel, errors = order
        code = _run_round(control, share, channel, errors)
        control.sendall(REPORT.pack(code))


def _next_order(control: socket.socket) -> tuple[float, int, int] | None:
    """The next order: its share, and two file descriptors; None at the end."""
    message, sockets, _, _ = socket.recv_fds(control, ORDER.size, SOCKETS_OF_AN_ORDER)
    while message == STOP:  # it came when the round had just ended
        message, sockets, _, _ = socket.recv_fds(control, ORDER.size, SOCKETS_OF_AN_ORDER)
    if len(message) < ORDER.size:
        return None
    channel, errors = sockets
    return ORDER.unpack(message)[0], channel, errors


def _run_round(control: socket.socket, share: float, channel: int, errors: int) -> int:
    """Run a round in a process of its own; returns its exit code."""
    own_end, its_end = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(own_end)
        control.close()
        _be_the_round(parent, channel, errors, its_end)
    for each in (channel, errors, its_end):
        os.close(each)
    try:
        _attend(control, own_end, child, share)
    finally:
        os.close(own_end)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _be_the_round(parent: int, channel: int, errors: int, pipe: int) -> NoReturn:
    """In the child: `pipe` tells the parent that this process has begun, and by its end that it has ended."""
    code = 1
    try:
        die_with(parent)
        for source, target in ((channel, STANDARD_INPUT), (channel, STANDARD_OUTPUT), (errors, STANDARD_ERROR)):
            os.dup2(source, target)
        for each in (channel, errors):
            os.close(each)
        os.write(pipe, b"1")  # from here on it ends with its parent, so it may be stopped
        worker.work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


def _attend(control: socket.socket, pipe: int, child: int, share: float) -> None:
    """Return when the child has ended, or is stopped as the agent wants; it runs for `share` of each period.

    The pipe has one byte when the child has begun, and ends with it.
    """
    begun = stopped = False
    while True:
        seconds = SHARE_PERIOD_SECONDS * ((1 - share) if stopped else share) if begun and share < 1 else None
        ready, _, _ = select.select([control.fileno(), pipe], [], [], seconds)
        if pipe in ready:
            if not os.read(pipe, 1):
                return
            begun = True
        elif control.fileno() in ready:
            _stop(control, pipe, child)
            return
        else:
            stopped = not stopped
            os.kill(child, signal.SIGSTOP if stopped else signal.SIGCONT)


def _stop(control: socket.socket, pipe: int, child: int) -> None:
    """Have the child end, by itself where the agent asks for it: after the step that it is in. Else it is killed."""
    if control.recv(len(STOP)):  # and not its end, as the agent has ended
        for number in (signal.SIGTERM, signal.SIGCONT):
            os.kill(child, number)
        until = time.monotonic() + ASK_SECONDS
        while ready := select.select([control.fileno(), pipe], [], [], max(0.0, until - time.monotonic()))[0]:
            if control.fileno() in ready:
                break
            if not os.read(pipe, 1):
                return
    os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main()
