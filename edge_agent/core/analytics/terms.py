"""What of a query may not change between its rounds, as a fingerprint that a device keeps. Pure."""

import hashlib

import msgspec

from fleet_protocol.kinds import Query

TERMS_BYTES = 16


def terms_of(query: Query, task: str) -> bytes:
    """Its fingerprint: of the task, and of all that is asked but the round, its edges and its prefixes, which are all
    that a coordinator changes. A release that adds a field to `Query` gives another one.
    """
    in_every_round = msgspec.structs.replace(query, round=0, edges=(), prefixes=())
    return hashlib.blake2b(msgspec.msgpack.encode((task, in_every_round)), digest_size=TERMS_BYTES).digest()
