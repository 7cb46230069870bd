"""Flower's SuperNode on its SuperLink, in an environment that the benchmark makes. Flower's telemetry stays off."""

import os
import time
from pathlib import Path

import msgspec

from benchmarks.footprint.counting_proxy import CountingProxy
from benchmarks.footprint.environments import environment_with, installed_mb
from benchmarks.footprint.processes import Idle, idle, running, until
from workbench.demo.brokers import free_port

PACKAGE = "flwr==1.42.0"


class FlowerFootprint(msgspec.Struct):
    """As of the agent, as far as Flower has such a thing; `cold_start_ms` ends when it has asked its SuperLink."""

    idle: Idle
    cold_start_ms: float
    installed_mb: float


def measure(folder: Path, seconds: float) -> FlowerFootprint:
    """Start both in a folder, and look on."""
    python = environment_with("flower-1.42", PACKAGE)
    environment = os.environ | {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_HOME": str(folder / "flwr"),
        "PATH": f"{python.parent}:{os.environ['PATH']}",
    }
    link_port = free_port()
    proxy = CountingProxy(link_port)
    link = [str(python.parent / "flower-superlink"), "--insecure", "--port", str(link_port)]
    node = [
        str(python.parent / "flower-supernode"),
        "--insecure",
        *("--superlink", f"127.0.0.1:{proxy.port}"),
        *("--port", str(free_port())),
    ]
    with running(link, folder / "superlink.log", environment):
        time.sleep(seconds / 6)
        begun = time.perf_counter()
        with running(node, folder / "supernode.log", environment) as process:
            until(lambda: proxy.transferred > 0, "the SuperNode has asked its SuperLink")
            cold_start = 1000 * (time.perf_counter() - begun)
            time.sleep(seconds / 3)  # its SuperExec starts meanwhile
            looked = idle(process, seconds, lambda: proxy.transferred)
    proxy.close()
    return FlowerFootprint(looked, cold_start, installed_mb(python))
