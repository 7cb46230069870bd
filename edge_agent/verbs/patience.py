"""What `edge-agent join` waits for: the network's time, the broker, and the coordinator's answer."""

import asyncio
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import TypeVar

import aiomqtt

from edge_agent.shell.connection.joining import NotAuthorisedError
from fleet_host.wall_clock import SHOWN, local_time, time_unknown
from fleet_protocol.errors import ConfigurationError

RETRY_SECONDS = 2.0
"""Between two attempts."""

Result = TypeVar("Result")
Say = Callable[[str], object]


def await_clock(deadline: float, say: Say) -> None:
    """Wait for the network's time: TLS takes no certificate before its day, and a Pi without a clock begins in 1970.

    Raises:
        ConfigurationError: there is none at the deadline, on the monotonic clock.
    """
    if local_time() is not None:
        return
    say(f"the clock shows {time.strftime(SHOWN)}: waiting for the network's time")
    while local_time() is None:
        if time.monotonic() > deadline:
            raise time_unknown("no certificate is valid then")
        time.sleep(RETRY_SECONDS)


def patiently(work: Callable[[], Result], deadline: float, where: str, unknown: str = "") -> Result:
    """Do it, and again until the deadline, whatever the network says meanwhile. `unknown`: what it means if the broker
    does not know the account.

    Raises:
        ConfigurationError: what is in the way at the deadline, or can't go away.
    """
    cause: Exception
    while True:
        try:
            return work()
        except NotAuthorisedError as error:
            words, cause = unknown, error
        except TimeoutError as error:
            cause = error
            words = f"{where}: no answer from the coordinator; see that it runs, and run the same again"
        except (OSError, aiomqtt.MqttError) as error:
            _refuse_certificate(error, where)
            words = f"{where}: {error}; check the network, and that the broker runs there; then run the same again"
            cause = error
        if time.monotonic() > deadline:
            raise ConfigurationError(words) from cause
        time.sleep(RETRY_SECONDS)


def _refuse_certificate(error: BaseException, where: str) -> None:
    found = error if isinstance(error, ssl.SSLCertVerificationError) else error.__context__  # aiomqtt names no cause
    if isinstance(found, ssl.SSLCertVerificationError):
        raise ConfigurationError(
            f"{where}: {found.verify_message}; compare the clock with the server's, and the name in the broker's"
            " certificate: on the server, broker-coordinator setup --host makes one for a name"
        ) from error


async def by(deadline: float, work: Coroutine[None, None, Result]) -> Result:
    """Await it until the deadline, and a little while at least.

    Raises:
        TimeoutError: it was not done by then.
    """
    async with asyncio.timeout(max(RETRY_SECONDS, deadline - time.monotonic())):
        return await work
