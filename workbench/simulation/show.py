"""`edgeflock simulate`: from the user's options to a simulation, and from its result to output."""

import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from broker_coordinator.aggregation.strategies import STRATEGIES, Recall
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from edge_agent.profiles import read_profile
from fleet_protocol.aggregation_plan import StrategyName
from fleet_protocol.bundle import parse_description
from fleet_protocol.codec import read_weights
from fleet_protocol.downlink_plan import Differences, DownlinkPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.scaling import UNSCALED
from fleet_protocol.update_plan import UpdatePlan
from workbench.data.narrow_inputs import narrow_inputs
from workbench.data.samples import read_samples, share_out
from workbench.privacy_modes.modes import Mode
from workbench.privacy_modes.private_bundle import private_bundle
from workbench.recipe_folder import find_bundle
from workbench.report.labels import bytes_label
from workbench.report.privacy_told import told_notes
from workbench.simulation.fleet_files import draw_fleet, read_trace
from workbench.simulation.ledger import Point, Summary
from workbench.simulation.masks.task import with_simulated_helpers, with_usual_masks
from workbench.simulation.progress import Progress
from workbench.simulation.simulation import Options, Result, Simulation
from workbench.simulation.verdict import failure, remarks
from workbench.simulation.workload import Workload, synthetic_workload, trained_workload

MAX_GUARD_ROWS = 4
MOST_LOOKED_AT = 100_000
"""Devices, where something goes over all of them for each version or round."""
WHOLE_UPDATES: Final = UpdatePlan(keep_fraction=1.0, quantisation="float32", selection="dense")
WHOLE_VERSIONS: Final = DownlinkPlan(differences="off")
SUMMARY_FILE, HISTORY_FILE = "summary.json", "history.jsonl"


@dataclass(frozen=True, slots=True)
class Request:
    """What to simulate: `data` makes the devices really train; a `trace` takes the place of `devices` and `profiles`.

    `buffer_size`, `keep_fraction`, `differences`, `precision_bits` and `strategy` replace the task's.
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


def simulate(request: Request, options: Options) -> int:
    """Simulate, show the result, and write it into `request.out`.

    Returns the exit status: 1 where nothing was learned or most was refused, which is then said on standard error.

    Raises:
        ConfigurationError: with what the user can change.
    """
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        simulation = prepare(with_mode(request, Path(scratch) / "bundle"), options)
        started = time.monotonic()
        progress = Progress(Console(stderr=True), started, options.seconds)
        result = simulation.run(progress.show, progress.tick)
    if request.out is not None:
        write_result(result, request.out)
    if request.as_json:
        print(msgspec.json.encode(result.summary).decode())
    else:
        print_summary(result.summary, Console(), time.monotonic() - started)
    return report_failure(result.summary)


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
    fleet = (
        read_trace(request.trace)
        if request.trace
        else draw_fleet([read_profile(name) for name in request.profiles], request.devices, options.seed)
    )
    _check_size(len(fleet), bundle.description.aggregation.strategy, options)
    if request.privacy == "masks":
        bundle = with_usual_masks(bundle, len(fleet), request.buffer_size)
    elif (plan := bundle.description.masks) is not None:
        bundle = with_simulated_helpers(bundle, plan)
    return Simulation(fleet, bundle, _workload(folder, bundle, len(fleet), request.data, options.seed), options)


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


def write_result(result: Result, out: Path) -> None:
    """The summary and, one JSON object a line, the history. The same simulation gives the same bytes."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / SUMMARY_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(result.summary), indent=2) + b"\n")
        (out / HISTORY_FILE).write_bytes(b"".join(msgspec.json.encode(point) + b"\n" for point in result.history))
    except OSError as error:
        raise ConfigurationError(f"{out}: can't be written: {error.strerror}; choose another --out") from error


def report_failure(summary: Summary) -> int:
    """Say on standard error why the result is worth nothing, if so; returns the exit status."""
    words = failure(summary)
    if words is not None:
        print(f"edgeflock: {words}", file=sys.stderr)
    return int(words is not None)


def print_summary(summary: Summary, console: Console, wall_seconds: float) -> None:
    """A table of what matters, and what the user may want to change."""
    table = Table(title=f"{summary.devices} devices, seed {summary.seed}", show_header=False)
    for row in _rows(summary):
        table.add_row(*row)
    table.add_row("simulated in", f"{wall_seconds:.1f} s")
    console.print(table)
    for remark in remarks(summary):
        console.print(f"- {remark}", highlight=False, markup=False, soft_wrap=True)


def _rows(summary: Summary) -> Iterator[tuple[str, str]]:
    yield "virtual time", f"{summary.virtual_seconds / 3600:.2f} h"
    yield "versions, of updates", f"{summary.versions:,}, {summary.updates:,}"
    yield summary.measure, f"{summary.score:.4f}, of version 0 {summary.first_score:.4f}"
    for value, name, note in told_notes(summary.told):
        yield name, f"{value} {note}"
    for head, score in summary.heads.items():
        yield head, f"{score:.4f}"
    if summary.target is not None:
        yield f"{summary.target:g} reached", _reached(summary.reached)
    yield "sent up", _by_kind(summary.bytes_up)
    yield "sent down", _by_kind(summary.bytes_down)
    yield "staleness", _staleness(summary.staleness)
    refused = sum(count.times for count in summary.refused.values())
    yield (
        "mishaps",
        f"{summary.crashes:,} crashes, {summary.rounds_lost:,} rounds lost to them,"
        f" {summary.rounds_diverged.times:,} diverged; {refused:,} messages refused",
    )
    for words, times in sorted(summary.guard_refusals.items(), key=lambda item: -item[1])[:MAX_GUARD_ROWS]:
        yield "deferred by a guard", f"{times:,} times: {words}"


def _reached(point: Point | None) -> str:
    if point is None:
        return "not in this time"
    hours = point.virtual_seconds / 3600
    return f"after {hours:.2f} h and {point.updates:,} updates, {bytes_label(point.uplink_bytes)} of them"


def _by_kind(sizes: Mapping[str, int]) -> str:
    parts = ", ".join(f"{kind} {bytes_label(size)}" for kind, size in sorted(sizes.items(), key=lambda item: -item[1]))
    return f"{bytes_label(sum(sizes.values()))} ({parts})" if parts else "nothing"


def _staleness(counts: Mapping[int, int]) -> str:
    if not counts:
        return "no update"
    values = np.repeat(list(counts), list(counts.values()))
    median, high = np.percentile(values, [50, 95])
    return f"median {median:.0f}, 95 % at most {high:.0f}, largest {values.max()}"


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
        downlink = msgspec.structs.replace(
            task.downlink,
            differences=request.differences or task.downlink.differences,
            precision_bits=task.downlink.precision_bits if request.precision_bits is None else request.precision_bits,
        )
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
    if strategy == "ef21":
        raise ConfigurationError(
            "--plain: strategy 'ef21' is the other half of a compression, and with --plain nothing is compressed; add"
            " --strategy fedbuff"
        )


def _workload(folder: Path, bundle: Bundle, devices: int, data: str | None, seed: int) -> Workload:
    task = bundle.description
    if data is None:
        return synthetic_workload(read_weights(bundle.weights, task.parameters), seed)
    samples = read_samples(data, task)
    if words := narrow_inputs(samples.inputs, task):
        print(f"edgeflock: {words}", file=sys.stderr)
    return trained_workload(folder, task, *share_out(samples, task, devices, seed))
