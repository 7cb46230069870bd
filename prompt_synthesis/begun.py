"""How far the same command had come when it was killed, so that it goes on there and publishes nothing twice.

The folder of the data keeps what was begun, and behind which version; what is published of it, the journal knows.
"""

from pathlib import Path
from typing import Final

import msgspec

from broker_coordinator.commands.generate import GenerateJob
from broker_coordinator.storage.journal import Journal
from fleet_host.new_files import remedy_for, replace_file
from fleet_protocol.errors import ConfigurationError
from prompt_synthesis.data_folder import read_json

BEGUN_FILE: Final = "versions.json"


class Wanted(msgspec.Struct, frozen=True):
    """What a command publishes: a version that is `given` in these words, and so many more behind versions of devices.

    `bundle` is the task's hash, and `devices` told the prompts of its data; the rest is as `GenerateJob` has it.
    """

    task: str
    bundle: str
    given: str
    devices: int
    generator: str
    count: int
    seed: int
    epochs: int
    replays: int
    replay_epochs: int

    @classmethod
    def of_job(cls, job: GenerateJob, bundle: str, devices: int, given: str) -> "Wanted":
        """What a job wants whose data is made."""
        settings = (job.generator, job.count, job.seed, job.epochs, job.replays, job.replay_epochs)
        return cls(job.task, bundle, given, devices, *settings)

    def is_of(self, job: GenerateJob, bundle: str) -> bool:
        """Whether the same command wants it, whatever prompts there are by now."""
        return self == self.of_job(job, bundle, self.devices, self.given)

    @property
    def replayed(self) -> str:
        """In which words the others are given."""
        return f"{self.given}, again"


class Begun(msgspec.Struct, frozen=True):
    """What is wanted, and the version that was the newest when it was begun."""

    wanted: Wanted
    after: int

    def published(self, journal: Journal) -> list[int]:
        """The versions that are published of it so far, the first one in front.

        Raises:
            JournalUnavailableError: the database failed.
        """
        task, words = self.wanted.task, (self.wanted.given, self.wanted.replayed)
        numbers = sorted(number for number in journal.history(task).given if number > self.after)
        versions = ((number, journal.version(task, number)) for number in numbers)
        return [number for number, version in versions if version is not None and version.given in words]


def begin(folder: Path, wanted: Wanted, journal: Journal) -> Begun:
    """What the folder says was begun of the same, or a new beginning, which it is to keep.

    Raises:
        ConfigurationError: the folder can't be written.
        JournalUnavailableError: the database failed.
    """
    file, newest = folder / BEGUN_FILE, journal.newest_number(wanted.task)
    begun = _kept(folder)
    if begun is not None and begun.wanted == wanted and begun.after <= newest:  # else a backup was restored since
        return begun
    begun = Begun(wanted, newest)
    try:
        replace_file(file, msgspec.json.encode(begun))
    except OSError as error:
        remedy = remedy_for(error, "name a folder that this account may write to")
        raise ConfigurationError(f"{file}: {error.strerror or error}; {remedy}") from error
    return begun


def unfinished(job: GenerateJob, bundle: str) -> Wanted | None:
    """What the same command has begun to publish, and has not ended; `bundle` is the task's hash."""
    begun = _kept(Path(job.folder))
    return begun.wanted if begun is not None and begun.wanted.is_of(job, bundle) else None


def _kept(folder: Path) -> Begun | None:
    return read_json(folder / BEGUN_FILE, Begun)


def end(folder: Path) -> None:
    """All of it is published: the same command begins anew."""
    (folder / BEGUN_FILE).unlink(missing_ok=True)
