"""What comes from the broker: verified, and passed to those whom it is for."""

import logging
import sqlite3
from collections.abc import Callable
from typing import Final

from edge_agent.shell.connection.identity import Identity, NotReadableError
from fleet_host.log_lines import log_line
from fleet_protocol import topics
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import VerifyKey
from fleet_protocol.kinds import (
    MANIFEST,
    AuthoritySuccession,
    BlobChunk,
    Invitation,
    KeySuccession,
    Manifest,
    MaskRequest,
    Queries,
    Receipt,
    Roster,
)
from fleet_protocol.limits import (
    MAX_CONTROL_BYTES,
    MAX_MASK_REQUEST_BYTES,
    MAX_QUERIES_BYTES,
    MAX_ROSTER_BYTES,
    MAX_SIGNED_CHUNK_BYTES,
)
from fleet_protocol.topics import PackedWeights

logger = logging.getLogger(__name__)

_LIMITS: Final = {
    "blob": MAX_SIGNED_CHUNK_BYTES,
    "weights": MAX_SIGNED_CHUNK_BYTES,
    "query": MAX_QUERIES_BYTES,
    "roster": MAX_ROSTER_BYTES,
}
"""Bytes of a message of these kinds; of others, `MAX_CONTROL_BYTES`."""


class Inbox:
    """Handles a message if the pinned coordinator key signed it for its topic. Never raises for anything in it."""

    def __init__(
        self,
        fleet: str,
        identity: Identity,
        *,
        receipt: Callable[[Receipt], None],
        manifest: Callable[[str, Manifest], None],
        not_readable: Callable[[str, str], None],
        invitation: Callable[[str, Invitation], None],
        succession: Callable[[VerifyKey], None],
        authorities: Callable[[str, list[bytes]], None],
        queries: Callable[[str, Queries], None],
        chunk: Callable[[str | PackedWeights, int, BlobChunk], None],
        roster: Callable[[str, Roster], None],
        mask_request: Callable[[MaskRequest], None] | None = None,
    ) -> None:
        """`manifest`, `invitation`, `queries` and `roster` take the task too; `not_readable` takes the task whose
        manifest is of a newer format, and what is wrong with it; `succession` takes the key that follows the pinned
        one, `authorities` the topic and the certificates that follow; `chunk` takes of which file, and which chunk of
        it. A member
        without `mask_request` reads no messages of that length.
        """
        self._fleet = fleet
        self._identity = identity
        self._receipt = receipt
        self._manifest = manifest
        self._not_readable = not_readable
        self._invitation = invitation
        self._succession = succession
        self._authorities = authorities
        self._queries = queries
        self._chunk = chunk
        self._roster = roster
        self._mask_request = mask_request
        self._largest = MAX_CONTROL_BYTES if mask_request is None else MAX_MASK_REQUEST_BYTES

    def handle(self, topic: str, data: bytes) -> None:
        """Verify and pass on one message."""
        try:
            self._pass_on(topic, data)
        except NotReadableError as error:
            if error.kind is not MANIFEST or topic != topics.manifest(self._fleet, error.task):
                logger.warning(log_line("message_refused", reason=error.reason.value, topic=topic, detail=error.detail))
                return
            self._not_readable(error.task, error.detail)
        except ProtocolError as error:
            reason, detail = error.reason.value, error.detail
            logger.warning(log_line("message_refused", reason=reason, topic=topic, detail=detail))
        except (sqlite3.Error, OSError) as error:
            logger.error(log_line("message_failed", topic=topic, error=error))

    def _pass_on(self, topic: str, data: bytes) -> None:
        payload, task = self._identity.verify_from_coordinator(topic, data, self._limit(topic))
        match payload:
            case Receipt():
                self._receipt(payload)
            case Manifest() if topic == topics.manifest(self._fleet, task):
                self._manifest(task, payload)
            case Invitation() if topic == topics.invitation(self._fleet, task):
                self._invitation(task, payload)
            case Queries() if topic == topics.queries(self._fleet, task):
                self._queries(task, payload)
            case Roster() if topic == topics.roster(self._fleet, task):
                self._roster(task, payload)
            case KeySuccession() if topic == self._identity.succession_topic:
                self._succession(VerifyKey(payload.successor))
            case AuthoritySuccession():
                self._authorities(topic, payload.authorities)
            case BlobChunk():
                self._chunk(*topics.chunk_of(topic), payload)
            case MaskRequest() if self._mask_request is not None and topic == self._identity.down_topic:
                self._mask_request(payload)
            case _:
                raise ProtocolError(Reason.WRONG_TOPIC, f"a {type(payload).__name__} does not belong there")

    def _limit(self, topic: str) -> int:
        """Bytes of a message there."""
        if topic == self._identity.down_topic:
            return self._largest
        return _LIMITS.get(topics.kind_of(topic), MAX_CONTROL_BYTES)
