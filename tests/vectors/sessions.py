"""Messages and frames of sessions, for `write.py`: of kitchen-pi and its helper, gateway."""

from fleet_protocol import topics
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import (
    HELPER_OFFER,
    INTRODUCTION,
    SESSION_ENDING,
    SESSION_GRANT,
    SESSION_NOTICE,
    SESSION_OPENING,
    SESSION_REFUSAL,
    SESSION_RESUMPTION,
    HelperOffer,
    Introduction,
    News,
    OfferedTask,
    SessionEnding,
    SessionGrant,
    SessionNotice,
    SessionOpening,
    SessionReason,
    SessionRefusal,
    SessionResumption,
)
from fleet_protocol.sessions.frames import Frame, FrameType, write_frame
from fleet_protocol.sessions.secrecy import Direction, Introduced, ephemeral_of, hop_key, seal, session_keys

SESSION = bytes(range(16))
DEVICE_SECRET, HELPER_SECRET = bytes(range(32)), bytes(range(100, 132))
DEVICE, HELPER, COORDINATOR = (SigningKey(bytes([seed]) * 32) for seed in (1, 2, 3))
FROM_DEVICE, FROM_HELPER = topics.session("home", "0", "kitchen-pi"), topics.session("home", "0", "gateway")
TO_DEVICE = topics.relayed("home", "0", "kitchen-pi")
BUNDLE = bytes(range(32))

SESSIONS = [
    (HELPER_OFFER, HelperOffer([OfferedTask("digits", BUNDLE, 3)], 8), FROM_HELPER),
    (SESSION_OPENING, SessionOpening(SESSION, ephemeral_of(DEVICE_SECRET), BUNDLE, "1-2"), FROM_DEVICE),
    (SESSION_OPENING, SessionOpening(SESSION, ephemeral_of(DEVICE_SECRET), BUNDLE, "1-2", 64, ("tower",)), FROM_DEVICE),
    (SESSION_GRANT, SessionGrant(SESSION, bytes(16), ephemeral_of(HELPER_SECRET)), FROM_HELPER),
    (SESSION_REFUSAL, SessionRefusal(SESSION, SessionReason.HELPER_BUSY, "8 sessions", 30), FROM_HELPER),
    (SESSION_ENDING, SessionEnding(SESSION, SessionReason.LEFT, ""), FROM_DEVICE),
    (SESSION_RESUMPTION, SessionResumption(SESSION, "device", "gateway"), FROM_DEVICE),
    (INTRODUCTION, Introduction(SESSION, "gateway", bytes(HELPER.verify_key), b"an envelope"), TO_DEVICE),
    (SESSION_NOTICE, SessionNotice(SESSION, News.REFUSED, SessionReason.NO_HELPER, "none offers", 30), TO_DEVICE),
    (SESSION_NOTICE, SessionNotice(SESSION, News.RESUMED), TO_DEVICE),
]


def session_vectors() -> list[dict[str, object]]:
    """The keys of a session, and a frame of each type with what it holds."""
    device = Introduced(bytes(DEVICE.verify_key), ephemeral_of(DEVICE_SECRET))
    helper = Introduced(bytes(HELPER.verify_key), ephemeral_of(HELPER_SECRET))
    keys = session_keys(SESSION, DEVICE_SECRET, helper.ephemeral, device, helper)
    hop = hop_key(DEVICE, COORDINATOR.verify_key, SESSION)
    content, number, index, count = b"activations", 7, 1, 3
    sealed = seal(keys[Direction.FROM_DEVICE], number, index, count, content)
    frames = [
        Frame(FrameType.CONTENT, SESSION, Direction.FROM_DEVICE, 131_072, 5, number, index, count, sealed),
        Frame(FrameType.PROBE, SESSION, Direction.FROM_DEVICE, 131_099, 5),
        Frame(FrameType.CREDIT, SESSION, Direction.FROM_DEVICE, 4_194_304, 5),
    ]
    given = {
        "session": SESSION.hex(),
        "device_secret": DEVICE_SECRET.hex(),
        "helper_secret": HELPER_SECRET.hex(),
        "device_signing_seed": bytes(DEVICE).hex(),
        "helper_signing_seed": bytes(HELPER).hex(),
        "coordinator_signing_seed": bytes(COORDINATOR).hex(),
        "content": content.hex(),
    }
    return [
        {
            "name": frame.type.name.lower(),
            "input": given
            | {
                "number": frame.number,
                "index": frame.index,
                "count": frame.count,
                "offset": frame.offset,
                "settled": frame.settled,
            },
            "session_keys": [key.hex() for key in keys],
            "hop_key": hop.hex(),
            "hex": write_frame(frame, hop).hex(),
        }
        for frame in frames
    ]
