"""The state of a simulation as chunks of a checkpoint, and back."""

import json
import sys
from collections.abc import Iterable, Iterator

import msgspec

from bundle_runtime.bundle import with_description
from fleet_protocol.bundle import parse_description
from fleet_protocol.errors import ConfigurationError
from workbench.simulation.checkpoint.graph import Line
from workbench.simulation.checkpoint.graph_reader import GraphReader
from workbench.simulation.checkpoint.graph_writer import GraphWriter
from workbench.simulation.checkpoint.vocabulary import named_in, vocabulary_of
from workbench.simulation.simulation import Simulation


class Heading(msgspec.Struct, frozen=True):
    """What stands before a state: what it was written by, what it needs before it is read, and the random numbers.

    `vocabulary` and `byte_order` are of whatever wrote it. `task` is the description with its scale, empty where the
    fleet trains the bundle that it began with.
    """

    vocabulary: list[str]
    byte_order: str
    generator: str
    task: bytes = b""


def why_not_kept(simulation: Simulation) -> str:
    """Why no checkpoint can be made of a simulation, in words; empty where one can."""
    task = simulation.bundle.description
    if task.masks is not None:
        return "where masks are simulated, the whole coordinator runs, with a journal in memory"
    if task.sample_privacy is not None:
        return "where each sample is hidden, devices draw their noise apart"
    return ""


def written(simulation: Simulation) -> tuple[Heading, Iterator[list[Line]]]:
    """The state between two events.

    Raises:
        NotWritableError: something in it has no place in a checkpoint.
    """
    vocabulary = vocabulary_of(simulation)
    world = simulation.world
    scaled = b"" if world.task is simulation.bundle.description else msgspec.json.encode(world.task)
    generator = json.dumps(world.generator.bit_generator.state)
    heading = Heading(vocabulary.signature(), sys.byteorder, generator, scaled)
    return heading, GraphWriter(vocabulary, named_in(simulation)).chunks()


def take_over(simulation: Simulation, heading: Heading, chunks: Iterable[list[Line]]) -> None:
    """Put a prepared simulation into a state that another one with the same options had.

    Raises:
        ConfigurationError: it was written by another release or on another kind of machine, or is no such state.
    """
    vocabulary = vocabulary_of(simulation)
    if heading.byte_order != sys.byteorder:
        raise ConfigurationError(f"written on a {heading.byte_order}-endian machine; go on there")
    if heading.vocabulary != vocabulary.signature():
        raise ConfigurationError("written by another release of edgeflock; go on with that one")
    world = simulation.world
    try:
        if heading.task:
            described = parse_description(heading.task, "the task in a checkpoint")
            world.begin_generation(with_description(simulation.bundle, described))
        GraphReader(vocabulary, named_in(simulation)).read(chunks)
        world.generator.bit_generator.state = json.loads(heading.generator)
    except (LookupError, TypeError, ValueError) as error:
        raise ConfigurationError(f"it holds no state of a simulation: {error}") from error
