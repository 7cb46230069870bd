"""What an agent has for its owner, with or without a broker: sample socket, sources, predictions, looks at samples."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec

from edge_agent.configuration import AgentConfiguration
from edge_agent.preparation.preparation import Preparation, SeriesStatus
from edge_agent.shell.learning.rounds import Rounds
from edge_agent.shell.learning.sample_looks import SampleLooks
from edge_agent.shell.predicting.predictions import Predictions
from edge_agent.shell.predicting.resident_predictor import ResidentPredictor
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.source_runner import SourceRunner
from edge_agent.shell.storage.series_memory import SeriesMemory
from edge_agent.shell.versions.version_follower import VersionFollower
from edge_agent.shell.versions.wanted_descriptions import WantedDescriptions
from edge_agent.sources.intake import SampleIntake
from edge_agent.sources.reading_receiver import ReadingReceiver
from edge_agent.sources.readings import ReadingForm
from edge_agent.sources.sample_commands import SampleCommands
from edge_agent.sources.series import SERIES_SEPARATOR, key_of
from edge_agent.sources.source import SourceHost
from edge_agent.sources.tally import SourceStatus
from edge_agent.sources.unix_socket import SampleSocket, Status
from fleet_protocol.task_description import TaskDescription


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
        status: Callable[[], Status],
        take_manifest: Callable[[str], Awaitable[None]],
        judge: Callable[[TaskDescription], object],
    ) -> None:
        self._rounds = rounds
        self._looks = SampleLooks(
            {task.name: task.trigger for task in configuration.tasks},
            configuration.worker,
            samples.path,
            versions,
            state=lambda: rounds.state,
            refused=rounds.refused,
            judge=judge,
            note=rounds.note,
        )
        self._samples = samples
        self._judge = judge
        self._versions = versions
        self._tasks = [task.name for task in configuration.tasks]
        self._descriptions = WantedDescriptions(versions)
        self._memory = SeriesMemory(configuration.state_folder, time.monotonic)
        intake = SampleIntake(
            frozenset(self._tasks),
            store=samples.add,
            store_unjudged=samples.add_unjudged,
            describe=self._descriptions.description,
            arrived=self._sample_arrived,
            judge=self._judge_waiting,
            budgets=frozenset(rule.name for rule in configuration.privacy.budgets),
        )
        forms = {task: ReadingForm(task) for task in self._tasks}
        forms |= {source.task: source.form for source in reversed(configuration.sources) if source.has_own_form}
        own = {*self._tasks, *(key_of(source.task, source.series) for source in configuration.sources)}
        self._receiver = ReadingReceiver(intake, time.time, self._memory.read(), own, taken=self._reading_taken)
        predictor = ResidentPredictor(configuration.worker)
        predictions = Predictions(versions, predictor, self._receiver, forms, take_manifest=take_manifest)
        self._socket = SampleSocket(
            configuration.sample_socket,
            self._receiver,
            samples=SampleCommands(
                frozenset(self._tasks), samples, self._descriptions.description, rounds.samples_changed
            ),
            train=rounds.train_now,
            status=status,
            predict=predictions.predict,
        )
        host = SourceHost(
            configuration.fleet,
            configuration.device,
            predictions.predict_as,
            predictions.predict_sample,
            status=lambda: msgspec.json.encode(status()),
        )
        self._sources = SourceRunner(configuration.sources, self._receiver, host)

    @property
    def listens(self) -> asyncio.Event:
        """Set once the sample socket is there."""
        return self._socket.listens

    @property
    def sources(self) -> list[SourceStatus]:
        """What came of the readings of each source, the sample socket first."""
        return [self._socket.tally.status, *self._sources.status]

    @property
    def series(self) -> dict[str, SeriesStatus]:
        """How far each series of named readings is; a task that takes them and has got none has an empty one."""
        described = {task: self._versions.description(task) for task in self._tasks}
        named = {task: each.readings for task, each in described.items() if each is not None}
        empty = {task: Preparation(plan).status for task, plan in named.items() if plan is not None}
        found = self._receiver.status
        begun = {name.partition(SERIES_SEPARATOR)[0] for name in found}
        return {task: each for task, each in empty.items() if task not in begun} | found

    async def run(self) -> None:
        """Run until cancelled.

        Raises:
            ConfigurationError: in a group; the sample socket can't be made.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._descriptions.run())
                group.create_task(self._socket.serve())
                group.create_task(self._sources.run())
                group.create_task(self._looks.run())
        finally:
            self._memory.write(self._receiver.states)

    def _judge_waiting(self, description: TaskDescription) -> None:
        if self._samples.has_unjudged(description.task):
            self._judge(description)
            self._rounds.samples_changed(description.task)

    def _reading_taken(self) -> None:
        if self._memory.is_due():
            self._memory.write(self._receiver.states)

    def _sample_arrived(self, task: str) -> None:
        self._rounds.sample_arrived(task)
        self._looks.sample_arrived(task)
