"""The state machine finds what it is for: each of these faults, within its default examples."""

from dataclasses import replace

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from broker_coordinator.storage.journal import JournalEntry
from edge_agent.core.outbox import OutboxRow, SignRow
from fleet_protocol.kinds import Outcome
from fleet_protocol.limits import MAX_SEQUENCE
from tests.pair.coordinator import KillableJournal
from tests.pair.device import PairedDatabase
from tests.pair.machine import Pair

NOWHERE = 0
"""The position of what a journal leaves out. With a higher one the intake itself finds the journal too short."""


class AnswersBeforeItCommits(KillableJournal):
    """Each batch is committed with the next one: its receipts are sent before, and a kill between loses it."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self._uncommitted = JournalEntry()

    def write(self, entry: JournalEntry) -> int:
        super().write(replace(self._uncommitted, after=MAX_SEQUENCE))
        self._uncommitted = entry
        return NOWHERE


class ForgetsRefusals(KillableJournal):
    """A refused payload's number stays free, so that it may be accepted when it comes again."""

    def write(self, entry: JournalEntry) -> int:
        super().write(replace(entry, refused=()))
        return NOWHERE


class KeepsItsNumbers(PairedDatabase):
    """After a wipe, a payload stays under a number that an earlier life has used."""

    def renumber(self, row: OutboxRow, highest_sequence: int, sign: SignRow) -> OutboxRow:
        return row


class TakesUsedNumberForDelivery(PairedDatabase):
    """After a wipe, a payload whose number the coordinator knows passes for delivered."""

    def renumber(self, row: OutboxRow, highest_sequence: int, sign: SignRow) -> OutboxRow:
        self.settle(row, Outcome.ACCEPTED, "")
        return row


class DropsWhatIsRefused(PairedDatabase):
    """A refused payload does not go back into the residual."""

    def settle(self, row: OutboxRow, outcome: Outcome, reason: str, *, returned: bool = False) -> None:
        super().settle(row, outcome, reason)


FAULTS = {
    "receipt before the commit": ({"journal_type": AnswersBeforeItCommits}, "is not in the journal|the journal has"),
    "refusal not journalled": ({"journal_type": ForgetsRefusals}, "took it back|kept to be sent"),
    "number used again after a wipe": ({"database_type": KeepsItsNumbers}, "still waits for a receipt"),
    "number used again and dropped": ({"database_type": TakesUsedNumberForDelivery}, "lost"),
    "refused payload dropped": ({"database_type": DropsWhatIsRefused}, "lost"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_found(fault) -> None:
    planted, found = FAULTS[fault]
    machine = type("PlantedPair", (Pair,), planted)
    with pytest.raises((AssertionError, RuntimeError), match=found):
        run_state_machine_as_test(machine, settings=settings(derandomize=True, phases=[Phase.generate]))
