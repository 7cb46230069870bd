"""What a finished round leaves: its payloads in the outbox, and what the next one takes up, in one transaction."""

import logging
from collections.abc import Callable, Sequence

from edge_agent.core.device_budget import noised_update
from edge_agent.core.norm_memory import joined
from edge_agent.core.outbox import SignRow, SpooledPayload
from edge_agent.core.prompt_memory import with_mark
from edge_agent.core.selection import RoundFigures
from edge_agent.producers import PRODUCERS, given_back, kept_of, produce
from edge_agent.shell.storage.device_database import DeviceDatabase, SpooledRound, TaskMemory
from edge_agent.shell.versions.version_follower import ReadyVersion
from edge_agent.worker.contract import TrainingResult
from fleet_host.log_lines import log_line
from fleet_protocol.kinds import PayloadKind
from fleet_protocol.remedies import STEADIER_TRAINING

logger = logging.getLogger(__name__)


class RoundSpool:
    """`address` says which kind a payload is sent as, and which key it is encrypted for.

    Raises:
        ConfigurationError: from `address`, for a kind that this device would produce.
    """

    def __init__(
        self, database: DeviceDatabase, *, address: Callable[[PayloadKind], tuple[int, bytes]], sign: SignRow
    ) -> None:
        self._database = database
        self._address = address
        self._sign = sign
        for producer in PRODUCERS.values():
            address(producer.kind)

    def put(
        self,
        task: str,
        version: ReadyVersion,
        memory: TaskMemory,
        result: TrainingResult,
        figures: RoundFigures | None = None,
    ) -> None:
        """Spool the payloads of a round from `version`, and what it leaves behind, in one transaction. `figures` as of
        `SpooledRound`.

        Raises:
            sqlite3.Error, OSError: the disk.
        """
        description = version.description
        payloads = produce(description, result)
        state = joined(description.sending, result.usual_norm, result.residual)
        merged_before = self._database.merged_back
        rows = self._database.spool(
            SpooledRound(
                task=task,
                bundle=version.bundle,
                base_version=version.number,
                trained_through=result.trained_through,
                payloads=tuple(
                    SpooledPayload(*self._address(kind), payload, kept_of(kind, result)) for kind, payload in payloads
                ),
                residual=with_mark(description.prompts, result.told, state),
                returned=tuple(given_back(memory.returned)),
                generation=version.generation,
                epochs=result.epochs,
                counts_turn=description.device_privacy is not None,
                noised=noised_update(version.bundle, description),
                own=result.own,
                drift=result.drift,
                figures=figures,
                cluster=result.cluster if description.clusters and description.clusters.by_devices else None,
            ),
            self._sign,
        )
        if merged := self._database.merged_back - merged_before:
            logger.warning(log_line("updates_merged_back", count=merged, waiting_bytes=self._database.waiting_bytes()))
        _say_of_what_to_correct(task, result)
        if result.kept:
            return
        size = sum(len(payload) for _, payload in payloads)
        _say_spooled(task, version.number, [row.sequence for row in rows], size, result)


def _say_of_what_to_correct(task: str, result: TrainingResult) -> None:
    if result.forgotten:
        logger.warning(
            log_line(
                "residual_shrunk",
                task=task,
                forgotten_norm=result.forgotten,
                remedy=f"none if the device was offline for long; else {STEADIER_TRAINING}",
            )
        )
    if result.unlike_the_fleet:
        logger.warning(
            log_line(
                "units_differ",
                task=task,
                reason=result.unlike_the_fleet,
                remedy="if its unit is another, correct the program that takes the samples",
            )
        )


def _say_spooled(task: str, version: int, sequences: Sequence[int], size: int, result: TrainingResult) -> None:
    numbers = ",".join(map(str, sequences))
    if result.prompts:
        logger.info(log_line("prompts_spooled", task=task, version=version, sequences=numbers, payload_bytes=size))
        return
    if result.statistics or result.feature_statistics:
        logger.info(
            log_line(
                "statistics_spooled",
                task=task,
                version=version,
                sequences=numbers,
                payload_bytes=size,
                samples=result.samples,
            )
        )
        return
    logger.info(
        log_line(
            "round_spooled",
            task=task,
            version=version,
            sequences=numbers,
            payload_bytes=size,
            loss=result.loss,
            features_computed=result.features_computed,
        )
    )
