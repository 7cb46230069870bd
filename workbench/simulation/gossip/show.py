"""`edgeflock simulate` of gossip: from the user's options to a simulation without a coordinator, and to output."""

import sys
import time

import msgspec
from rich.console import Console

from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.gossip_plan import USED_BY, GossipPlan, TopologyName
from workbench.recipe_folder import find_bundle
from workbench.simulation.gossip.simulation import GossipSimulation
from workbench.simulation.gossip.summary import print_gossip, why_worthless
from workbench.simulation.progress import Progress
from workbench.simulation.result_files import write_result
from workbench.simulation.show import Request, as_wanted, asked_fleet, asked_workload
from workbench.simulation.simulation import Options


def asked_plan(request: Request, options: Options, topology: TopologyName | None, *, vote: bool) -> GossipPlan | None:
    """The task's own, of which `--topology` and `--vote` replace a part; None where neither says that the fleet has no
    coordinator.

    Raises:
        ConfigurationError: a vote, where there is a coordinator.
    """
    plan = load_bundle(find_bundle(request.task)).description.gossip
    if plan is None and topology is not None:
        plan = GossipPlan(topology, seed=options.seed)
    if plan is not None:
        chosen = topology or plan.topology
        return GossipPlan(chosen, "vote" if vote else plan.rule, plan.seed if chosen in USED_BY["seed"][1] else 0)
    if vote:
        raise ConfigurationError(
            "--vote: neighbours vote where there is no coordinator; add --topology, or leave it out"
        )
    return None


def simulate_gossip(request: Request, options: Options, plan: GossipPlan) -> int:
    """Simulate, show the result, and write it into `request.out`.

    Returns the exit status: 1 where nothing was learned, which is then said on standard error.

    Raises:
        ConfigurationError: with what the user can change.
    """
    _require_no_coordinator(request, options)
    simulation = prepare_gossip(request, options, plan)
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


def prepare_gossip(request: Request, options: Options, plan: GossipPlan) -> GossipSimulation:
    """The fleet, the bundle and the workload that were asked for."""
    folder = find_bundle(request.task)
    bundle = as_wanted(load_bundle(folder), request)
    fleet = asked_fleet(request, options.seed)
    workload = asked_workload(folder, bundle, len(fleet), request.data, options.seed)
    return GossipSimulation(fleet, bundle, workload, options, plan)


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
            raise ConfigurationError(f"{option} does not go with gossip: {why}; leave one of them out")
