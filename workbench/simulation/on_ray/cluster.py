"""A Ray cluster for a simulation: one that begins and ends with it, on this machine alone, or one that is there."""

import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MIB

LOCAL: Final = "local"
"""In place of an address: a cluster that is started for the simulation."""
LOOPBACK: Final = "127.0.0.1"
WORKING_BYTES: Final = 256 * MIB
"""Of the object store, besides samples: for weights and results on their way. What does not fit goes to the disk."""
TOKEN_BYTES: Final = 32

SAYS_NOTHING: Final = {"RAY_USAGE_STATS_ENABLED": "0"}
"""Ray sends its makers nothing."""
ANSWER_SECONDS: Final = 10.0
"""Of a cluster's port; Ray itself waits for minutes."""
ALONE: Final = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as there, it listens on the loopback alone
    "RAY_AUTH_MODE": "token",  # which other users of the machine don't have
    "RAY_task_oom_retries": "2",  # else without end
    "RAY_worker_niceness": "0",  # else 15: on a busy machine they would hardly begin
}
"""What a cluster of this machine alone has besides. Ray reads all of them when it is imported."""


@contextmanager
def ray_cluster(address: str, samples_bytes: int, cpus: int | None = None) -> Iterator[None]:
    """Connected to the Ray cluster at `address`, HOST:PORT, of which this machine is a part. `LOCAL`: to one that
    begins and ends with the block, on so many `cpus`, or all that this process may use, and holds `samples_bytes` of
    samples.

    Raises:
        ConfigurationError: there is none, or none can be started.
        ModuleNotFoundError: Ray is not installed.
    """
    is_own = address == LOCAL
    os.environ.update(SAYS_NOTHING)
    if is_own:
        os.environ.update(ALONE)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(TOKEN_BYTES))
    else:
        _require_answer(address)
    import ray  # noqa: PLC0415 - it reads the settings above, and takes a second

    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        _connect(address, _of_own_cluster(folder, samples_bytes, cpus) if is_own else {})
        try:
            if is_own and (found := ray.util.get_node_ip_address()) != LOOPBACK:
                raise ConfigurationError(f"--ray: Ray was imported before, and listens on {found}, not on the loopback")
            yield
        finally:
            ray.shutdown()


def _require_answer(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "/" in host:
        raise ConfigurationError(
            f"--ray-address {address}: give HOST:PORT of a cluster that this machine is a part of (ray start --address)"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"--ray-address {address}: no cluster answers there ({error}); start one (ray start --head), or correct it"
        ) from error


def _of_own_cluster(folder: str, samples_bytes: int, cpus: int | None) -> dict[str, Any]:
    return {
        "num_cpus": cpus or len(os.sched_getaffinity(0)),
        "object_store_memory": samples_bytes + WORKING_BYTES,
        "include_dashboard": False,
        "_temp_dir": folder,
    }


def _connect(address: str, settings: dict[str, Any]) -> None:
    import ray  # noqa: PLC0415 - as above

    try:
        ray.init(address, logging_level=logging.CRITICAL, log_to_driver=False, **settings)
    except Exception as error:  # Ray raises just that where its processes take too long to start
        words = str(error).strip().partition("\n")[0] or type(error).__name__
        what = "no cluster could be started" if settings else f"{address} can't be used"
        raise ConfigurationError(f"--ray: {what}: {words}") from error
