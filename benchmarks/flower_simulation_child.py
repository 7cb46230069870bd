"""Flower's simulation engine with a trivial client, for `benchmarks.simulation_scale`: runs in Flower's own environment.

    python flower_simulation_child.py WEIGHTS CLIENTS ROUNDS

Every round, each of the clients adds 1 to the weights. One core a client, as Flower's default for simulations of small
models, on all cores of the machine.
"""

import json
import logging
import os
import sys
import time

import numpy as np
from flwr.client import ClientApp, NumPyClient
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.simulation import run_simulation


class AddsOne(NumPyClient):
    """Trains by adding 1."""

    def fit(self, parameters, config):
        """The weights and 1."""
        return [parameters[0] + np.float32(1)], 1, {}


class Timed(FedAvg):
    """Notes when each round has ended."""

    def __init__(self, weights: int, clients: int) -> None:
        super().__init__(
            fraction_fit=1.0,
            fraction_evaluate=0.0,
            min_fit_clients=clients,
            min_available_clients=clients,
            initial_parameters=ndarrays_to_parameters([np.zeros(weights, np.float32)]),
        )
        self.ended: list[float] = []
        self.results = 0

    def aggregate_fit(self, server_round, results, failures):
        """As `FedAvg`."""
        aggregated = super().aggregate_fit(server_round, results, failures)
        self.ended.append(time.perf_counter())
        if server_round > 1:
            self.results += len(results)
        return aggregated


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
                "clients_per_core_second": round(strategy.results / seconds / (os.cpu_count() or 1), 1),
            }
        )
    )


if __name__ == "__main__":
    main()
