"""What a manifest tells of a masked update that waits until its cohort is summed. Pure."""

import hashlib

from edge_agent.core.outbox import OutboxRow
from fleet_protocol.kinds import KINDS, MASKED_UPDATE, Manifest, MaskedUpdate, Signed, decode_payload
from secure_aggregation.messages import SealedSeeds
from secure_aggregation.signatures import read_unverified


def is_settled(row: OutboxRow, manifest: Manifest) -> bool:
    """Whether the update's cohort is settled by now, as the newest verified manifest of its task has it: the task is
    another one, or has another cohort open, and there is one at a time. How it was settled, a receipt alone says.

    Raises:
        ProtocolError: `MALFORMED`: the update, or the cohort in the manifest.
    """
    kind = KINDS.get(row.kind)
    if kind is None or kind.decrypted is not MASKED_UPDATE:
        return False
    if manifest.removed or (manifest.generation, manifest.bundle) != (row.generation, row.bundle):
        return True
    if not manifest.cohort:
        return False
    seeds = decode_payload(row.payload, MaskedUpdate).seeds
    is_open = hashlib.sha256(decode_payload(manifest.cohort, Signed).content).digest()
    return read_unverified(seeds, SealedSeeds).cohort != is_open
