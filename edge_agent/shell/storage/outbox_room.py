"""Bounds the outbox of `agent.db` by bytes: what can't wait any more is learned again with the next round.

Only an update that was never handed to the link may go back: of one that was, the journal may have it, and it would
count twice. So each number is noted before it is sent for the first time.
"""

import sqlite3

from edge_agent.producers import goes_back
from fleet_protocol.kinds import KINDS, Outcome

MERGED_BACK = "outbox_full"
"""The reason in the table `settled`."""

_SIZE = "length(payload) + length(envelope)"
_STALEST_FIRST = (
    f"SELECT sequence, kind, {_SIZE} FROM outbox LEFT JOIN manifests USING (task) WHERE NOT returned AND sequence > ?"  # noqa: S608 - constants
    " ORDER BY IFNULL(outbox.generation != manifests.generation, 0) DESC,"
    " IFNULL(manifests.version - base_version, 0) DESC, sequence"
)


def waiting_bytes(connection: sqlite3.Connection, sent_through: int | None = None) -> int:
    """Bytes of all that waits for a receipt, or of what does and has a number up to `sent_through`."""
    query = f"SELECT IFNULL(SUM({_SIZE}), 0) FROM outbox WHERE NOT returned AND sequence <= IFNULL(?, sequence)"  # noqa: S608
    return int(connection.execute(query, (sent_through,)).fetchone()[0])


def merge_back(connection: sqlite3.Connection, maximum_bytes: int, sent_through: int, newest: set[int]) -> int:
    """Return updates to the next round until no more than `maximum_bytes` wait, inside the transaction that is open.

    The stalest go first, of these the oldest. What may have been sent stays, and so does the round that has just ended,
    whose numbers are `newest`. Returns how many went.
    """
    held, merged = waiting_bytes(connection), 0
    for sequence, kind, size in connection.execute(_STALEST_FIRST, (sent_through,)).fetchall():
        if held <= maximum_bytes:
            break
        if sequence in newest or kind not in KINDS or not goes_back(KINDS[kind].decrypted):
            continue
        connection.execute("UPDATE outbox SET returned = 1 WHERE sequence = ?", (sequence,))
        connection.execute(
            "INSERT OR REPLACE INTO settled SELECT sequence, digest, ?, ? FROM outbox WHERE sequence = ?",
            (Outcome.REJECTED.value, MERGED_BACK, sequence),
        )
        held, merged = held - size, merged + 1
    return merged
