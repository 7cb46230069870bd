"""Reads out of the journal what devices told last."""

import logging

from broker_coordinator.consumers.prompts import moments_of
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.records import JournalledPayload
from fleet_host.log_lines import log_line
from fleet_protocol.encryption import decrypt_payload
from fleet_protocol.envelope import read_envelope
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.keys import KeyRing
from fleet_protocol.kinds import PROMPTS, Prompts, decode_payload
from fleet_protocol.prompt_plan import PromptPlan
from fleet_protocol.task_description import TaskDescription
from prompt_synthesis.prompt import Told

logger = logging.getLogger(__name__)


def plan_of(task: TaskDescription) -> PromptPlan:
    """What the task asks its devices for.

    Raises:
        ConfigurationError: nothing.
    """
    if task.prompts is None:
        raise ConfigurationError(
            f"task {task.task!r} asks its devices for no prompts; write a table [prompts] in task.toml, export and"
            " publish it"
        )
    return task.prompts


def told_prompts(journal: JournalReader, task: TaskDescription, keys: KeyRing) -> dict[str, Told]:
    """By device, what it told last. What can't be opened is left out, and said.

    Raises:
        JournalUnavailableError: the database failed.
    """
    found = {}
    for row in journal.newest_of_devices(task.task, PROMPTS.number):
        try:
            found[row.device] = _read(row, task, keys)
        except ProtocolError as error:
            remedy = "none needed: the others are used; was the coordinator's key replaced without its successor?"
            logger.warning(
                log_line("prompts_unreadable", task=task.task, device=row.device, reason=error, remedy=remedy)
            )
    return found


def _read(row: JournalledPayload, task: TaskDescription, keys: KeyRing) -> Told:
    envelope = read_envelope(row.envelope or b"", len(row.envelope or b""))
    prompts = decode_payload(decrypt_payload(envelope, keys), Prompts)
    return prompts, moments_of(prompts, task)
