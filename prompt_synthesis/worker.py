"""One `broker-coordinator generate`: data, report, training, a version, and replays of it."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from broker_coordinator.aggregation.version import Version
from broker_coordinator.commands.generate import GenerateJob
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle
from bundle_runtime.samples import Samples
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import KeyRing
from prompt_synthesis.begun import Wanted, begin, end, unfinished
from prompt_synthesis.data_folder import DataFolder, PartNote, unwritable, without_data
from prompt_synthesis.generators import make_generator
from prompt_synthesis.progress import ProgressBar
from prompt_synthesis.prompt import combined
from prompt_synthesis.publishing import publish_trained
from prompt_synthesis.replay import replay
from prompt_synthesis.report import REPORT_FILE, write_report
from prompt_synthesis.synthesis import kept, planned, synthesise
from prompt_synthesis.told_prompts import plan_of, told_prompts
from prompt_synthesis.training import SyntheticTrainer


@dataclass(frozen=True, slots=True)
class Made:
    """The data of a job, and who told what it was made of."""

    data: DataFolder
    notes: list[PartNote]
    devices: int
    report: Path

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(note.made for note in self.notes)

    def given(self) -> str:
        """What a version that is trained on it is."""
        return (
            f"trained on {self.samples} samples that {self.data.plan.generator} made of the prompts of {self.devices}"
            f" devices, seed {self.data.plan.seed}"
        )


def run_job(job: GenerateJob, journal: Journal, keys: KeyRing) -> dict[str, object]:
    """Do all that a job asks for; returns what there is to tell of it.

    Raises:
        ConfigurationError: what the operator can correct.
        JournalUnavailableError: the database failed.
    """
    bundle = TaskRegistry(journal.engine).bundle(job.task)
    wanted = None if job.data_only else unfinished(job, bundle.hash)
    made = (wanted and _kept(job, bundle, wanted)) or _data(job, journal, bundle, keys)
    missing = without_data(made.notes, bundle.description.label.classes)
    told: dict[str, object] = {
        "task": job.task,
        "devices": made.devices,
        "parts": len(made.notes),
        "samples": made.samples,
        "missing_samples": sum(note.missing for note in made.notes),
        "failed_parts": sum(bool(note.failure) for note in made.notes),
        "first_failure": next((note.failure for note in made.notes if note.failure), None),
        "classes_without_data": ",".join(map(str, missing)),
        "report": str(made.report),
    }
    return told if job.data_only else told | _versions(job, journal, bundle, made)


def _kept(job: GenerateJob, bundle: Bundle, wanted: Wanted) -> Made | None:
    """The data that is being published, also where devices tell other prompts by now; None where some of it is gone."""
    data = DataFolder.kept(Path(job.folder))
    if data is None or data.plan.bundle != bundle.hash:
        return None
    parts = (kept(data, place, bundle.description) for place in range(len(data.plan.orders)))
    notes = [part.note() for part in parts if part is not None]
    made = Made(data, notes, wanted.devices, data.folder / REPORT_FILE)
    return made if len(notes) == len(data.plan.orders) and made.given() == wanted.given else None


def _data(job: GenerateJob, journal: Journal, bundle: Bundle, keys: KeyRing) -> Made:
    task = bundle.description
    prompt_plan = plan_of(task)
    name = job.generator or prompt_plan.generator
    generator = make_generator(name, task)
    told = told_prompts(journal, task, keys)
    if not told:
        raise ConfigurationError(
            f"no device has told a prompt for {job.task}; devices do so in their first round (their owners allow it by"
            " `most` in [tasks.prompts] of agent.toml)"
        )
    plan, prompts = planned(bundle, combined(told, prompt_plan), name, job.count, job.seed)
    bar = ProgressBar(f"{name} for {job.task}", sum(order.count for order in plan.orders))
    data = DataFolder(Path(job.folder), plan)
    notes = synthesise(data, prompts, generator, task, on_part=bar.show)
    try:
        report = write_report(data, task)
    except OSError as error:
        raise unwritable(data.folder, error) from error
    return Made(data, notes, len(told), report)


@dataclass(frozen=True, slots=True)
class Learner:
    """Trains on all data of a job."""

    trainer: SyntheticTrainer
    samples: Samples
    seed: int

    def trained(self, what: str, epochs: int, weights: FloatVector) -> FloatVector:
        """The weights after so many epochs; `what` is what a bar of progress is called."""
        bar = ProgressBar(what, self.trainer.steps(self.samples, epochs))
        bar.show(0)
        return self.trainer.train(weights, self.samples, epochs, self.seed, bar.show).weights


def _versions(job: GenerateJob, journal: Journal, bundle: Bundle, made: Made) -> dict[str, object]:
    trainer = SyntheticTrainer(bundle, job.threads)
    learner = Learner(trainer, trainer.samples(made.data.parts()), job.seed)
    wanted = Wanted.of_job(job, bundle.hash, made.devices, made.given())
    begun = begin(made.data.folder, wanted, journal)
    published = begun.published(journal)
    if not published:
        train = partial(learner.trained, "training", job.epochs)
        published = [publish_trained(journal, bundle, train, wanted.given).number]
    first = journal.version(job.task, published[0])
    replays = [*published[1:], *_replays(wanted, journal, bundle, learner, published)]
    if len(replays) == job.replays:
        end(made.data.folder)
    told: dict[str, object] = {"version": published[0], "replays": ",".join(map(str, replays))}
    if first is not None:
        weights = first.state(bundle.description.parameters, {}).weights
        told |= {"weights": first.weights_hash, "accuracy_on_synthetic": trainer.accuracy(weights, learner.samples)}
    return told


def _replays(wanted: Wanted, journal: Journal, bundle: Bundle, learner: Learner, published: Sequence[int]) -> list[int]:
    """The versions that are published behind others of the fleet, after those that are `published` already, until there
    are enough or a signal ends it.
    """
    left = wanted.replays - (len(published) - 1)
    if not left:
        return []

    def publish() -> Version:
        train = partial(learner.trained, "replay", wanted.replay_epochs)
        return publish_trained(journal, bundle, train, wanted.replayed)

    with _stopped_by_signals() as stopping:
        return replay(journal, wanted.task, published[-1], left, publish=publish, stopping=stopping)


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Is set by SIGTERM or Ctrl-C, which end nothing by themselves meanwhile."""
    stopping = threading.Event()
    before = {ending: signal.getsignal(ending) for ending in (signal.SIGTERM, signal.SIGINT)}
    for ending in before:
        signal.signal(ending, lambda *_: stopping.set())
    try:
        yield stopping
    finally:
        for ending, handler in before.items():
            signal.signal(ending, handler)
