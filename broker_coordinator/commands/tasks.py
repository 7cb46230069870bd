"""`broker-coordinator tasks publish | list | show | diagnose | quarantine | pause | rollback | aggregate | ...`."""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from broker_coordinator.aggregation.diagnostics.plan_fit import misfits, of_trusted
from broker_coordinator.commands.clusters import add_cluster_option
from broker_coordinator.commands.diagnose import diagnosis
from broker_coordinator.commands.export import model_of, write_bundle, write_model
from broker_coordinator.commands.gossip_told import gossip_advice, require_versions
from broker_coordinator.commands.invite import invite
from broker_coordinator.commands.output import add_noun, write_fields, write_rows
from broker_coordinator.commands.personal_told import personal_told
from broker_coordinator.commands.quarantine import add_quarantine_options, quarantine
from broker_coordinator.commands.refine import refine
from broker_coordinator.commands.rollback import roll_back
from broker_coordinator.commands.shard_rules import require_no_masks
from broker_coordinator.commands.task_shown import task_row, task_shown
from broker_coordinator.commands.verify import verify_versions
from broker_coordinator.configuration import PROGRAM, CoordinatorConfiguration, load_configuration
from broker_coordinator.serving.behind_versions import LONGEST_SECONDS
from broker_coordinator.storage.cluster_registry import check_has
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.stored_tasks import StoredTask
from broker_coordinator.storage.task_registry import TaskRegistry
from broker_coordinator.storage.version_registry import VersionRegistry
from bundle_runtime.bundle_folder import load_bundle
from fleet_host.child_process import ended_after
from fleet_host.command_line import Verbs, name_of, whole_number
from fleet_protocol.bundle_files import blob_hash
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import Invitation
from fleet_protocol.limits import MAX_NAMED_GENERATION, MAX_SEQUENCE

LISTED = ("task", "version", "generation", "waiting", "accepted", "paused", "bundle")

_VERSION = whole_number(0, MAX_SEQUENCE)

Verb = Callable[[Journal, argparse.Namespace, CoordinatorConfiguration], None]
ReadingVerb = Callable[[JournalReader, argparse.Namespace, CoordinatorConfiguration], int]
"""Writes nothing to the database; returns the exit status."""


def add_parser(nouns: Verbs, *parents: argparse.ArgumentParser) -> None:
    """The noun and its verbs."""
    sentence = (
        "Publish, list, show, diagnose, invite to, pause, roll back, renew, remove, evaluate, export or verify tasks."
    )
    verb = add_noun(nouns, "tasks", sentence, *parents)

    def verb_of_task(name: str, sentence: str) -> argparse.ArgumentParser:
        added = verb(name, sentence)
        added.add_argument("task", type=name_of("task"), metavar="TASK", help="the task's name")
        return added

    publish = verb("publish", "Serve a bundle from now on, in place of the one that its task has.")
    publish.add_argument("bundle", type=Path, metavar="FOLDER", help="what `edgeflock export` wrote")
    verb("list", "List all tasks that are served.")
    show = verb_of_task("show", "Show a task, what was set aside, and its last versions.")
    show.add_argument(
        "--last", type=whole_number(0, MAX_SEQUENCE), default=20, metavar="N", help="so many versions and payloads (20)"
    )
    verb_of_task(
        "diagnose", "Say how unlike devices are, by their updates and by what queries have found, and what to set."
    )
    held = verb_of_task("quarantine", "List updates that are held, or were tempered lately; release or drop held ones.")
    add_quarantine_options(held)
    verb_of_task("invite", "Ask devices for a round now: those whose trigger has invitation = true.")
    verb_of_task("pause", "Take no updates of a task for now; devices keep theirs.")
    verb_of_task("resume", "Take updates of a paused task again.")
    rollback = verb_of_task("rollback", "Make a new version with the weights and optimiser's state of an old one.")
    rollback.add_argument("version", type=_VERSION, metavar="VERSION", help="the number of the old version")
    verb_of_task("aggregate", "Make a version now of what waits, though it is too few.")
    verb_of_task("refine", "Go on from a solved head with rounds, in which devices train and send updates.")
    renew = verb_of_task("renew", "Let devices follow this database, whatever later version they know.")
    renew.add_argument(
        "--after-generation",
        type=whole_number(0, MAX_NAMED_GENERATION),
        default=0,
        metavar="N",
        help="the latest that devices or the log name",
    )
    verb_of_task("remove", "Serve a task no longer, tell its devices, and delete its versions and updates.")
    export = verb_of_task(
        "export", "Write the model to use as safetensors: the mean of the last versions, as the task says."
    )
    export.add_argument("out", type=Path, metavar="OUT", help="the file to write")
    export.add_argument("--version", type=_VERSION, metavar="N", help="up to this version, not the newest")
    export.add_argument("--single", action="store_true", help="that version by itself, as devices train from it")
    add_cluster_option(export)
    bundle = verb_of_task("bundle", "Write the bundle as it is served, with the scale that the fleet has made.")
    bundle.add_argument("folder", type=Path, metavar="FOLDER", help="the folder to write")
    evaluate = verb_of_task(
        "evaluate", "Evaluate a version on held-out samples, and store the result, unless it is of a cluster."
    )
    evaluate.add_argument("--version", type=_VERSION, metavar="N", help="this version, not the newest")
    evaluate.add_argument("--data", type=Path, metavar="FILE", help="not the file that coordinator.toml names")
    add_cluster_option(evaluate)
    measured = verb_of_task(
        "variety", "Measure how much the pictures differ that a version draws, beside earlier ones."
    )
    measured.add_argument("--version", type=_VERSION, metavar="N", help="this version, not the newest")
    verify = verb_of_task("verify", "Compute the versions again from the journal, and compare every bit.")
    verify.add_argument(
        "--from", type=_VERSION, dest="start", metavar="N", help="those after this version, not the bundle's own"
    )


def run(options: argparse.Namespace) -> int:
    """Do what the command line says; a running coordinator notices at its next batch, or within a second.

    Returns the exit status.
    """
    configuration = load_configuration(options.config)
    if reading := _READING_VERBS.get(options.action):
        with JournalReader.open(configuration.journal()) as reader:
            _require_fitting(reader, options)
            return reading(reader, options, configuration)
    changes_held = options.action == "quarantine" and (options.release or options.drop)
    looks = options.action in VERBS_THAT_LOOK and not changes_held
    opened = Journal.open_to_look if looks else Journal.open
    with opened(configuration.journal()) as journal:
        _require_fitting(journal, options)
        _VERBS[options.action](journal, options, configuration)
        return 0


def _require_fitting(journal: JournalReader, options: argparse.Namespace) -> None:
    if options.action in VERBS_OF_VERSIONS:
        require_versions(TaskRegistry(journal.engine), options.task, f"tasks {options.action}")


def _publish(journal: Journal, options: argparse.Namespace, configuration: CoordinatorConfiguration) -> None:
    bundle = load_bundle(options.bundle)
    require_no_masks([bundle.description], configuration.served_shards)
    published = TaskRegistry(journal.engine).publish(bundle)
    devices, task = DeviceRegistry(journal.engine), bundle.description
    unfit = [*misfits(task, devices.approved_count()), *of_trusted(task, devices.approved_presences)]
    for misfit in (*unfit, *gossip_advice(journal.engine, task)):
        sys.stderr.write(f"{PROGRAM}: warning: {task.task}: {misfit}\n")
    _write([published], journal, options)


def _list(journal: Journal, options: argparse.Namespace, _: CoordinatorConfiguration) -> None:
    _write(TaskRegistry(journal.engine).tasks(), journal, options)


def _pause(journal: Journal, options: argparse.Namespace, _: CoordinatorConfiguration) -> None:
    paused = options.action == "pause"
    _write([TaskRegistry(journal.engine).set_paused(options.task, paused=paused)], journal, options)


def _show(journal: Journal, options: argparse.Namespace, _: CoordinatorConfiguration) -> None:
    write_fields(task_shown(journal, options.task, options.last), as_json=options.json)


def _diagnose(journal: Journal, options: argparse.Namespace, configuration: CoordinatorConfiguration) -> None:
    write_fields(diagnosis(journal, options.task, configuration.keys()), as_json=options.json)


def _quarantine(journal: Journal, options: argparse.Namespace, _: CoordinatorConfiguration) -> None:
    quarantine(journal, options)


def _invite(journal: Journal, options: argparse.Namespace, configuration: CoordinatorConfiguration) -> None:
    task = TaskRegistry(journal.engine).task(options.task)
    version = journal.newest_number(task.name)
    invite(configuration, task.name, Invitation(version, task.generation, wants_round=True))
    row = {"task": task.name, "version": version, "generation": task.generation}
    write_fields(row, as_json=options.json)


def _roll_back(journal: Journal, options: argparse.Namespace, configuration: CoordinatorConfiguration) -> None:
    made = roll_back(journal, configuration, options.task, options.version)
    row = {"task": made.task, "version": made.number, "restored": made.restored, "weights": made.weights_hash}
    write_fields(row, as_json=options.json)


def _aggregate(journal: Journal, options: argparse.Namespace, _: CoordinatorConfiguration) -> None:
    version, waiting = VersionRegistry(journal.engine).want(options.task)
    write_fields({"task": options.task, "version": version, "waiting": waiting}, as_json=options.json)


def _refine(journal: Journal, options: argparse.Namespace, _: CoordinatorConfiguration) -> None:
    _write([refine(journal, options.task)], journal, options)


def _renew(journal: Journal, options: argparse.Namespace, _: CoordinatorConfiguration) -> None:
    renewed = TaskRegistry(journal.engine).renew(options.task, after_generation=options.after_generation)
    if renewed.removed:
        _write_removed(renewed, options)
    else:
        _write([renewed], journal, options)


def _remove(journal: Journal, options: argparse.Namespace, _: CoordinatorConfiguration) -> None:
    _write_removed(TaskRegistry(journal.engine).remove(options.task), options)


def _export(journal: JournalReader, options: argparse.Namespace, _: CoordinatorConfiguration) -> int:
    weights = model_of(journal, options.task, options.version, single=options.single, cluster=options.cluster)
    write_model(options.out, weights)
    row: dict[str, object] = {"file": str(options.out), "bytes": len(weights), "sha256": blob_hash(weights)}
    row |= personal_told(TaskRegistry(journal.engine).bundle(options.task).description)
    write_fields(row, as_json=options.json)
    return 0


def _bundle(journal: JournalReader, options: argparse.Namespace, _: CoordinatorConfiguration) -> int:
    bundle = TaskRegistry(journal.engine).bundle(options.task)
    write_bundle(options.folder, bundle)
    write_fields({"folder": str(options.folder), "bundle": bundle.hash}, as_json=options.json)
    return 0


def _evaluate(journal: Journal, options: argparse.Namespace, configuration: CoordinatorConfiguration) -> None:
    from broker_coordinator.serving.evaluation import evaluate  # noqa: PLC0415 - onnxruntime is for this alone
    from bundle_runtime.sample_file import read_samples  # noqa: PLC0415

    registry = TaskRegistry(journal.engine)
    file = options.data or _held_out_file(configuration, options.task)
    bundle = registry.bundle(options.task)
    if options.cluster:
        check_has(bundle.description, options.cluster)
    held_out = read_samples(file, bundle.description)
    if options.version is None:
        version = journal.newest_version(options.task)
    else:
        version = journal.version(options.task, options.version)
    if version is None:
        raise ConfigurationError(
            f"version {options.version} of {options.task} is not in the journal, or its weights are dropped"
        )
    late = f"{options.task}: evaluating takes over {LONGEST_SECONDS:g} s; hold fewer samples out than in {file}"
    with ended_after(LONGEST_SECONDS, f"{PROGRAM}: {late}"):
        found, heads = evaluate(bundle, version, held_out, options.cluster)
    row = {"task": options.task} | asdict(found) | personal_told(bundle.description)
    if options.cluster:
        row["cluster"] = options.cluster
    else:
        VersionRegistry(journal.engine).add_evaluation(options.task, found)
    row |= {"heads": {name: asdict(figures) for name, figures in heads.items()}} if heads else {}
    write_fields(row, as_json=options.json)


def _variety(journal: JournalReader, options: argparse.Namespace, _: CoordinatorConfiguration) -> int:
    from broker_coordinator.serving.variety import narrowings  # noqa: PLC0415 - onnxruntime is for this alone

    version, found = narrowings(journal, options.task, options.version)
    clusters = [asdict(each) | {"narrow": each.is_narrow} for each in found]
    write_fields({"task": options.task, "version": version, "clusters": clusters}, as_json=options.json)
    return 0


def _verify(journal: JournalReader, options: argparse.Namespace, configuration: CoordinatorConfiguration) -> int:
    found = verify_versions(journal, options.task, options.start, configuration.keys())
    write_fields(asdict(found) | {"equal": found.difference is None}, as_json=options.json)
    return 0 if found.difference is None else 1


def _held_out_file(configuration: CoordinatorConfiguration, task: str) -> Path:
    for settings in configuration.evaluations:
        if settings.task == task:
            return settings.file
    raise ConfigurationError(f"no [[evaluations]] of task {task!r} in coordinator.toml; add one, or pass --data FILE")


def _write_removed(task: StoredTask, options: argparse.Namespace) -> None:
    row = {"task": task.name, "removed": task.removed, "generation": task.generation}
    write_fields(row, as_json=options.json)


def _write(tasks: list[StoredTask], journal: Journal, options: argparse.Namespace) -> None:
    rows = [task_row(task, journal) for task in tasks]
    write_rows(rows, LISTED, as_json=options.json, when_empty="no task yet; add one with: tasks publish FOLDER")


_VERBS: Mapping[str, Verb] = {
    "publish": _publish,
    "list": _list,
    "diagnose": _diagnose,
    "quarantine": _quarantine,
    "invite": _invite,
    "show": _show,
    "pause": _pause,
    "resume": _pause,
    "rollback": _roll_back,
    "aggregate": _aggregate,
    "refine": _refine,
    "renew": _renew,
    "remove": _remove,
    "evaluate": _evaluate,
}
VERBS_OF_VERSIONS = frozenset({"pause", "invite", "aggregate", "evaluate", "quarantine", "variety", "verify"})
"""A task that devices learn by gossip has none; `rollback` and `export` ask by themselves."""
VERBS_THAT_LOOK = frozenset({"list", "show", "diagnose", "quarantine", "invite"})
_READING_VERBS: Mapping[str, ReadingVerb] = {
    "export": _export,
    "bundle": _bundle,
    "variety": _variety,
    "verify": _verify,
}
