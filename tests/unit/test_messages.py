"""Payloads: one wire form each, and nothing else is taken for it."""

import tracemalloc

import pytest

from fleet_protocol import cbor, topics
from fleet_protocol.cohort import EVERYONE
from fleet_protocol.envelope import sign_envelope
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import (
    ROSTER,
    BlobChunk,
    BlobRequest,
    CopyRequest,
    Enrolment,
    Manifest,
    Member,
    Outcome,
    Presence,
    PresenceState,
    Receipt,
    Roster,
    Told,
    Update,
    decode_payload,
    encode_payload,
)
from fleet_protocol.limits import MAX_GENERATION, MAX_ROSTER_DEVICES, MAX_SEQUENCE, MAX_SHARDS

HASH = "0f" * 32
DIGEST = bytes(16)

WIRE_FORMS = [
    (Enrolment(b"\x01\x02", "pi", "0.1", ["digits"]), "84 42 0102 62 7069 63 302e31 81 66 646967697473"),
    (Presence(PresenceState.ONLINE, 7), "82 66 6f6e6c696e65 07"),
    (Manifest(300, HASH, HASH), "83 19 012c" + 2 * (" 78 40 " + HASH.encode().hex())),
    (BlobRequest(b"\xaa", [0, 24]), "82 41 aa 82 00 18 18"),
    (BlobChunk(3, b"abc"), "82 03 43 616263"),
    (Update(16, 40, 0.5, b"\x01\x00"), "84 10 18 28 f9 3800 42 0100"),
    (
        Receipt(DIGEST, Outcome.REJECTED, "too_stale", "s", 9, 3),
        "86 50" + "00" * 16 + "68 72656a6563746564 69 746f6f5f7374616c65 61 73 09 03",
    ),
]


@pytest.mark.parametrize(("message", "wire"), WIRE_FORMS, ids=lambda value: type(value).__name__)
def test_wire_form_stays_what_other_versions_speak(message, wire):
    assert encode_payload(message) == bytes.fromhex(wire)
    assert decode_payload(bytes.fromhex(wire), type(message)) == message


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Update, [16, 40, 0.5]),
        (Update, [16, 40, 0.5, b"", 0]),
        (Update, {"samples": 16, "steps": 40, "loss": 0.5, "packed": b""}),
        (Update, [True, 40, 0.5, b""]),
        (Update, [16.0, 40, 0.5, b""]),
        (Update, [16, 40, "0.5", b""]),
        (Update, [16, 40, 0.5, "packed"]),
        (Update, [16, 40, None, b""]),
        (Presence, ["asleep", 1]),
        (Presence, [b"online", 1]),
        (Enrolment, [b"", "pi", "0.1", ["digits", 1]]),
        (BlobRequest, [HASH, []]),
        (BlobRequest, [b"", ["0"]]),
        (Manifest, [-1, HASH, HASH]),
        (Manifest, [2**63, HASH, HASH]),
        (Manifest, [1, HASH.upper(), HASH]),
        (Manifest, [1, HASH + "\n", HASH]),
        (Manifest, [1, HASH, "../../../etc/passwd"]),
        (Manifest, [1, HASH, ""]),
        (Receipt, [bytes(15), "accepted", "", "", 1, 1]),
        (Receipt, [bytes(32), "accepted", "", "", 1, 1]),
        (Receipt, [DIGEST, "perhaps", "", "", 1, 1]),
        (Receipt, [DIGEST, "accepted", "", "", -1, 1]),
        (Receipt, [DIGEST, "accepted", "", "", 2**63, 1]),
    ],
)
def test_payload_of_another_shape_is_refused_naming_its_kind(kind, fields):
    with pytest.raises(ProtocolError, match=kind.__name__) as caught:
        decode_payload(cbor.encode(fields), kind)
    assert caught.value.reason is Reason.MALFORMED


def test_newer_reason_than_this_device_knows_is_still_a_receipt():
    receipt = Receipt(DIGEST, Outcome.REJECTED, "a_reason_of_next_year", "", 1, 1)
    assert decode_payload(encode_payload(receipt), Receipt) == receipt


@pytest.mark.parametrize(
    "wire",
    [
        "82 66 6f6e6c696e65 18 07",
        "9f 66 6f6e6c696e65 07 ff",
        "82 66 6f6e6c696e65 07 00",
        "82 66 6f6e6c696e65 c1 07",
        "",
    ],
    ids=["longer form", "indefinite", "trailing", "tagged", "nothing"],
)
def test_second_encoding_of_the_same_payload_is_refused(wire):
    with pytest.raises(ProtocolError) as caught:
        decode_payload(bytes.fromhex(wire), Presence)
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize("opening", [b"\x81", b"\xa1\x00", b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"])
def test_bottomless_nesting_is_refused(opening):
    with pytest.raises(ProtocolError) as caught:
        decode_payload(opening * 10_000, Presence)
    assert caught.value.reason is Reason.MALFORMED


def test_life_of_an_update_travels_only_where_there_is_one():
    without, within = Update(1, 1, 0.5, b"packed"), Update(1, 1, 0.5, b"packed", 7)
    assert decode_payload(encode_payload(without), Update) == without
    assert decode_payload(encode_payload(within), Update) == within
    assert len(encode_payload(within)) == len(encode_payload(without)) + 1
    with pytest.raises(ProtocolError, match=r"Update: a last field of 0 or \[\] or null is not written"):
        decode_payload(cbor.encode([1, 1, 0.5, b"packed", 0]), Update)
    with pytest.raises(ProtocolError, match="null is not written"):
        decode_payload(cbor.encode([1, 1, 0.5, b"packed", 0, [], 0, None]), Update)


def test_samples_of_blocks_travel_behind_the_life_and_only_where_there_are_any():
    held = Update(1, 1, 0.5, b"packed", held=(300, 0))
    assert encode_payload(held) == cbor.encode([1, 1, 0.5, b"packed", 0, [300, 0]])
    assert decode_payload(encode_payload(held), Update) == held
    for wrong in ([1, 1, 0.5, b"packed", 0, []], [1, 1, 0.5, b"packed", 0, [-1]], [1, 1, 0.5, b"packed", 0, [0] * 65]):
        with pytest.raises(ProtocolError) as refused:
            decode_payload(cbor.encode(wrong), Update)
        assert refused.value.reason is Reason.MALFORMED


def test_cluster_of_an_update_travels_last_and_only_where_there_is_one():
    update = Update(1, 1, 0.5, b"packed", cluster=2)
    assert encode_payload(update) == cbor.encode([1, 1, 0.5, b"packed", 0, [], 2])
    assert decode_payload(encode_payload(update), Update) == update
    for wrong in (-1, 9, 2.0, True, None):
        with pytest.raises(ProtocolError) as refused:
            decode_payload(cbor.encode([1, 1, 0.5, b"packed", 0, [], wrong]), Update)
        assert refused.value.reason is Reason.MALFORMED


def test_receipt_says_a_cluster_or_that_there_is_none_or_nothing_of_clusters():
    plain = [bytes(16), "accepted", "", "", 1, 2]
    for cluster, fields in ((None, plain), (0, [*plain, 0]), (8, [*plain, 8])):
        receipt = Receipt(bytes(16), Outcome.ACCEPTED, "", "", 1, 2, cluster)
        assert encode_payload(receipt) == cbor.encode(fields)
        assert decode_payload(cbor.encode(fields), Receipt) == receipt
    for wrong in (None, 9, -1):
        with pytest.raises(ProtocolError) as refused:
            decode_payload(cbor.encode([*plain, wrong]), Receipt)
        assert refused.value.reason is Reason.MALFORMED


def test_generation_and_end_of_a_task_travel_only_where_there_are_any():
    plain = Manifest(1, HASH, HASH)
    for manifest, more_bytes in (
        (Manifest(1, HASH, HASH, generation=3), 9 + 1),  # behind the threshold's usual value
        (Manifest(1, HASH, HASH, generation=3, removed=True), 9 + 2),
        (Manifest(1, HASH, HASH, 7, generation=3), 1 + 1),
        (Manifest(1, HASH, HASH, removed=True), 9 + 2),
    ):
        assert decode_payload(encode_payload(manifest), Manifest) == manifest
        assert len(encode_payload(manifest)) == len(encode_payload(plain)) + more_bytes
    with pytest.raises(
        ProtocolError, match=r"Manifest: a last field of 4294967296 or 0 or False or b'' or \[\] or null is not written"
    ):
        decode_payload(cbor.encode([1, HASH, HASH, EVERYONE, 0]), Manifest)
    with pytest.raises(ProtocolError):
        decode_payload(cbor.encode([1, HASH, HASH, EVERYONE, MAX_GENERATION + 1]), Manifest)


def test_shards_of_a_manifest_travel_only_where_they_are_named():
    plain, named = Manifest(1, HASH, HASH), Manifest(1, HASH, HASH, shards=("0", "north"))
    assert decode_payload(encode_payload(named), Manifest) == named
    fields = [1, HASH, HASH, EVERYONE, 0, False, b""]
    assert encode_payload(named) == cbor.encode([*fields, ["0", "north"]])
    assert encode_payload(plain) == cbor.encode(fields[:3]), "which agents of before shards read"
    for refused in ([], ["North"], [""], ["a/b"], ["0"] * (MAX_SHARDS + 1), "0", [0]):
        with pytest.raises(ProtocolError):
            decode_payload(cbor.encode([*fields, refused]), Manifest)


def test_threshold_of_a_manifest_travels_only_where_not_every_device_is_asked():
    to_all, to_some = Manifest(1, HASH, HASH), Manifest(1, HASH, HASH, 2**31)
    assert decode_payload(encode_payload(to_all), Manifest) == to_all
    assert decode_payload(encode_payload(to_some), Manifest) == to_some
    assert len(encode_payload(to_some)) == len(encode_payload(to_all)) + 5
    for refused in (0, 2**32, 2**32 + 1):
        with pytest.raises(ProtocolError):
            decode_payload(cbor.encode([1, HASH, HASH, refused]), Manifest)


MEMBER = Member("pi", bytes(32))


def test_a_roster_has_one_wire_form_and_names_its_members_in_order():
    roster = Roster(0, 1, HASH, "ring", "mean", 0, (MEMBER, Member("shed", b"\x01" * 32)))
    assert encode_payload(roster) == cbor.encode(
        [0, 1, HASH, "ring", "mean", 0, [["pi", bytes(32)], ["shed", b"\x01" * 32]]]
    )
    assert decode_payload(encode_payload(roster), Roster) == roster
    fields = [0, 1, HASH, "ring", "mean", 0]
    for wrong in (["pi", bytes(31)], ["pi", bytes(33)], ["Pi", bytes(32)], ["a/b", bytes(32)], ["pi"], ["pi", "key"]):
        with pytest.raises(ProtocolError, match="Roster"):
            decode_payload(cbor.encode([*fields, [wrong]]), Roster)
    for twice in ([["pi", bytes(32)], ["pi", b"\x01" * 32]], [["pi", bytes(32)], ["shed", bytes(32)]]):
        with pytest.raises(ProtocolError, match="Roster: two members have the same"):
            decode_payload(cbor.encode([*fields, twice]), Roster)
    for at, wrong in ((0, -1), (1, 2**63), (2, HASH.upper()), (3, "star"), (4, "median"), (5, -1)):
        with pytest.raises(ProtocolError, match="Roster"):
            decode_payload(cbor.encode([*fields[:at], wrong, *fields[at + 1 :], []]), Roster)


def test_the_largest_roster_is_a_message_and_no_larger_one_is_read():
    def roster(count: int) -> Roster:
        members = (Member(f"{number:048}", number.to_bytes(32)) for number in range(count))
        return Roster(MAX_GENERATION, MAX_SEQUENCE, HASH, "random", "mean", MAX_SEQUENCE, tuple(members))

    topic = topics.roster("f" * 48, "t" * 48)
    largest = encode_payload(roster(MAX_ROSTER_DEVICES))
    signed = sign_envelope(SigningKey(bytes(32)), topic, ROSTER, largest, sequence=MAX_SEQUENCE, task="t" * 48)
    assert 0.8 * ROSTER.max_bytes < len(signed) <= ROSTER.max_bytes
    decode_payload(largest, Roster)
    with pytest.raises(ProtocolError, match="length <= 1024"):
        decode_payload(encode_payload(roster(MAX_ROSTER_DEVICES + 1)), Roster)


def test_what_neighbours_tell_and_ask_is_written_as_short_as_it_can_be():
    for payload, fields in (
        (Told(7, 1, b"packed"), [7, 1, b"packed"]),
        (Told(7, 1, b"packed", whole=True), [7, 1, b"packed", True]),
        (CopyRequest("pi"), ["pi"]),
        (CopyRequest("pi", 7), ["pi", 7]),
        (CopyRequest("pi", 7, 1), ["pi", 7, 1]),
        (CopyRequest("pi", 0, 1), ["pi", 0, 1]),
    ):
        assert encode_payload(payload) == cbor.encode(fields)
        assert decode_payload(cbor.encode(fields), type(payload)) == payload
    for kind, wrong in (
        (Told, [7, 1, b"packed", False]),
        (Told, [-1, 1, b"packed"]),
        (Told, [7, 1, "packed"]),
        (CopyRequest, ["pi", 0]),
        (CopyRequest, ["Pi"]),
        (CopyRequest, ["pi", 2**63]),
    ):
        with pytest.raises(ProtocolError, match=kind.__name__):
            decode_payload(cbor.encode(wrong), kind)


@pytest.mark.parametrize("value", [b"\x80", b"\xa0", b"\x00"], ids=["empty arrays", "empty maps", "zeros"])
def test_a_message_of_nothing_but_small_values_is_refused_before_they_are_made(value):
    data = b"\x9a" + (1 << 20).to_bytes(4, "big") + value * (1 << 20)
    tracemalloc.start()
    with pytest.raises(ProtocolError, match="more than 16384 CBOR values"):
        decode_payload(data, Update)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64_000
