"""Every kind of payload, one file each, in one table: all that envelope, outbox, journal and receipts look at."""

from fleet_protocol.kinds.activation_summary import (
    ACTIVATION_SUMMARY,
    ENCRYPTED_ACTIVATION_SUMMARY,
    ActivationSummary,
)
from fleet_protocol.kinds.analytics_report import (
    ANALYTICS_REPORT,
    ENCRYPTED_ANALYTICS_REPORT,
    AnalyticsReport,
    AnswerOutcome,
)
from fleet_protocol.kinds.authority_succession import AUTHORITY_SUCCESSION, AuthoritySuccession
from fleet_protocol.kinds.blob_chunk import BLOB_CHUNK, BlobChunk
from fleet_protocol.kinds.blob_request import BLOB_REQUEST, BlobRequest
from fleet_protocol.kinds.copy_request import COPY_REQUEST, CopyRequest
from fleet_protocol.kinds.encrypted_update import ENCRYPTED_UPDATE, EncryptedPayload
from fleet_protocol.kinds.enrolment import ENROLMENT, Enrolment
from fleet_protocol.kinds.feature_statistics import (
    ENCRYPTED_FEATURE_STATISTICS,
    FEATURE_STATISTICS,
    FeatureStatistics,
)
from fleet_protocol.kinds.helper_offer import HELPER_OFFER, HelperOffer, OfferedTask
from fleet_protocol.kinds.introduction import INTRODUCTION, Introduction
from fleet_protocol.kinds.invitation import INVITATION, Invitation
from fleet_protocol.kinds.key_succession import KEY_SUCCESSION, KeySuccession
from fleet_protocol.kinds.kind import FROM_COORDINATOR, Leaf, PayloadKind
from fleet_protocol.kinds.manifest import MANIFEST, Manifest
from fleet_protocol.kinds.mask_reply import MASK_REPLY, MaskReply
from fleet_protocol.kinds.mask_request import MASK_REQUEST, MaskRequest, MaskStep, SumRequest
from fleet_protocol.kinds.masked_update import ENCRYPTED_MASKED_UPDATE, MASKED_UPDATE, MaskedUpdate, Signed
from fleet_protocol.kinds.payload import Count, decode_payload, encode_payload, read_own
from fleet_protocol.kinds.presence import PRESENCE, Presence, PresenceState
from fleet_protocol.kinds.prompts import ENCRYPTED_PROMPTS, PROMPTS, Prompts
from fleet_protocol.kinds.queries import QUERIES, Condition, Queries, Query
from fleet_protocol.kinds.receipt import RECEIPT, Outcome, Receipt
from fleet_protocol.kinds.roster import ROSTER, Member, Roster
from fleet_protocol.kinds.selection import Selection
from fleet_protocol.kinds.session_ending import SESSION_ENDING, SessionEnding
from fleet_protocol.kinds.session_fields import SessionReason
from fleet_protocol.kinds.session_grant import SESSION_GRANT, SessionGrant
from fleet_protocol.kinds.session_notice import SESSION_NOTICE, News, SessionNotice
from fleet_protocol.kinds.session_opening import SESSION_OPENING, SessionOpening
from fleet_protocol.kinds.session_refusal import SESSION_REFUSAL, SessionRefusal
from fleet_protocol.kinds.session_resumption import SESSION_RESUMPTION, SessionResumption
from fleet_protocol.kinds.statistics import ENCRYPTED_STATISTICS, STATISTICS, Statistics
from fleet_protocol.kinds.told import TOLD, Told
from fleet_protocol.kinds.update import UPDATE, Update
from fleet_protocol.kinds.weights_request import WEIGHTS_REQUEST, WeightsRequest

KINDS: dict[int, PayloadKind] = {
    kind.number: kind
    for kind in (
        ENROLMENT,
        PRESENCE,
        MANIFEST,
        BLOB_REQUEST,
        BLOB_CHUNK,
        UPDATE,
        RECEIPT,
        WEIGHTS_REQUEST,
        ENCRYPTED_UPDATE,
        STATISTICS,
        ENCRYPTED_STATISTICS,
        INVITATION,
        KEY_SUCCESSION,
        AUTHORITY_SUCCESSION,
        HELPER_OFFER,
        SESSION_OPENING,
        SESSION_GRANT,
        SESSION_REFUSAL,
        SESSION_ENDING,
        SESSION_RESUMPTION,
        INTRODUCTION,
        SESSION_NOTICE,
        FEATURE_STATISTICS,
        ENCRYPTED_FEATURE_STATISTICS,
        ANALYTICS_REPORT,
        ENCRYPTED_ANALYTICS_REPORT,
        QUERIES,
        PROMPTS,
        ENCRYPTED_PROMPTS,
        ACTIVATION_SUMMARY,
        ENCRYPTED_ACTIVATION_SUMMARY,
        MASKED_UPDATE,
        ENCRYPTED_MASKED_UPDATE,
        MASK_REQUEST,
        MASK_REPLY,
        ROSTER,
        TOLD,
        COPY_REQUEST,
    )
}
"""By the number that stands in an envelope's header."""


def register(kind: PayloadKind) -> PayloadKind:
    """Add a kind that does not ship with edgeflock; returns it.

    Raises:
        ValueError: its number or its name is taken, or the kind in its box is not registered.
    """
    for other in KINDS.values():
        if other is not kind and (other.number == kind.number or other.name == kind.name):
            raise ValueError(f"kind {kind.number}, {kind.name}: there is kind {other.number}, {other.name} already")
    if KINDS.get(kind.decrypted.number, kind) is not kind.decrypted:
        raise ValueError(f"kind {kind.number}, {kind.name}: register {kind.decrypted.name}, which is in its box, first")
    KINDS[kind.number] = kind
    return kind


__all__ = [
    "ACTIVATION_SUMMARY",
    "ActivationSummary",
    "ANALYTICS_REPORT",
    "AnalyticsReport",
    "AnswerOutcome",
    "AUTHORITY_SUCCESSION",
    "AuthoritySuccession",
    "BLOB_CHUNK",
    "BLOB_REQUEST",
    "BlobChunk",
    "BlobRequest",
    "COPY_REQUEST",
    "Condition",
    "CopyRequest",
    "Count",
    "ENCRYPTED_ACTIVATION_SUMMARY",
    "ENCRYPTED_ANALYTICS_REPORT",
    "ENCRYPTED_FEATURE_STATISTICS",
    "ENCRYPTED_MASKED_UPDATE",
    "ENCRYPTED_PROMPTS",
    "ENCRYPTED_STATISTICS",
    "ENCRYPTED_UPDATE",
    "ENROLMENT",
    "FEATURE_STATISTICS",
    "FROM_COORDINATOR",
    "EncryptedPayload",
    "Enrolment",
    "FeatureStatistics",
    "HELPER_OFFER",
    "HelperOffer",
    "INTRODUCTION",
    "Introduction",
    "INVITATION",
    "Invitation",
    "KEY_SUCCESSION",
    "KINDS",
    "KeySuccession",
    "Leaf",
    "MANIFEST",
    "MASKED_UPDATE",
    "MASK_REPLY",
    "MASK_REQUEST",
    "Manifest",
    "MaskReply",
    "MaskRequest",
    "MaskStep",
    "MaskedUpdate",
    "Member",
    "News",
    "OfferedTask",
    "Outcome",
    "PRESENCE",
    "PROMPTS",
    "PayloadKind",
    "Presence",
    "PresenceState",
    "Prompts",
    "RECEIPT",
    "QUERIES",
    "Queries",
    "ROSTER",
    "Query",
    "Receipt",
    "Roster",
    "Selection",
    "SESSION_ENDING",
    "SessionEnding",
    "SESSION_GRANT",
    "SessionGrant",
    "SESSION_NOTICE",
    "SessionNotice",
    "SESSION_OPENING",
    "SessionOpening",
    "SessionReason",
    "SESSION_REFUSAL",
    "SessionRefusal",
    "SESSION_RESUMPTION",
    "SessionResumption",
    "STATISTICS",
    "Signed",
    "Statistics",
    "SumRequest",
    "TOLD",
    "Told",
    "UPDATE",
    "Update",
    "WEIGHTS_REQUEST",
    "WeightsRequest",
    "decode_payload",
    "encode_payload",
    "read_own",
    "register",
]
