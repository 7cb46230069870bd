"""A folder of synthesised data: a plan, and a part for each prompt, written whole or not at all.

Whoever is interrupted begins again behind the last part. Another plan needs another folder.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from fleet_host.new_files import remedy_for, replace_file
from fleet_protocol.codec.weights import UNREADABLE
from fleet_protocol.errors import ConfigurationError
from prompt_synthesis.fitness import failure_of
from prompt_synthesis.generator import GeneratorError, Synthetic

PLAN_FILE: Final = "plan.json"
Shape = TypeVar("Shape")


class Order(msgspec.Struct, frozen=True):
    """One part: `count` samples of a prompt."""

    label: int
    word: str
    style: str
    count: int
    seed: int


class DataPlan(msgspec.Struct, frozen=True):
    """What the folder is to hold: it follows from the prompts and the command line. `bundle` is the task's hash,
    `prompts` that of all prompts, moments included.
    """

    task: str
    bundle: str
    generator: str
    seed: int
    prompts: str
    orders: list[Order]


@dataclass(frozen=True, slots=True)
class Part:
    """A part that was made; or why it could not be, in `failure`."""

    order: Order
    data: Synthetic | None
    failure: str = ""

    def note(self) -> "PartNote":
        """What is left of it when its data is on the disk."""
        return PartNote(self.order, 0 if self.data is None else len(self.data.labels), self.failure)


@dataclass(frozen=True, slots=True)
class PartNote:
    """A part without its data: so many samples were `made`, or why none were, in `failure`."""

    order: Order
    made: int
    failure: str

    @property
    def missing(self) -> int:
        """How many samples are short of what was ordered."""
        return self.order.count - self.made


class DataFolder:
    """The data of one plan in `folder`, which is made.

    Raises:
        ConfigurationError: it holds another plan's data, or can't be written.
    """

    def __init__(self, folder: Path, plan: DataPlan) -> None:
        self.folder = folder
        self.plan = plan
        file = folder / PLAN_FILE
        written = msgspec.json.format(msgspec.json.encode(plan), indent=1)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if file.is_file() and file.read_bytes() != written:
                raise ConfigurationError(_of_another(folder, read_plan(folder), plan))
            replace_file(file, written)
        except OSError as error:
            raise unwritable(folder, error) from error

    @classmethod
    def kept(cls, folder: Path) -> "DataFolder | None":
        """The data that a folder holds, whatever its plan; None where there is none.

        Raises:
            ConfigurationError: it can't be written.
        """
        plan = read_plan(folder)
        return None if plan is None else cls(folder, plan)

    def part(self, place: int) -> Part | None:
        """The part of the order at that place; None where it is not made yet, or damaged."""
        order, path = self.plan.orders[place], self._file(place)
        if not path.is_file():  # a pipe would be waited for
            return None
        try:
            with safe_open(path, "numpy") as file:
                about = file.metadata() or {}
                if about.get("failure"):
                    return Part(order, None, failure_of(GeneratorError(about["failure"])))
                origins = msgspec.json.decode(about["origins"], type=list[str])
                inputs, labels = file.get_tensor("inputs"), file.get_tensor("labels")
        except (OSError, msgspec.MsgspecError, *UNREADABLE):
            return None
        return Part(order, Synthetic(inputs, labels, origins, features=about.get("features") == "yes"))

    def keep(self, place: int, part: Part) -> None:
        """Write a part.

        Raises:
            ConfigurationError: it can't be written.
        """
        data = part.data or Synthetic(np.zeros(0, np.float32), np.zeros(0, np.int64), [])
        about = {
            "failure": part.failure,
            "origins": msgspec.json.encode(list(data.origins)).decode(),
            "features": "yes" if data.features else "no",
        }
        content = save({"inputs": np.ascontiguousarray(data.inputs), "labels": data.labels.astype(np.int64)}, about)
        try:
            replace_file(self._file(place), content)
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def parts(self) -> Iterator[Part]:
        """All that are made, in the order of the plan, read one by one."""
        for place in range(len(self.plan.orders)):
            if (part := self.part(place)) is not None:
                yield part

    def _file(self, place: int) -> Path:
        return self.folder / f"part-{place:05}.safetensors"


def read_plan(folder: Path) -> DataPlan | None:
    """The plan of the data in a folder; None where there is none, or none that can be read."""
    return read_json(folder / PLAN_FILE, DataPlan)


def read_json(file: Path, shape: type[Shape]) -> Shape | None:
    """What a file of the folder holds; None where there is none, or none that can be read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=shape) if file.is_file() else None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _of_another(folder: Path, there: DataPlan | None, wanted: DataPlan) -> str:
    """In what the folder's data differs from what is wanted, and what to do."""
    if there is None:
        differs = f"its {PLAN_FILE} can't be read"
    elif there.task != wanted.task:
        differs = f"it holds data of the task {there.task}, not {wanted.task}"
    elif there.generator != wanted.generator or there.seed != wanted.seed:
        differs = (
            f"it holds what {there.generator} made with seed {there.seed}, not {wanted.generator} with seed"
            f" {wanted.seed}"
        )
    elif there.bundle != wanted.bundle:
        differs = f"{wanted.task} was published anew since it was made"
    else:
        differs = "devices tell other prompts since it was made, or --count was another"
    return f"{folder} is in use: {differs}; name another folder, or delete it"


def without_data(notes: Sequence[PartNote], classes: int) -> list[int]:
    """The classes of which there is no sample."""
    there = {note.order.label for note in notes if note.made}
    return [label for label in range(classes) if label not in there]


def unwritable(folder: Path, error: OSError) -> ConfigurationError:
    """That a folder of data can't be written, and what helps."""
    remedy = remedy_for(error, "name a folder that this account may write to")
    return ConfigurationError(f"{folder}: {error.strerror or error}; {remedy}")
