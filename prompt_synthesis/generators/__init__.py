"""The generators that ship, one file each, and those that other packages bring."""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription
from prompt_synthesis.fitness import failure_of
from prompt_synthesis.generator import Generator, MakeGenerator

GROUP: Final = "edgeflock.generators"
SHIPPED: Final[Mapping[str, str]] = {
    "speech": "prompt_synthesis.generators.speech",
    "glyphs": "prompt_synthesis.generators.glyphs",
    "features": "prompt_synthesis.generators.features",
    "diffusers": "prompt_synthesis.generators.diffusers",
}
"""Modules with a function `make`; only the one that is used is imported."""


def make_generator(name: str, task: TaskDescription) -> Generator:
    """The generator of that name for a task; what stands behind a colon is for it: `diffusers:FOLDER`.

    Raises:
        ConfigurationError: there is none, or it can't work here, or not for this task.
    """
    name, _, argument = name.partition(":")
    if module := SHIPPED.get(name):
        shipped: Generator = import_module(module).make(task, argument)
        return shipped
    brought = {each.name: each for each in entry_points(group=GROUP)}
    if name not in brought:
        known = ", ".join([*SHIPPED, *brought])
        raise ConfigurationError(f"there is no generator {name!r}; name one of {known}, or install what brings it")
    try:
        make: MakeGenerator = brought[name].load()
        made = make(task, argument)
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:  # somebody else's code: it may raise anything
        failure = failure_of(error)
        raise ConfigurationError(f"generator {name!r} ({brought[name].value}) does not start: {failure}") from error
    if not callable(getattr(made, "generate", None)):
        raise ConfigurationError(
            f"generator {name!r} ({brought[name].value}) makes a {type(made).__name__}, which has no method"
            " generate(prompts, count, seed)"
        )
    return made
