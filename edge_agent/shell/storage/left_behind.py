"""What `agent.db` keeps of rounds, and no round will begin with any more: it goes with the manifest that says so.

A device predicts and trains with the bundle that the newest manifest names, and with nothing where the task has ended.
What bounds what a device tells (turns, charges, what its samples were used for) stays: what was told is told.
"""

import sqlite3
from typing import Final

from edge_agent.core.version_choice import KnownVersion

OF_A_BUNDLE: Final = ("own_models", "gossip_states", "round_figures", "drift_memories")
OF_A_GENERATION: Final = ("drift_memories",)


def forget_left_behind(connection: sqlite3.Connection, task: str, known: KnownVersion) -> None:
    """Delete what was kept for other bundles than that of the version `known`, or other generations of it where it is
    of one; all where the task has ended. Inside the transaction that is open.
    """
    for table in OF_A_BUNDLE:
        query = f"DELETE FROM {table} WHERE task = ? AND (? OR bundle != ?)"  # noqa: S608 - a constant
        connection.execute(query, (task, known.removed, known.bundle))
    for table in OF_A_GENERATION:
        query = f"DELETE FROM {table} WHERE task = ? AND generation != ?"  # noqa: S608 - a constant
        connection.execute(query, (task, known.generation))
