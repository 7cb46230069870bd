"""Makes the data of a plan, part by part; what a generator can't make is noted, and the rest goes on."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np

from bundle_runtime.bundle import Bundle
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription
from prompt_synthesis.data_folder import DataFolder, DataPlan, Order, Part, PartNote
from prompt_synthesis.fitness import failure_of, why_unfit
from prompt_synthesis.generator import Generator, GeneratorError
from prompt_synthesis.prompt import Prompt, allotted

MOST_IN_PART: Final = 500
"""Samples: what memory holds of sound or pictures, and what an interruption costs."""

OnPart = Callable[[int], None]
"""Called with how many samples are there, or are known not to be."""


def planned(
    bundle: Bundle, prompts: Sequence[Prompt], generator: str, count: int, seed: int
) -> tuple[DataPlan, list[Prompt]]:
    """What is to be made, `count` samples of each class, and of which prompt each part is."""
    numbers = allotted(prompts, count)
    orders, used = [], []
    for place, (prompt, number) in enumerate(zip(prompts, numbers, strict=True)):
        for start in range(0, number, MOST_IN_PART):
            own_seed = int(np.random.SeedSequence([seed, place, start]).generate_state(1)[0])
            size = min(MOST_IN_PART, number - start)
            orders.append(Order(prompt.label, prompt.word, prompt.style, size, own_seed))
            used.append(prompt)
    return DataPlan(bundle.description.task, bundle.hash, generator, seed, _fingerprint(prompts), orders), used


def _fingerprint(prompts: Sequence[Prompt]) -> str:
    found = hashlib.sha256()
    for prompt in prompts:
        found.update(msgspec.json.encode([prompt.label, prompt.word, prompt.style, prompt.devices]))
        if prompt.mixture is not None:
            for table in (prompt.mixture.weights, prompt.mixture.means, prompt.mixture.variances):
                found.update(table.tobytes())
    return found.hexdigest()


def synthesise(
    data: DataFolder, prompts: Sequence[Prompt], generator: Generator, task: TaskDescription, *, on_part: OnPart
) -> list[PartNote]:
    """Make all parts of the folder's plan, of which `prompts` are the prompts. Those that are there stay as they are;
    those that failed, or that the task does not take, are made again.

    Raises:
        ConfigurationError: the folder can't be written, or the generator has made nothing at all.
    """
    notes = []
    done = 0
    on_part(done)
    for place, (order, prompt) in enumerate(zip(data.plan.orders, prompts, strict=True)):
        part = kept(data, place, task)
        if part is None or part.failure:
            part = _made(order, prompt, generator, task)
            data.keep(place, part)
        notes.append(part.note())
        done += order.count
        on_part(done)
    if not any(note.made for note in notes):
        why = notes[0].failure if notes else "no device has told a prompt"
        raise ConfigurationError(f"nothing was synthesised for {task.task}: {why}")
    return notes


def kept(data: DataFolder, place: int, task: TaskDescription) -> Part | None:
    """The part at that place; None where it is not made yet, is damaged, or holds what the task does not take."""
    part = data.part(place)
    if part is None or part.data is None:
        return part
    is_usable = len(part.data.labels) <= part.order.count and not why_unfit(part.data, part.order.label, task)
    return part if is_usable else None


def _made(order: Order, prompt: Prompt, generator: Generator, task: TaskDescription) -> Part:
    try:
        data = generator.generate([prompt], order.count, order.seed)
        if failure := why_unfit(data, order.label, task):
            return Part(order, None, failure_of(GeneratorError(failure)))
        return Part(order, data.first(order.count))
    except KeyboardInterrupt:
        raise
    except (Exception, SystemExit) as error:  # it may be somebody else's code: it costs its prompt, not the others
        return Part(order, None, failure_of(error))
