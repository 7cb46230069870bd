"""Runs the sources that agent.toml lists. One that fails is said, and run again; the others go on."""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.shell.host.cancellation import end_if_cancelled
from edge_agent.sources.plugins import find_plugin
from edge_agent.sources.reading_receiver import ReadingReceiver
from edge_agent.sources.settings import SourceSettings
from edge_agent.sources.source import ReadingIntake, RunSource, SourceHost
from edge_agent.sources.tally import SourceStatus, SourceTally
from fleet_host.backoff import delay_seconds
from fleet_host.log_lines import log_line

logger = logging.getLogger(__name__)

STABLE_SECONDS = 30.0
"""A source that ran this long is run again at once, with the shortest pause."""


@dataclass(frozen=True, slots=True)
class _ConfiguredSource:
    kind: str
    run: RunSource
    readings: ReadingIntake


class SourceRunner:
    """All sources of one agent.

    Raises:
        ConfigurationError: a kind isn't installed, or its settings can't be read.
    """

    def __init__(self, sources: Sequence[SourceSettings], receiver: ReadingReceiver, host: SourceHost) -> None:
        self._sources = [_configured(source, receiver, host) for source in sources]

    @property
    def status(self) -> list[SourceStatus]:
        """What came of the readings of each source, in their order."""
        return [source.readings.tally.status for source in self._sources]

    async def run(self) -> None:
        """Run every source until cancelled."""
        async with asyncio.TaskGroup() as group:
            for source in self._sources:
                group.create_task(_keep_running(source))


def _configured(source: SourceSettings, receiver: ReadingReceiver, host: SourceHost) -> _ConfiguredSource:
    where = f"sources: settings of {source.kind!r} for {source.task}"
    run = find_plugin(source.kind).with_settings(source.settings, where)
    tally = SourceTally(source.kind, source.task)
    tally.failure = "it has not started yet"
    return _ConfiguredSource(source.kind, run, ReadingIntake(source.form, receiver, tally, host))


async def _keep_running(source: _ConfiguredSource) -> None:
    loop = asyncio.get_running_loop()
    attempt = 0
    tally = source.readings.tally
    tally.failure = ""
    while True:
        started = loop.time()
        try:
            await source.run(source.readings)
            tally.failure = "it has ended by itself"
        except Exception as error:  # another's code may raise anything
            end_if_cancelled()
            tally.failure = _words(error)
        attempt = 0 if loop.time() - started > STABLE_SECONDS else attempt
        pause = delay_seconds(attempt, random.random())  # noqa: S311 - jitter, not a secret
        logger.warning(
            log_line(
                "source_failed",
                source=source.kind,
                task=source.readings.form.task,
                error=tally.failure,
                retry_in_s=f"{pause:.1f}",
            )
        )
        attempt += 1
        await asyncio.sleep(pause)


def _words(error: Exception) -> str:
    """Of several errors at once, the first."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
