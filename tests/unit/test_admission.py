"""Admission: for everything a message can be, the one decision that follows."""

import math
from collections import ChainMap
from dataclasses import replace

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker_coordinator.admission.admission import Admission
from broker_coordinator.admission.decisions import (
    MAX_DETAIL_CHARACTERS,
    Accepted,
    AnsweredBefore,
    Decision,
    Enrolled,
    FileRequested,
    Message,
    PresenceSeen,
    Refused,
    Repeated,
)
from broker_coordinator.admission.fleet_view import Device, DeviceState, FleetView, TaskProgress
from broker_coordinator.admission.senders import PENDING_ALLOWANCE
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.consumers import CONSUMERS
from fleet_host.rate_limit import TokenBucket
from fleet_protocol.codec import encode_update
from fleet_protocol.envelope import digest
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import (
    BLOB_CHUNK,
    BLOB_REQUEST,
    ENROLMENT,
    KINDS,
    MANIFEST,
    PRESENCE,
    RECEIPT,
    UPDATE,
    Enrolment,
    Presence,
    PresenceState,
    encode_payload,
)
from fleet_protocol.limits import (
    BOOT_SHIFT,
    MAX_BOOT,
    MAX_CONTROL_BYTES,
    MAX_LOSS,
    MAX_SAMPLES_PER_UPDATE,
    MAX_SEQUENCE,
    MAX_STEPS_PER_UPDATE,
    MAX_UPDATE_BYTES,
)
from fleet_protocol.remedies import STEADIER_TRAINING
from fleet_protocol.update_plan import UpdatePlan
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET, SHARD

POLICY = AdmissionSettings(FLEET, SHARD, open_enrolment=False, maximum_devices=4)
ADMISSION = Admission(POLICY, CONSUMERS)
KITCHEN, GARDEN = SigningDevice("kitchen-pi"), SigningDevice("garden-pi")
VERSION = 5
SHAPES = ((4, 8), (4,))


def approved(device: SigningDevice, **fields) -> Device:
    return Device(device.name, device.key.verify_key, **({"state": DeviceState.APPROVED} | fields))


@pytest.fixture(scope="module")
def progress(tmp_path_factory) -> TaskProgress:
    return TaskProgress(write_bundle(tmp_path_factory.mktemp("bundle")).description, VERSION, buffer_size=3)


@pytest.fixture
def view(progress) -> FleetView:
    view = FleetView(lambda _device, _sequence: None, tasks=ChainMap({TASK: progress}))
    view.set_device(approved(KITCHEN))
    view.set_device(approved(GARDEN))
    return view


def decide(view: FleetView, data: bytes, topic: str = KITCHEN.up, settings: AdmissionSettings = POLICY) -> Decision:
    return Admission(settings, CONSUMERS).admit(Message(topic, data), view)


def refusal(view: FleetView, data: bytes, topic: str = KITCHEN.up) -> Refused:
    decision = decide(view, data, topic)
    assert isinstance(decision, Refused), decision
    assert len(decision.detail) <= MAX_DETAIL_CHARACTERS
    return decision


def packed(values: list[float], quantisation: str = "float32") -> bytes:
    delta = np.zeros(sum(map(math.prod, SHAPES)), np.float32)
    delta[: len(values)] = values
    plan = UpdatePlan(keep_fraction=1.0, quantisation=quantisation)
    return encode_update(delta, SHAPES, plan, np.random.default_rng(0)).packed


def plain(body: bytes) -> bytes:
    """A packed ternary update, not compressed; the bodies here are: gaps in bytes, kept, gaps, scale, signs."""
    return b"\x61" + body


BAD_UPDATES = {
    "unknown task": ({"task": "another"}, Reason.UNKNOWN_TASK),
    "future version": ({"base_version": VERSION + 1}, Reason.UNKNOWN_VERSION),
    "stale": ({"base_version": VERSION - 3}, Reason.TOO_STALE),
    "no samples": ({"samples": 0}, Reason.OUT_OF_BOUNDS),
    "negative samples": ({"samples": -1}, Reason.OUT_OF_BOUNDS),
    "more samples than believed": ({"samples": MAX_SAMPLES_PER_UPDATE + 1}, Reason.OUT_OF_BOUNDS),
    "negative steps": ({"steps": -1}, Reason.OUT_OF_BOUNDS),
    "more steps than believed": ({"steps": MAX_STEPS_PER_UPDATE + 1}, Reason.OUT_OF_BOUNDS),
    "loss of which two make no mean": ({"loss": 1.7e308}, Reason.OUT_OF_BOUNDS),
    "loss above the bound": ({"loss": math.nextafter(MAX_LOSS, math.inf)}, Reason.OUT_OF_BOUNDS),
    "loss below the bound": ({"loss": math.nextafter(-MAX_LOSS, -math.inf)}, Reason.OUT_OF_BOUNDS),
    "life beyond the database": ({"life": MAX_SEQUENCE + 1}, Reason.MALFORMED),
    "negative life": ({"life": -1}, Reason.MALFORMED),
    "loss not a number": ({"loss": math.nan}, Reason.NOT_FINITE),
    "loss infinite": ({"loss": math.inf}, Reason.NOT_FINITE),
    "value not a number": ({"packed": packed([math.nan])}, Reason.NOT_FINITE),
    "value infinite": ({"packed": packed([math.inf])}, Reason.NOT_FINITE),
    "magnitude infinite": (
        {"packed": plain(b"\x02\x01\x00" + b"\x80\x7f" + b"\x00")},
        Reason.NOT_FINITE,
    ),
    "norm above the bound": ({"packed": packed([11.0])}, Reason.OUT_OF_BOUNDS),
    "index stream without an end": (
        {"packed": plain(b"\x02\x01" + b"\x80" * 6)},
        Reason.MALFORMED,
    ),
    "index beyond the parameters": (
        {"packed": plain(bytes([2, 1, 36]) + b"\x00\x3f" + b"\x00")},
        Reason.INDEX_OUT_OF_RANGE,
    ),
    "more entries than parameters": ({"packed": plain(bytes([2, 37]))}, Reason.WRONG_SHAPE),
    "inflating": (
        {"packed": b"\x71" + zstandard.ZstdCompressor().compress(bytes(1_000_000))[4:]},
        Reason.INFLATES,
    ),
    "truncated": ({"packed": packed([1.0, 2.0])[:-3]}, Reason.MALFORMED),
    "trailing bytes": ({"packed": packed([1.0], "ternary") + b"\x00\x00"}, Reason.MALFORMED),
    "empty": ({"packed": b""}, Reason.MALFORMED),
    "unknown format": ({"packed": b"\x09\x00\x01"}, Reason.MALFORMED),
}


def test_good_update_is_accepted_with_what_aggregation_needs(view) -> None:
    data = KITCHEN.update(1, base_version=VERSION - 2, samples=7)
    decision = decide(view, data)
    assert isinstance(decision, Accepted)
    assert (decision.device, decision.header.sequence) == ("kitchen-pi", 1)
    assert (decision.staleness, decision.facts.samples) == (2, 7)
    assert (decision.envelope, decision.envelope_digest) == (data, digest(data))
    assert decision.item.delta.indices.size == 18


@pytest.mark.parametrize("case", BAD_UPDATES)
def test_bad_update_is_refused_with_its_reason_and_its_number_is_burned(view, case) -> None:
    fields, reason = BAD_UPDATES[case]
    data = KITCHEN.update(1, **({"base_version": VERSION} | fields))
    refused = refusal(view, data)
    assert refused.reason is reason, refused
    assert refused.verified
    assert refused.burned_sequence == 1
    ADMISSION.apply(refused, view)
    again = decide(view, data)
    assert isinstance(again, Repeated)
    assert again.outcome.reason is reason


LARGEST = {
    "samples": {"samples": MAX_SAMPLES_PER_UPDATE},
    "fewest samples": {"samples": 1},
    "steps": {"steps": MAX_STEPS_PER_UPDATE},
    "no steps": {"steps": 0},
    "loss": {"loss": MAX_LOSS},
    "smallest loss": {"loss": -MAX_LOSS},
    "life": {"life": MAX_SEQUENCE},
    "norm": {"packed": packed([10.0])},
    "staleness": {"base_version": VERSION - 2},
}


@pytest.mark.parametrize("case", LARGEST)
def test_update_at_a_limit_is_accepted(view, case) -> None:
    assert isinstance(
        decide(view, KITCHEN.update(MAX_SEQUENCE, **({"base_version": VERSION} | LARGEST[case]))), Accepted
    )


def test_refusal_for_a_number_names_it_and_its_limit(view) -> None:
    assert refusal(view, KITCHEN.update(1, base_version=VERSION, loss=1.7e308)).detail == (
        f"the loss is 1.7e+308; allowed are -1e+12 to 1e+12: {STEADIER_TRAINING}"
    )
    presence = KITCHEN.sign(PRESENCE, encode_payload(Presence(PresenceState.ONLINE, 2**63 - 1)), topic=KITCHEN.state)
    assert refusal(view, presence, KITCHEN.state).detail == f"boot number {2**63 - 1}; allowed are 0 to {2**31 - 1}"


@pytest.mark.parametrize("boot", [-1, MAX_BOOT + 1, MAX_SEQUENCE, MAX_SEQUENCE + 1])
def test_boot_number_beyond_its_range_is_refused_and_not_remembered(view, boot) -> None:
    presence = KITCHEN.sign(PRESENCE, encode_payload(Presence(PresenceState.ONLINE, boot)), topic=KITCHEN.state)
    assert refusal(view, presence, KITCHEN.state).reason is Reason.OUT_OF_BOUNDS
    assert view.newest_boot("kitchen-pi") == 0


def test_device_at_its_last_boot_number_is_heard_for_ever(view) -> None:
    """The number can't grow: neither presence nor requests may depend on that."""
    for state in (PresenceState.ONLINE, PresenceState.OFFLINE, PresenceState.ONLINE):
        decision = decide(view, KITCHEN.presence(state, MAX_BOOT), KITCHEN.state)
        assert isinstance(decision, PresenceSeen)
        assert decision.device.presence is state
        ADMISSION.apply(decision, view)
    for sequence in (MAX_SEQUENCE, MAX_BOOT << BOOT_SHIFT | 1, MAX_BOOT << BOOT_SHIFT | 1):
        decision = decide(view, KITCHEN.blob_request("ab" * 32, [], sequence=sequence))
        assert isinstance(decision, FileRequested)
        ADMISSION.apply(decision, view)
        assert view.newest_boot("kitchen-pi") == MAX_BOOT
    earlier = refusal(view, KITCHEN.blob_request("ab" * 32, [], sequence=(MAX_BOOT << BOOT_SHIFT) - 1))
    assert earlier.reason is Reason.SEQUENCE_REUSED


HOSTILE = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@HOSTILE
@given(body=st.binary(max_size=60), container=st.integers(0x60, 0x7F))
def test_whatever_a_device_signs_is_decided(view, body, container) -> None:
    data = KITCHEN.update(1, base_version=VERSION, packed=bytes([container]) + body)
    assert isinstance(decide(view, data), Accepted | Refused)


@HOSTILE
@given(
    kind=st.sampled_from(list(KINDS.values())), payload=st.binary(max_size=60), leaf=st.sampled_from(["up", "state"])
)
def test_whatever_payload_a_device_signs_is_decided(view, kind, payload, leaf) -> None:
    topic = getattr(KITCHEN, leaf)
    assert isinstance(decide(view, KITCHEN.sign(kind, payload, topic=topic), topic), Refused)


@HOSTILE
@given(position=st.integers(0, 400), flipped=st.integers(1, 255))
def test_no_altered_byte_is_accepted(view, position, flipped) -> None:
    data = bytearray(KITCHEN.update(1, base_version=VERSION))
    data[position % len(data)] ^= flipped
    assert not refusal(view, bytes(data)).verified


def test_unknown_key(view) -> None:
    refused = refusal(view, SigningDevice("kitchen-pi").update(1, base_version=VERSION))
    assert refused.reason is Reason.UNKNOWN_KEY
    assert not refused.verified
    assert refused.burned_sequence is None


def test_pending_and_revoked_keys(view) -> None:
    view.set_device(approved(KITCHEN, state=DeviceState.PENDING))
    assert refusal(view, KITCHEN.update(1)).reason is Reason.UNKNOWN_KEY
    view.set_device(approved(KITCHEN, state=DeviceState.REVOKED))
    assert refusal(view, KITCHEN.update(1)).reason is Reason.REVOKED_KEY
    assert refusal(view, KITCHEN.enrolment()).reason is Reason.REVOKED_KEY


def test_broken_signature(view) -> None:
    data = bytearray(KITCHEN.update(1, base_version=VERSION))
    data[-1] ^= 1
    refused = refusal(view, bytes(data))
    assert refused.reason is Reason.BAD_SIGNATURE
    assert not refused.verified


def test_message_moved_to_another_devices_topic(view) -> None:
    refused = refusal(view, KITCHEN.update(1, base_version=VERSION), topic=GARDEN.up)
    assert (refused.reason, refused.verified) == (Reason.WRONG_TOPIC, False)


def test_message_moved_to_another_topic_of_the_same_device(view) -> None:
    data = KITCHEN.presence(PresenceState.ONLINE, 1)
    assert refusal(view, data, topic=KITCHEN.up).reason is Reason.MALFORMED
    forged = KITCHEN.sign(BLOB_REQUEST, b"", topic=KITCHEN.state)
    assert refusal(view, forged).reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "edgeflock/v1/x/up",
        f"edgeflock/v1/{FLEET}/{SHARD}/kitchen-pi/down",
        f"edgeflock/v1/{FLEET}/1/kitchen-pi/up",
        f"edgeflock/v1/{FLEET}/{SHARD}/Küche/up",
        f"edgeflock/v1/another/{SHARD}/kitchen-pi/up",
    ],
)
def test_topic_that_is_not_ours_is_never_answered(view, topic) -> None:
    refused = refusal(view, KITCHEN.update(1), topic=topic)
    assert refused.reason in {Reason.MALFORMED, Reason.WRONG_TOPIC}
    assert refused.device is None or not refused.answered


def test_same_message_again_is_a_repetition(view) -> None:
    data = KITCHEN.update(4, base_version=VERSION)
    ADMISSION.apply(decide(view, data), view)
    decision = decide(view, data)
    assert isinstance(decision, Repeated)
    assert decision.outcome.reason is None


def test_number_used_for_another_update(view) -> None:
    ADMISSION.apply(decide(view, KITCHEN.update(4, base_version=VERSION)), view)
    refused = refusal(view, KITCHEN.update(4, base_version=VERSION, samples=9))
    assert refused.reason is Reason.SEQUENCE_REUSED
    assert refused.burned_sequence is None
    assert view.highest_sequence("kitchen-pi") == 4


def test_numbers_of_different_devices_do_not_meet(view) -> None:
    ADMISSION.apply(decide(view, KITCHEN.update(4, base_version=VERSION)), view)
    assert isinstance(decide(view, GARDEN.update(4, base_version=VERSION), topic=GARDEN.up), Accepted)


def test_staleness_counts_versions_that_the_batch_itself_fills(view) -> None:
    for sequence in range(1, 4):
        ADMISSION.apply(decide(view, KITCHEN.update(sequence, base_version=VERSION)), view)
    decision = decide(view, KITCHEN.update(4, base_version=VERSION))
    assert isinstance(decision, Accepted)
    assert decision.staleness == 1


def test_too_large(view) -> None:
    assert refusal(view, bytes(MAX_UPDATE_BYTES + 1)).reason is Reason.TOO_LARGE
    long_request = KITCHEN.sign(BLOB_REQUEST, bytes(MAX_CONTROL_BYTES))
    assert refusal(view, long_request).reason is Reason.TOO_LARGE
    assert refusal(view, bytes(MAX_CONTROL_BYTES + 1), topic=KITCHEN.state).reason is Reason.TOO_LARGE


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xd2", b"\xd2\x80", b"hello", bytes(1000)])
def test_bytes_that_are_no_envelope(view, data) -> None:
    assert refusal(view, data).reason is Reason.MALFORMED


def test_kinds_that_no_device_sends(view) -> None:
    for kind in (MANIFEST, BLOB_CHUNK, RECEIPT):
        assert refusal(view, KITCHEN.sign(kind, b"")).reason is Reason.MALFORMED


@pytest.mark.parametrize(("is_open", "state"), [(False, DeviceState.PENDING), (True, DeviceState.APPROVED)])
def test_enrolment_follows_the_policy(view, is_open, state) -> None:
    newcomer = SigningDevice("attic-pi")
    settings = AdmissionSettings(FLEET, SHARD, is_open, maximum_devices=4)
    decision = decide(view, newcomer.enrolment(), newcomer.up, settings)
    assert isinstance(decision, Enrolled)
    assert decision.device.state is state
    assert (decision.device.profile, decision.device.software) == ("generic", "test 1.0")


def test_enrolment_keeps_an_approval(view) -> None:
    decision = decide(view, KITCHEN.enrolment())
    assert isinstance(decision, Enrolled)
    assert decision.device.state is DeviceState.APPROVED


def test_name_that_is_bound_to_another_key(view) -> None:
    refused = refusal(view, SigningDevice("kitchen-pi").enrolment())
    assert refused.reason is Reason.UNKNOWN_KEY
    assert "devices revoke kitchen-pi" in refused.detail


def test_enrolment_with_somebody_elses_key(view) -> None:
    thief = SigningDevice("attic-pi")
    stolen = Enrolment(bytes(SigningDevice("cellar-pi").key.verify_key), "generic", "test", [TASK])
    assert refusal(view, thief.sign(ENROLMENT, encode_payload(stolen)), thief.up).reason is Reason.MALFORMED


def test_open_enrolment_lets_in_as_many_as_are_allowed_whoever_else_waits_or_is_revoked(view) -> None:
    for number, state in enumerate([DeviceState.PENDING, DeviceState.REVOKED] * 3):
        view.set_device(approved(SigningDevice(f"other-{number}"), state=state))
    is_open = replace(POLICY, open_enrolment=True)
    newcomers = [SigningDevice(name) for name in "abc"]
    decisions = []
    for device in newcomers:
        decisions.append(decide(view, device.enrolment(), device.up, is_open))
        ADMISSION.apply(decisions[-1], view)
    assert [type(decision) for decision in decisions] == [Enrolled, Enrolled, Refused]
    assert "maximum_devices is 4" in decisions[-1].detail
    assert isinstance(decide(view, newcomers[0].enrolment(), newcomers[0].up, is_open), Enrolled), "it is one of them"


def test_who_waits_for_approval_takes_no_place(view) -> None:
    for number in range(20):
        device = SigningDevice(f"pending-{number}")
        decision = decide(view, device.enrolment(), device.up)
        assert isinstance(decision, Enrolled)
        ADMISSION.apply(decision, view)
    assert (view.numbers[DeviceState.APPROVED], view.numbers[DeviceState.PENDING]) == (2, 20)


def broken(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def test_unknown_devices_enrol_so_often_together_whatever_they_are_called_and_updates_go_on(view) -> None:
    limited = replace(POLICY, enrolment_allowance=TokenBucket(60.0, 3))
    forged, genuine = SigningDevice("forged"), SigningDevice("genuine")
    decisions = [decide(view, broken(forged.enrolment()), forged.up, limited) for _ in range(2)]
    assert [decision.reason for decision in decisions] == [Reason.BAD_SIGNATURE] * 2, "its cost counts"
    assert isinstance(decide(view, genuine.enrolment(), genuine.up, limited), Enrolled)
    late = decide(view, broken(genuine.enrolment()), genuine.up, limited)
    assert (late.reason, late.verified) == (Reason.RATE_LIMITED, False), "before the signature is looked at"
    assert "60 unknown devices enrol in an hour" in late.detail
    assert "devices approve genuine" in late.detail
    assert isinstance(decide(view, KITCHEN.enrolment(), KITCHEN.up, limited), Enrolled), (
        "an approved one is not unknown"
    )
    assert isinstance(decide(view, KITCHEN.update(1, base_version=VERSION)), Accepted)


def test_device_that_waits_for_approval_enrols_now_and_then_and_says_nothing_else(view) -> None:
    device = SigningDevice("attic-pi")
    view.set_device(approved(device, state=DeviceState.PENDING))
    for data, topic in (
        (broken(device.update(1)), device.up),
        (broken(device.blob_request("ab" * 32, [], 1)), device.up),
        (device.presence(PresenceState.ONLINE, 1), device.state),
    ):
        refused = refusal(view, data, topic)
        assert (refused.reason, refused.verified) == (Reason.UNKNOWN_KEY, False), "its signature costs nothing"
        assert "approve attic-pi" in refused.detail
    assert isinstance(decide(view, device.enrolment(), device.up), Enrolled)
    assert refusal(view, device.enrolment(), device.up).reason is Reason.RATE_LIMITED
    later = replace(view, now=PENDING_ALLOWANCE.interval_seconds)
    assert isinstance(decide(later, device.enrolment(), device.up), Enrolled)


def test_message_that_was_answered_a_moment_ago_is_known_by_its_bytes(view) -> None:
    data = broken(KITCHEN.update(1))
    known = replace(view, answered=frozenset([digest(data)]))
    assert decide(known, data) == AnsweredBefore(digest(data))
    assert isinstance(decide(known, KITCHEN.update(2, base_version=VERSION)), Accepted)


def test_device_that_asks_too_often_is_not_looked_at_but_for_what_is_new(view) -> None:
    ADMISSION.apply(decide(view, KITCHEN.update(1, base_version=VERSION)), view)
    limited = replace(POLICY, repeat_allowance=TokenBucket(60.0, 2))
    again = KITCHEN.update(1, base_version=VERSION)
    forged = [decide(view, broken(again), settings=limited) for _ in range(5)]
    assert [each.reason for each in forged] == [Reason.BAD_SIGNATURE] * 5
    decisions = [
        decide(view, data, settings=limited) for data in (again, KITCHEN.enrolment(), again, KITCHEN.enrolment())
    ]
    assert [type(each) for each in decisions] == [Repeated, Enrolled, Refused, Refused], "a forger uses nothing up"
    assert not any(each.answered or each.verified for each in decisions[2:])
    assert isinstance(decide(view, KITCHEN.update(2, base_version=VERSION), settings=limited), Accepted)
    assert isinstance(decide(view, GARDEN.enrolment(), GARDEN.up, limited), Enrolled)
    above_its_rate = replace(view, allowance=TokenBucket(60.0, 1), full_at=dict(view.full_at) | {KITCHEN.name: 60.0})
    assert not decide(above_its_rate, KITCHEN.update(2, base_version=VERSION), settings=limited).answered


def test_enrolment_that_would_not_print(view) -> None:
    for software in ("x" * 101, "two\nlines"):
        described = Enrolment(bytes(KITCHEN.key.verify_key), "generic", software, [])
        assert refusal(view, KITCHEN.sign(ENROLMENT, encode_payload(described))).reason is Reason.OUT_OF_BOUNDS


def test_blob_request_is_heard_once(view) -> None:
    data = KITCHEN.blob_request("ab" * 32, [0, 2], sequence=(3 << 32) + 1)
    decision = decide(view, data)
    assert isinstance(decision, FileRequested)
    assert (decision.wanted, decision.chunks) == ("ab" * 32, (0, 2))
    ADMISSION.apply(decision, view)
    replayed = refusal(view, data)
    assert (replayed.reason, replayed.answered) == (Reason.SEQUENCE_REUSED, False)
    assert isinstance(decide(view, KITCHEN.blob_request("ab" * 32, [], sequence=4 << 32)), FileRequested)


def test_device_whose_boot_number_went_back_is_told_the_newest_and_no_more_often_than_its_repeats(view) -> None:
    limited = replace(POLICY, repeat_allowance=TokenBucket(60.0, 2))
    ADMISSION.apply(decide(view, KITCHEN.presence(PresenceState.ONLINE, 8), KITCHEN.state), view)
    ADMISSION.apply(decide(view, KITCHEN.blob_request("ab" * 32, [], sequence=(8 << BOOT_SHIFT) + 9)), view)
    for number, answered in enumerate((True, True, False)):
        request = KITCHEN.blob_request("ab" * 32, [], sequence=((6 + number) << BOOT_SHIFT) + 1)
        decision = decide(view, request, settings=limited)
        assert isinstance(decision, Refused)
        assert (decision.reason, decision.verified, decision.answered) == (Reason.SEQUENCE_REUSED, True, answered)
    presence = decide(view, KITCHEN.presence(PresenceState.ONLINE, 7), KITCHEN.state, limited)
    assert isinstance(presence, Refused)
    assert not presence.answered
    later = replace(view, now=60.0)
    assert decide(later, KITCHEN.presence(PresenceState.ONLINE, 7), KITCHEN.state, limited).answered
    assert view.newest_boot("kitchen-pi") == 8


def test_blob_request_for_something_else_than_a_hash(view) -> None:
    assert refusal(view, KITCHEN.blob_request("ab", [], sequence=1)).reason is Reason.MALFORMED


def test_late_will_does_not_hide_a_newer_boot(view) -> None:
    ADMISSION.apply(decide(view, KITCHEN.presence(PresenceState.ONLINE, 8), KITCHEN.state), view)
    decision = decide(view, KITCHEN.presence(PresenceState.OFFLINE, 7), KITCHEN.state)
    assert isinstance(decision, PresenceSeen)
    assert (decision.device.presence, decision.device.boot) == (PresenceState.ONLINE, 8)


def test_branch_does_not_show_before_it_is_absorbed(view) -> None:
    branch = view.branch()
    ADMISSION.apply(decide(branch, KITCHEN.update(4, base_version=VERSION)), branch)
    assert branch.highest_sequence("kitchen-pi") == 4
    assert view.highest_sequence("kitchen-pi") == 0
    assert view.tasks[TASK].buffered == 0
    view.absorb(branch)
    assert view.highest_sequence("kitchen-pi") == 4
    assert view.tasks[TASK].buffered == 1


NEWCOMER = SigningDevice("attic-pi")
BATCH = {
    "update": (KITCHEN.up, lambda number: KITCHEN.update(number, base_version=VERSION)),
    "update of another": (GARDEN.up, lambda number: GARDEN.update(number, base_version=VERSION - 1)),
    "update of a newcomer": (NEWCOMER.up, lambda number: NEWCOMER.update(number, base_version=VERSION)),
    "update on another's topic": (GARDEN.up, lambda number: KITCHEN.update(number, base_version=VERSION)),
    "dense": (KITCHEN.up, lambda number: KITCHEN.update(number, base_version=VERSION, packed=packed([1.0], "int8"))),
    "too long": (GARDEN.up, lambda number: GARDEN.update(number, base_version=VERSION, packed=packed([9.0, 9.0]))),
    "stale": (KITCHEN.up, lambda number: KITCHEN.update(number, base_version=VERSION - 2)),
    "of no task": (KITCHEN.up, lambda number: KITCHEN.update(number, task="none")),
    "damaged": (KITCHEN.up, lambda number: KITCHEN.update(number, base_version=VERSION)[:-1] + b"!"),
    "not decodable": (GARDEN.up, lambda number: GARDEN.update(number, base_version=VERSION, packed=b"\x69\xff\xff")),
    "not an update": (KITCHEN.up, lambda number: KITCHEN.sign(UPDATE, b"\x80", sequence=number, task=TASK)),
    "rubbish": (KITCHEN.up, lambda number: bytes([number])),
    "enrolment": (NEWCOMER.up, lambda _: NEWCOMER.enrolment()),
    "presence": (KITCHEN.state, lambda number: KITCHEN.presence(PresenceState.ONLINE, number)),
    "request": (GARDEN.up, lambda number: GARDEN.blob_request("ab" * 32, [], sequence=number)),
}


def told(decision: Decision) -> object:
    """Something that compares."""
    if not isinstance(decision, Accepted):
        return decision
    update = decision.item
    delta = update.delta.indices.tolist(), update.delta.values.tolist()
    accepted = decision.device, decision.header, decision.envelope_digest, decision.staleness, decision.facts
    return *accepted, delta, update.samples, update.base_version, update.staleness


@HOSTILE
@given(
    batch=st.lists(st.tuples(st.sampled_from(sorted(BATCH)), st.integers(1, 6)), max_size=25),
    open_enrolment=st.booleans(),
)
def test_a_batch_is_decided_as_its_messages_are_one_after_the_other(view, batch, open_enrolment) -> None:
    admission = Admission(AdmissionSettings(FLEET, SHARD, open_enrolment=open_enrolment, maximum_devices=4), CONSUMERS)
    messages = [Message(BATCH[name][0], BATCH[name][1](number)) for name, number in batch]
    one_by_one, together = view.branch(), view.branch()
    decisions = []
    for message in messages:
        decisions.append(admission.admit(message, one_by_one))
        admission.apply(decisions[-1], one_by_one)
    assert list(map(told, admission.admit_all(messages, together))) == list(map(told, decisions))
    assert together == one_by_one
