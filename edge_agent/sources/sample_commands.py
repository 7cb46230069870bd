"""What a program on the device may change of stored samples, through the sample socket. Pure.

    {"command": "correct", "task": "digits", "sample": 41, "label": 4}          ->   {"ok": true, "sample": 57}
    {"command": "correct", "task": "digits", "inputs": [0.0, ...], "label": 4}  ->   the newest with these inputs
    {"command": "forget", "task": "digits", "samples": [41, 42]}                ->   {"ok": true, "forgotten": 2}
    {"command": "forget", "task": "digits"}                                     ->   all of the task

A corrected sample counts as new, and has a new number.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import msgspec

from edge_agent.sources.schema_check import check_inputs, check_label
from fleet_protocol.document_errors import NOT_JSON
from fleet_protocol.sample_line import Sample
from fleet_protocol.sample_row import Given
from fleet_protocol.task_description import TaskDescription

HIGHEST_NUMBER = 2**53
"""Of a sample. A number above it is damaged: no device ever counts so far, and SQLite would soon find none above it."""

Number = Annotated[int, msgspec.Meta(ge=1, le=HIGHEST_NUMBER)]


class Correct(msgspec.Struct, forbid_unknown_fields=True, tag_field="command", tag="correct"):
    """Another label for a stored sample, which its number names, or its inputs."""

    task: str
    label: Given
    sample: Number | None = None
    inputs: list[float] | dict[str, float | list[float]] | None = None


class Forget(msgspec.Struct, forbid_unknown_fields=True, tag_field="command", tag="forget"):
    """Delete stored samples: those with these numbers, or all of the task."""

    task: str
    samples: list[Number] | None = None


class Changed(msgspec.Struct, omit_defaults=True):
    """What was done: the number that a corrected sample has now, or how many were forgotten."""

    ok: Literal[True]
    sample: int | None = None
    forgotten: int | None = None


class ChangeableSamples(Protocol):
    """The sample store, as these commands need it."""

    def find(self, task: str, inputs: bytes) -> int:
        """The number of the newest sample with these inputs, 0 without one."""
        ...

    def correct(self, task: str, identifier: int, label: int | bytes) -> int:
        """Give a sample another label; its new number, 0 where there is no such sample."""
        ...

    def forget(self, task: str, identifiers: list[int] | None) -> int:
        """Delete samples, all where none are named; how many there were."""
        ...


_DECODER: msgspec.json.Decoder[Correct | Forget] = msgspec.json.Decoder(Correct | Forget)


@dataclass(frozen=True, slots=True)
class SampleCommands:
    """Changes the samples of `tasks`, and tells `changed` of which task."""

    tasks: frozenset[str]
    store: ChangeableSamples
    describe: Callable[[str], TaskDescription | None]
    changed: Callable[[str], None]

    def change(self, line: bytes) -> Changed:
        """Do what a line says.

        Raises:
            ValueError: it can't be read, or done; why, and what to do.
            sqlite3.Error: the disk.
        """
        try:
            command = _DECODER.decode(line)
        except NOT_JSON as error:
            raise ValueError(f"{error}; see docs/samples.md") from error
        if command.task not in self.tasks:
            raise ValueError(f"unknown task {command.task!r}; agent.toml lists {sorted(self.tasks)}")
        done = self._correct(command) if isinstance(command, Correct) else self._forget(command)
        self.changed(command.task)
        return done

    def _correct(self, command: Correct) -> Changed:
        description = self.describe(command.task)
        if description is None:
            raise ValueError(f"the schema of {command.task} is not known yet, so its labels can't be; try again later")
        label = check_label(command.label, description)
        if (command.sample is None) == (command.inputs is None):
            raise ValueError('name the sample by "sample", its number, or by "inputs", not both')
        number = command.sample or self._with_inputs(command, description)
        corrected = self.store.correct(command.task, number, label) if number else 0
        if not corrected:
            raise ValueError(
                f"{command.task} has no such sample any more; `edge-agent samples export --numbers` lists those it has"
            )
        return Changed(True, sample=corrected)

    def _with_inputs(self, command: Correct, description: TaskDescription) -> int:
        inputs = command.inputs if command.inputs is not None else []
        return self.store.find(command.task, check_inputs(Sample(command.task, inputs), description))

    def _forget(self, command: Forget) -> Changed:
        numbers = None if command.samples is None else [int(number) for number in command.samples]
        return Changed(True, forgotten=self.store.forget(command.task, numbers))
