"""Which authorities vouch for the broker from now on, in the place of those that the topic names."""

from typing import Annotated

import msgspec

from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.limits import MAX_AUTHORITIES, MAX_CERTIFICATE_BYTES, MAX_CONTROL_BYTES

Certificate = Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_CERTIFICATE_BYTES)]


class AuthoritySuccession(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The certificates, in DER, of all authorities that a device trusts from now on; the message is retained."""

    authorities: Annotated[list[Certificate], msgspec.Meta(min_length=1, max_length=MAX_AUTHORITIES)]


AUTHORITY_SUCCESSION = PayloadKind(14, AuthoritySuccession, Leaf.KEY, max_bytes=MAX_CONTROL_BYTES)
