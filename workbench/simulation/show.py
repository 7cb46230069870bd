"""`edgeflock simulate`: from the user's options to a simulation, and from its result to output."""

import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from broker_coordinator.aggregation.strategies import STRATEGIES, Recall
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from edge_agent.profiles import read_profile
from fleet_protocol.aggregation_plan import StrategyName
from fleet_protocol.bundle import parse_description
from fleet_protocol.codec import read_weights
from fleet_protocol.downlink_plan import USED_BY, Differences, DownlinkPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.scaling import UNSCALED
from fleet_protocol.update_plan import WHOLE_UPDATES
from fleet_protocol.without_effect import with_used
from workbench.data.narrow_inputs import narrow_inputs
from workbench.data.samples import read_samples, share_out
from workbench.privacy_modes.modes import Mode
from workbench.privacy_modes.private_bundle import private_bundle
from workbench.recipe_folder import find_bundle
from workbench.simulation.checkpoint.asked import as_text, content_of
from workbench.simulation.checkpoint.file import resume, write_checkpoint
from workbench.simulation.checkpoint.schedule import Checkpoints, claimed
from workbench.simulation.checkpoint.state import why_not_kept
from workbench.simulation.conditions import FleetMember
from workbench.simulation.fleet_files import draw_fleet, read_trace
from workbench.simulation.ledger import Summary
from workbench.simulation.masks.task import with_simulated_helpers, with_usual_masks
from workbench.simulation.on_ray.spreading import spread_over_ray
from workbench.simulation.progress import Progress
from workbench.simulation.result_files import write_result
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.summary_table import print_summary
from workbench.simulation.verdict import failure
from workbench.simulation.workload import NO_PREDICTIONS, Workload, synthetic_workload, trained_workload

MOST_LOOKED_AT = 100_000
"""Devices, where something goes over all of them for each version or round."""
WHOLE_VERSIONS: Final = DownlinkPlan(differences="off")


@dataclass(frozen=True, slots=True)
class Request:
    """What to simulate: `data` makes the devices really train; a `trace` takes the place of `devices` and `profiles`.

    `buffer_size`, `keep_fraction`, `differences`, `precision_bits` and `strategy` replace the task's. The state is
    written into the file `checkpoint` every `checkpoint_minutes`, and taken up where there is one.
    """

    devices: int
    profiles: list[str]
    trace: Path | None
    task: str
    data: str | None
    buffer_size: int | None
    keep_fraction: float | None
    differences: Differences | None
    precision_bits: int | None
    out: Path | None
    as_json: bool
    privacy: Mode | None = None
    strategy: StrategyName | None = None
    checkpoint: Path | None = None
    checkpoint_minutes: float = 10.0
    ray: str | None = None


def simulate(request: Request, options: Options) -> int:
    """Simulate, show the result, and write it into `request.out`.

    Returns the exit status: 1 where nothing was learned or most was refused, which is then said on standard error.

    Raises:
        ConfigurationError: with what the user can change.
    """
    with tempfile.TemporaryDirectory() as scratch, _quiet(), ExitStack() as stack:
        simulation = prepare(with_mode(request, Path(scratch) / "bundle"), options)
        started = time.monotonic()
        progress = Progress(Console(stderr=True), started, options.seconds)
        tick: Callable[[float], None] = progress.tick
        if request.checkpoint is not None:
            stack.enter_context(claimed(request.checkpoint))
            tick = _with_checkpoints(request, request.checkpoint, options, simulation, tick)
        if request.ray is not None:
            stack.enter_context(spread_over_ray(simulation, request.ray, plain=options.plain))
        result = simulation.run(progress.show, tick)
        if request.out is not None:
            write_result(result, request.out)
    if request.as_json:
        print(msgspec.json.encode(result.summary).decode())
    else:
        print_summary(result.summary, Console(), time.monotonic() - started)
    return report_failure(result.summary)


def _with_checkpoints(
    request: Request, path: Path, options: Options, simulation: Simulation, tick: Callable[[float], None]
) -> Callable[[float], None]:
    """Go on from the checkpoint, if there is one; the tick that writes others too."""
    if words := why_not_kept(simulation):
        raise ConfigurationError(f"--checkpoint {path}: {words}, which no checkpoint holds; leave it out")
    asked = asked_for(request, options, simulation.bundle)
    if resume(path, asked, simulation):
        print(f"edgeflock: goes on from {path}", file=sys.stderr)
    checkpoints = Checkpoints(request.checkpoint_minutes, partial(write_checkpoint, path, asked, simulation))

    def both(virtual_seconds: float) -> None:
        tick(virtual_seconds)
        checkpoints.tick()

    return both


def asked_for(request: Request, options: Options, bundle: Bundle) -> dict[str, str]:
    """What decides how a simulation goes; `bundle` is the one that its fleet begins with."""
    said = {
        "--devices": request.devices,
        "--profile": " ".join(request.profiles),
        "--trace": request.trace,
        "--task": request.task,
        "--data": request.data,
        "--privacy": request.privacy,
        "--strategy": request.strategy,
        "--buffer-size": request.buffer_size,
        "--keep-fraction": request.keep_fraction,
        "--differences": request.differences,
        "--precision-bits": request.precision_bits,
        "--seed": options.seed,
        "--hours": options.seconds / 3600,
        "--concurrent": options.concurrent,
        "--target": options.target,
        "--score-every": options.score_every,
        "--memory-mib": options.memory_mib,
        "--plain": options.plain,
    }
    return as_text(said) | content_of(bundle, request.profiles, (request.trace, request.data))


@contextmanager
def _quiet() -> Iterator[None]:
    """What coordinator and helpers would log is in the summary."""
    loggers = [logging.getLogger(name) for name in ("broker_coordinator", "session_relay")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def with_mode(request: Request, out: Path) -> Request:
    """The request for the bundle with its mode of privacy, which is made in `out`.

    Raises:
        ConfigurationError: the mode can't be simulated, or the task can't have it, and why.
    """
    mode = request.privacy
    if mode is None:
        return request
    if mode == "samples" and request.data is None:
        raise ConfigurationError(
            "--privacy samples needs --data: without it no gradients are taken of samples, which could have noise"
        )
    devices = len(read_trace(request.trace)) if request.trace else request.devices
    folder = private_bundle(find_bundle(request.task), mode, out, devices, request.buffer_size)
    return replace(request, task=str(folder))


def prepare(request: Request, options: Options) -> Simulation:
    """The fleet, the bundle and the workload that were asked for."""
    folder = find_bundle(request.task)
    bundle = as_wanted(load_bundle(folder), request, plain=options.plain)
    fleet = asked_fleet(request, options.seed)
    _check_size(len(fleet), bundle.description.aggregation.strategy, options)
    if request.privacy == "masks":
        bundle = with_usual_masks(bundle, len(fleet), request.buffer_size)
    elif (plan := bundle.description.masks) is not None:
        bundle = with_simulated_helpers(bundle, plan)
    return Simulation(fleet, bundle, asked_workload(folder, bundle, len(fleet), request.data, options.seed), options)


def asked_fleet(request: Request, seed: int) -> Sequence[FleetMember]:
    """The devices of the trace, or as many as were asked for."""
    if request.trace:
        return read_trace(request.trace)
    return draw_fleet([read_profile(name) for name in request.profiles], request.devices, seed)


def _check_size(devices: int, strategy: StrategyName, options: Options) -> None:
    """Refuse a fleet of which all devices would be looked at again and again.

    Raises:
        ConfigurationError: what looks at them, and what does not.
    """
    if devices <= MOST_LOOKED_AT:
        return
    if options.concurrent is not None:
        raise ConfigurationError(
            f"--concurrent draws from all {devices:,} devices again and again, which is for {MOST_LOOKED_AT:,} at most:"
            " leave it out, and devices train when samples have come"
        )
    if STRATEGIES[strategy].recall in {Recall.LAST_UPDATES, Recall.ALL_UPDATES}:
        raise ConfigurationError(
            f"strategy {strategy!r} keeps the last update of each of {devices:,} devices, and looks at all of them for"
            f" each version, which is for {MOST_LOOKED_AT:,} at most: add --strategy fedbuff"
        )


def report_failure(summary: Summary) -> int:
    """Say on standard error why the result is worth nothing, if so; returns the exit status."""
    words = failure(summary)
    if words is not None:
        print(f"edgeflock: {words}", file=sys.stderr)
    return int(words is not None)


def as_wanted(bundle: Bundle, request: Request, *, plain: bool = False) -> Bundle:
    """The bundle with the plans that the user wants, `plain` ones without compression; its files stay as they are, and
    so does its hash.

    Raises:
        ConfigurationError: they contradict each other.
    """
    task = bundle.description
    aggregation = msgspec.structs.replace(
        task.aggregation,
        buffer_size=request.buffer_size or task.aggregation.buffer_size,
        strategy=request.strategy or task.aggregation.strategy,
    )
    if plain:
        _check_plain(request, aggregation.strategy)
        update, downlink = WHOLE_UPDATES, WHOLE_VERSIONS
    else:
        update = msgspec.structs.replace(task.update, keep_fraction=request.keep_fraction or task.update.keep_fraction)
        downlink = task.downlink
        if request.differences is not None:
            downlink = with_used(msgspec.structs.replace(downlink, differences=request.differences), USED_BY)
        if request.precision_bits is not None:
            downlink = msgspec.structs.replace(downlink, precision_bits=request.precision_bits)
    scaling = task.scaling if request.data else UNSCALED  # without samples there is nothing to scale
    changed = msgspec.structs.replace(task, aggregation=aggregation, update=update, downlink=downlink, scaling=scaling)
    return Bundle(parse_description(msgspec.json.encode(changed), f"{task.task} as simulated"), bundle.files)


def _check_plain(request: Request, strategy: StrategyName) -> None:
    for option, given in (
        ("--keep-fraction", request.keep_fraction),
        ("--differences", request.differences),
        ("--precision-bits", request.precision_bits),
    ):
        if given is not None:
            raise ConfigurationError(f"{option} {given}: with --plain nothing is compressed; leave one of them out")
    if strategy == "posterior":
        raise ConfigurationError(
            "--plain: a device of a task with [posterior] keeps its factor as it keeps what compression leaves out, and"
            " with --plain nothing is compressed; leave --plain out"
        )
    if strategy == "ef21":
        raise ConfigurationError(
            "--plain: strategy 'ef21' is the other half of a compression, and with --plain nothing is compressed; add"
            " --strategy fedbuff"
        )


def asked_workload(folder: Path, bundle: Bundle, devices: int, data: str | None, seed: int) -> Workload:
    """What the devices learn: the bundle's own training on `data`, or the synthetic task."""
    task = bundle.description
    if data is None:
        if task.posterior is not None:
            raise ConfigurationError(NO_PREDICTIONS)
        return synthetic_workload(read_weights(bundle.weights, task.parameters), seed)
    samples = read_samples(data, task)
    if words := narrow_inputs(samples.inputs, task):
        print(f"edgeflock: {words}", file=sys.stderr)
    return trained_workload(folder, task, *share_out(samples, task, devices, seed))
