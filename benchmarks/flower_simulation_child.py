"""Flower's simulation engine with a trivial client, for `benchmarks.simulation_scale`: in Flower's own environment.

    python flower_simulation_child.py WEIGHTS CLIENTS ROUNDS

Every round, each of the clients adds 1 to the weights. One core a client, as Flower's default for simulations of small
models, on all cores of the machine.
"""

import contextlib
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.client import ClientApp, NumPyClient
from flwr.common import FitRes, NDArrays, Parameters, Scalar, ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation


class AddsOne(NumPyClient):  # type: ignore[misc]  # Flower is in its own environment alone
    """Trains by adding 1."""

    def fit(self, parameters: NDArrays, config: dict[str, Scalar]) -> tuple[NDArrays, int, dict[str, Scalar]]:
        """The weights and 1."""
        return [parameters[0] + np.float32(1)], 1, {}


class Timed(FedAvg):  # type: ignore[misc]  # as above
    """Notes when each round has ended, and the CPU seconds until then of this process and all below it."""

    def __init__(self, weights: int, clients: int) -> None:
        super().__init__(
            fraction_fit=1.0,
            fraction_evaluate=0.0,
            min_fit_clients=clients,
            min_available_clients=clients,
            initial_parameters=ndarrays_to_parameters([np.zeros(weights, np.float32)]),
        )
        self.ended: list[float] = []
        self.cpu_seconds: list[float] = []
        self.results = 0

    def aggregate_fit(
        self, server_round: int, results: list[tuple[ClientProxy, FitRes]], failures: list[Any]
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        """As `FedAvg`."""
        aggregated: tuple[Parameters | None, dict[str, Scalar]]
        aggregated = super().aggregate_fit(server_round, results, failures)
        self.ended.append(time.perf_counter())
        self.cpu_seconds.append(cpu_seconds_below(os.getpid()))
        if server_round > 1:
            self.results += len(results)
        return aggregated


def cpu_seconds_below(root: int) -> float:
    """Those of a process and of all that it and its children have started, of which Ray starts several."""
    parents, ticks = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            number = int(stat.parent.name)
            parents[number], ticks[number] = int(fields[1]), int(fields[11]) + int(fields[12])
    below = {root}
    while added := {number for number, parent in parents.items() if parent in below} - below:
        below |= added
    return sum(ticks.get(number, 0) for number in below) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print how many clients a second were simulated."""
    weights, clients, rounds = map(int, sys.argv[1:])
    logging.disable(logging.WARNING)
    strategy = Timed(weights, clients)
    run_simulation(
        server_app=ServerApp(
            server_fn=lambda _: ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=rounds))
        ),
        client_app=ClientApp(client_fn=lambda _: AddsOne().to_client()),
        num_supernodes=clients,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    seconds = strategy.ended[-1] - strategy.ended[0]
    print(
        json.dumps(
            {
                "clients": strategy.results,
                "seconds": round(seconds, 2),
                "cores": os.cpu_count(),
                "clients_per_second": round(strategy.results / seconds, 1),
                "cpu_seconds": round(strategy.cpu_seconds[-1] - strategy.cpu_seconds[0], 2),
                "clients_per_cpu_second": round(
                    strategy.results / (strategy.cpu_seconds[-1] - strategy.cpu_seconds[0]), 1
                ),
            }
        )
    )


if __name__ == "__main__":
    main()
