"""`edgeflock simulate --topology`: from the user's options to a simulation without a coordinator, and to output."""

import sys
import time

import msgspec
from rich.console import Console

from bundle_runtime.bundle_folder import load_bundle
from edge_agent.training.gossip import MixingRule
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.gossip import TopologyName
from workbench.recipe_folder import find_bundle
from workbench.simulation.gossip.simulation import GossipSimulation
from workbench.simulation.gossip.summary import print_gossip, why_worthless
from workbench.simulation.progress import Progress
from workbench.simulation.result_files import write_result
from workbench.simulation.show import Request, as_wanted, asked_fleet, asked_workload
from workbench.simulation.simulation import Options


def simulate_gossip(request: Request, options: Options, topology: TopologyName, rule: MixingRule) -> int:
    """Simulate, show the result, and write it into `request.out`.

    Returns the exit status: 1 where nothing was learned, which is then said on standard error.

    Raises:
        ConfigurationError: with what the user can change.
    """
    _require_no_coordinator(request, options)
    simulation = prepare_gossip(request, options, topology, rule=rule)
    started = time.monotonic()
    progress = Progress(Console(stderr=True), started, options.seconds)
    result = simulation.run(progress.tick)
    if request.out is not None:
        write_result(result, request.out)
    if request.as_json:
        print(msgspec.json.encode(result.summary).decode())
    else:
        print_gossip(result.summary, Console(), time.monotonic() - started)
    words = why_worthless(result.summary)
    if words is not None:
        print(f"edgeflock: {words}", file=sys.stderr)
    return int(words is not None)


def prepare_gossip(
    request: Request, options: Options, topology: TopologyName, rule: MixingRule = "mean"
) -> GossipSimulation:
    """The fleet, the bundle and the workload that were asked for."""
    folder = find_bundle(request.task)
    bundle = as_wanted(load_bundle(folder), request)
    fleet = asked_fleet(request, options.seed)
    workload = asked_workload(folder, bundle, len(fleet), request.data, options.seed)
    return GossipSimulation(fleet, bundle, workload, options, topology, rule=rule)


def _require_no_coordinator(request: Request, options: Options) -> None:
    """Refuse what is of a coordinator, or of its simulation.

    Raises:
        ConfigurationError: names the option.
    """
    without_effect = "without a coordinator it has no effect"
    others = {
        "--buffer-size": (request.buffer_size, without_effect),
        "--strategy": (request.strategy, without_effect),
        "--differences": (request.differences, without_effect),
        "--precision-bits": (request.precision_bits, without_effect),
        "--privacy": (request.privacy, "neighbours see each single device's model"),
        "--concurrent": (options.concurrent, "nobody draws who is to train: devices train as their samples come"),
        "--plain": (options.plain or None, "it is for large fleets with a coordinator"),
        "--checkpoint": (request.checkpoint, "checkpoints hold fleets with a coordinator; run it in one go"),
        "--ray": (request.ray, "rounds are computed in this process"),
    }
    for option, (given, why) in others.items():
        if given is not None:
            raise ConfigurationError(f"{option} does not go with --topology: {why}; leave one of them out")
