"""What an agent has for its owner, with or without a broker: the sample socket, sources, and predictions."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from edge_agent.configuration import AgentConfiguration
from edge_agent.shell.predictions import Predictions
from edge_agent.shell.resident_predictor import ResidentPredictor
from edge_agent.shell.rounds import Rounds
from edge_agent.shell.sample_store import SampleStore
from edge_agent.shell.source_runner import SourceRunner
from edge_agent.shell.version_follower import VersionFollower
from edge_agent.sources.intake import SampleIntake
from edge_agent.sources.readings import ReadingForm
from edge_agent.sources.sample_commands import SampleCommands
from edge_agent.sources.source import SourceHost
from edge_agent.sources.tally import SourceStatus
from edge_agent.sources.unix_socket import SampleSocket, Status


class LocalSide:
    """Takes samples into the store, and answers questions.

    Raises:
        ConfigurationError: a source isn't installed, or its settings can't be read.
    """

    def __init__(
        self,
        configuration: AgentConfiguration,
        samples: SampleStore,
        versions: VersionFollower,
        rounds: Rounds,
        *,
        arrived: Callable[[str], None],
        status: Callable[[], Status],
        take_manifest: Callable[[str], Awaitable[None]],
    ) -> None:
        tasks = frozenset(task.name for task in configuration.tasks)
        intake = SampleIntake(
            tasks,
            store=samples.add,
            store_unjudged=samples.add_unjudged,
            describe=versions.description,
            arrived=arrived,
        )
        forms = {task.name: ReadingForm(task.name) for task in configuration.tasks}
        forms |= {source.task: source.form for source in reversed(configuration.sources) if source.inputs}
        predictions = Predictions(versions, ResidentPredictor(configuration.worker), forms, take_manifest)
        self._socket = SampleSocket(
            configuration.sample_socket,
            intake,
            samples=SampleCommands(tasks, samples, versions.description, rounds.samples_changed),
            train=rounds.train_now,
            status=status,
            predict=predictions.predict,
        )
        host = SourceHost(
            configuration.fleet,
            configuration.device,
            predictions.predict_as,
            status=lambda: msgspec.json.encode(status()),
        )
        self._sources = SourceRunner(configuration.sources, intake, host)

    @property
    def sources(self) -> list[SourceStatus]:
        """What came of the readings of each source, the sample socket first."""
        return [self._socket.tally.status, *self._sources.status]

    async def run(self) -> None:
        """Run until cancelled.

        Raises:
            ConfigurationError: in a group; the sample socket can't be made.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._socket.serve())
            group.create_task(self._sources.run())
