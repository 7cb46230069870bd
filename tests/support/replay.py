"""Compares the versions that a journal holds with those that its updates give when they are applied again."""

from broker_coordinator.commands.verify import verify_versions
from broker_coordinator.storage.journal_reader import JournalReader


def versions_replayed(journal: JournalReader, task: str, start: int = 0) -> int:
    """How many kept versions after `start` were compared, all of which are the same to the last bit.

    Raises:
        AssertionError: one is not.
        ConfigurationError: what a replay needs is not kept.
    """
    found = verify_versions(journal, task, start)
    assert found.difference is None, f"{found.difference}"
    return found.compared
