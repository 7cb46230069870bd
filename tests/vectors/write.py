"""Writes the vectors again after the format has changed: `python -m tests.vectors.write`."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from nacl.encoding import RawEncoder
from nacl.hash import blake2b
from nacl.public import Box, PrivateKey

from fleet_protocol import topics
from fleet_protocol.authorities import authorities_id
from fleet_protocol.codec import ClassStatistics, Grid, Moments, Quantisation, encode_difference, encode_update
from fleet_protocol.codec.activations import pack_gradient, unpack_rows
from fleet_protocol.codec.selection import random_indices
from fleet_protocol.envelope import sign_envelope
from fleet_protocol.keys import SigningKey, key_id
from fleet_protocol.kinds import (
    ACTIVATION_SUMMARY,
    ANALYTICS_REPORT,
    AUTHORITY_SUCCESSION,
    BLOB_CHUNK,
    BLOB_REQUEST,
    COPY_REQUEST,
    ENCRYPTED_ACTIVATION_SUMMARY,
    ENCRYPTED_ANALYTICS_REPORT,
    ENCRYPTED_FEATURE_STATISTICS,
    ENCRYPTED_MASKED_UPDATE,
    ENCRYPTED_PROMPTS,
    ENCRYPTED_STATISTICS,
    ENCRYPTED_UPDATE,
    ENROLMENT,
    FEATURE_STATISTICS,
    FROM_COORDINATOR,
    INVITATION,
    KEY_SUCCESSION,
    MANIFEST,
    MASK_REPLY,
    MASK_REQUEST,
    MASKED_UPDATE,
    PRESENCE,
    PROMPTS,
    QUERIES,
    RECEIPT,
    ROSTER,
    SESSION_OPENING,
    STATISTICS,
    TOLD,
    UPDATE,
    WEIGHTS_REQUEST,
    ActivationSummary,
    AnalyticsReport,
    AnswerOutcome,
    AuthoritySuccession,
    BlobChunk,
    BlobRequest,
    Condition,
    CopyRequest,
    EncryptedPayload,
    Enrolment,
    FeatureStatistics,
    Invitation,
    KeySuccession,
    Manifest,
    MaskedUpdate,
    MaskReply,
    MaskRequest,
    Member,
    Outcome,
    PayloadKind,
    Presence,
    PresenceState,
    Prompts,
    Queries,
    Query,
    Receipt,
    Roster,
    Selection,
    Signed,
    Statistics,
    SumRequest,
    Told,
    Update,
    WeightsRequest,
    encode_payload,
)
from fleet_protocol.limits import BOOT_SHIFT
from fleet_protocol.moved_message import MovedMessage, write_moved
from fleet_protocol.shards import shard_of
from fleet_protocol.update_plan import UpdatePlan
from tests.vectors.home_assistant import home_assistant_vectors
from tests.vectors.masked_cohort import masked_vectors
from tests.vectors.sessions import SESSIONS, session_vectors

FOLDER = Path(__file__).parent
SHAPES = [[6, 8], [6], [2, 6], [2]]
SEED = bytes(range(32))
UP, DOWN = topics.up("home", "0", "kitchen-pi"), topics.down("home", "0", "kitchen-pi")
GOSSIP = topics.gossip("home", "digits", "kitchen-pi")
STATE, TASK_TOPIC = topics.state("home", "0", "kitchen-pi"), topics.manifest("home", "digits")

NAMING_A_TASK = (
    UPDATE,
    WEIGHTS_REQUEST,
    ENCRYPTED_UPDATE,
    STATISTICS,
    ENCRYPTED_STATISTICS,
    FEATURE_STATISTICS,
    ENCRYPTED_FEATURE_STATISTICS,
    ANALYTICS_REPORT,
    ENCRYPTED_ANALYTICS_REPORT,
    QUERIES,
    PROMPTS,
    ENCRYPTED_PROMPTS,
    SESSION_OPENING,
    MASKED_UPDATE,
    ENCRYPTED_MASKED_UPDATE,
    ROSTER,
    TOLD,
    COPY_REQUEST,
)
RECIPIENT = SigningKey(bytes(range(32, 64)))
EPHEMERAL = PrivateKey(bytes(range(64, 96)))


def sealed_box(message: bytes) -> bytes:
    """What libsodium's crypto_box_seal would write if it drew this ephemeral key."""
    public, recipient = bytes(EPHEMERAL.public_key), RECIPIENT.verify_key.to_curve25519_public_key()
    nonce = blake2b(public + bytes(recipient), digest_size=24, encoder=RawEncoder)
    return public + bytes(Box(EPHEMERAL, recipient).encrypt(message, nonce).ciphertext)


BOX = sealed_box(encode_payload(Update(16, 40, 0.75, bytes.fromhex("41010254803f40"))))
STATISTICS_OF_4 = Statistics(4, Moments.of(np.array([[1, 20], [2, np.nan], [3, 22], [6, np.nan]], np.float32)).encode())
"""Two columns: one of counts 4, mean 3 and squares 14, and one of which half is missing."""
FEATURES = np.array([[1, 2], [3, 2], [-1, 0.5]], np.float32)
OF_TWO_CLASSES = ClassStatistics.of(FEATURES, np.array([0, 0, 2]), 3, "ridge")
FEATURE_STATISTICS_OF_3 = FeatureStatistics(OF_TWO_CLASSES.encode("float16", "ridge"))
"""Two features of three samples, two of class 0 and one of class 2 of three: for a ridge head, in float16."""
REPORT = AnalyticsReport(77, 1, AnswerOutcome.ANSWERED, (0.5, 0.0, 0.25))
"""A histogram of three bins, of a device that counts for three quarters of a sample."""
ASKED = Query(
    number=77,
    name="hours",
    ask="histogram",
    field="input[3]",
    where=(Condition("label", 1.0, None),),
    since=1_800_000_000,
    until=0,
    lower=0.0,
    upper=0.0,
    samples_per_device=1,
    epsilon=0.0,
    minimum_devices=10,
    rounds=2,
    round=1,
    edges=(-0.5, 16.0),
    prefixes=(),
    share=1.0,
)
PROMPTS_OF_3 = Prompts("class", bytes([2, 0, 1]), "voice=en-gb")
"""Two or three samples of class 0, one of class 2, of three."""
SUMMARY_OF_16 = ActivationSummary("kitchen-pi", 16, bytes.fromhex("0000803f000000bf"))
"""Sixteen samples, whose two channels have the means 1 and -0.5."""
SIGNED = Signed(b"content", bytes(range(64)))
"""What a third party checks; a whole cohort is in masked_cohort.json."""
MASKED = MaskedUpdate(SIGNED, bytes.fromhex("0badcafe"))
ABOUT = SumRequest(SIGNED, SIGNED, (SIGNED, SIGNED))
MESSAGES = [
    (ENROLMENT, Enrolment(bytes(range(32)), "pi-4", "0.1.0", ["digits"]), UP),
    (PRESENCE, Presence(PresenceState.ONLINE, 3), STATE),
    (MANIFEST, Manifest(7, "0f" * 32, "1e" * 32), TASK_TOPIC),
    (BLOB_REQUEST, BlobRequest(bytes(range(32)), [0, 300]), UP),
    (BLOB_CHUNK, BlobChunk(70_000, b"content"), topics.blob_chunk("home", "0f" * 32, 1)),
    (UPDATE, Update(16, 40, 0.75, bytes.fromhex("69012aa0803f")), UP),
    (RECEIPT, Receipt(bytes(16), Outcome.REJECTED, "too_stale", "made from version 1", 9, 3), DOWN),
    (WEIGHTS_REQUEST, WeightsRequest(15, 12, [0]), UP),
    (WEIGHTS_REQUEST, WeightsRequest(15, None, []), UP),
    (ENCRYPTED_UPDATE, EncryptedPayload(key_id(RECIPIENT.verify_key), BOX), UP),
    (BLOB_CHUNK, BlobChunk(9, b"content"), topics.packed_chunk("home", topics.PackedWeights("digits", 15, 12), 0)),
    (STATISTICS, STATISTICS_OF_4, UP),
    (
        ENCRYPTED_STATISTICS,
        EncryptedPayload(key_id(RECIPIENT.verify_key), sealed_box(encode_payload(STATISTICS_OF_4))),
        UP,
    ),
    (FEATURE_STATISTICS, FEATURE_STATISTICS_OF_3, UP),
    (
        ENCRYPTED_FEATURE_STATISTICS,
        EncryptedPayload(key_id(RECIPIENT.verify_key), sealed_box(encode_payload(FEATURE_STATISTICS_OF_3))),
        UP,
    ),
    (QUERIES, Queries((ASKED,)), topics.queries("home", "digits")),
    (ANALYTICS_REPORT, REPORT, UP),
    (ANALYTICS_REPORT, AnalyticsReport(78, 0, AnswerOutcome.ANSWERED, (), "kitc"), UP),
    (ANALYTICS_REPORT, AnalyticsReport(79, 0, AnswerOutcome.NOT_ALLOWED), UP),
    (
        ENCRYPTED_ANALYTICS_REPORT,
        EncryptedPayload(key_id(RECIPIENT.verify_key), sealed_box(encode_payload(REPORT))),
        UP,
    ),
    (ACTIVATION_SUMMARY, SUMMARY_OF_16, UP),
    (
        ENCRYPTED_ACTIVATION_SUMMARY,
        EncryptedPayload(key_id(RECIPIENT.verify_key), sealed_box(encode_payload(SUMMARY_OF_16))),
        UP,
    ),
    (PROMPTS, PROMPTS_OF_3, UP),
    (
        ENCRYPTED_PROMPTS,
        EncryptedPayload(key_id(RECIPIENT.verify_key), sealed_box(encode_payload(PROMPTS_OF_3))),
        UP,
    ),
    (MANIFEST, Manifest(7, "0f" * 32, "1e" * 32, cohort=encode_payload(SIGNED)), TASK_TOPIC),
    (MASKED_UPDATE, MASKED, UP),
    (
        ENCRYPTED_MASKED_UPDATE,
        EncryptedPayload(key_id(RECIPIENT.verify_key), sealed_box(encode_payload(MASKED))),
        UP,
    ),
    (MASK_REQUEST, MaskRequest("unusable", ABOUT), DOWN),
    (MASK_REQUEST, MaskRequest("answer", ABOUT, (SIGNED, SIGNED)), DOWN),
    (MASK_REPLY, MaskReply("unusable", bytes(range(32)), unusable=("kitchen-pi",)), UP),
    (MASK_REPLY, MaskReply("sign", bytes(range(32)), "sequence_reused: cohort 0a"), UP),
    (MASK_REPLY, MaskReply("answer", bytes(range(32)), signed=(SIGNED,)), UP),
]
OF_SOME_BLOCKS = (UPDATE, Update(16, 40, 0.75, bytes.fromhex("69012aa0803f"), held=(16, 0, 12)), UP)
"""Of three blocks, the second was a helper's."""
OF_CLUSTER_2 = [
    (UPDATE, Update(16, 40, 0.75, bytes.fromhex("69012aa0803f"), cluster=2), UP),
    (RECEIPT, Receipt(bytes(16), Outcome.ACCEPTED, "", "", 9, 3, 2), DOWN),
]
OF_NO_NOISE = (UPDATE, Update(16, 40, 0.0, bytes.fromhex("69012aa0803f"), noise=0.0), UP)
"""Of a device whose owner has chosen so."""
WITHOUT_COORDINATOR = [
    (
        ROSTER,
        Roster(
            3, 7, "0f" * 32, "ring", "mean", 0, (Member("kitchen-pi", bytes(range(32))), Member("shed-pi", bytes(32)))
        ),
        topics.roster("home", "digits"),
    ),
    (TOLD, Told(2**40, 12, bytes.fromhex("41010254803f40")), GOSSIP),
    (TOLD, Told(2**40, 12, bytes.fromhex("41010254803f40"), whole=True), GOSSIP),
    (COPY_REQUEST, CopyRequest("shed-pi"), GOSSIP),
    (COPY_REQUEST, CopyRequest("shed-pi", 2**40, 12), GOSSIP),
]
"""Of a ring of two, which is too few."""
SUCCESSOR = SigningKey(bytes(range(32, 64))).verify_key
SUCCESSION = (
    KEY_SUCCESSION,
    KeySuccession(bytes(SUCCESSOR)),
    topics.key_succession("home", key_id(SigningKey(SEED).verify_key)),
)
OF_TWO_SHARDS = (MANIFEST, Manifest(7, "0f" * 32, "1e" * 32, shards=("0", "1")), TASK_TOPIC)
OF_SELECTED = (
    MANIFEST,
    Manifest(7, "0f" * 32, "1e" * 32, selection=Selection(12.5, 2**30, 3.25, 60.0)),
    TASK_TOPIC,
)
AUTHORITIES = (
    AUTHORITY_SUCCESSION,
    AuthoritySuccession([bytes(range(48)), bytes(range(16))]),
    topics.authority_succession("home", authorities_id([bytes(range(48))])),
)
OF_GENERATION_3 = [
    (MANIFEST, Manifest(0, "0f" * 32, "1e" * 32, generation=3), TASK_TOPIC),
    (MANIFEST, Manifest(8, "0f" * 32, "0f" * 32, generation=4, removed=True), TASK_TOPIC),
    (INVITATION, Invitation(8, 4), topics.invitation("home", "digits")),
    (UPDATE, Update(16, 40, 0.75, bytes.fromhex("69012aa0803f")), UP),
]
"""Messages of a task whose database was restored, say. In the header, only an update or a request names it."""


def delta(shapes: list[list[int]]) -> np.ndarray:
    """Exact in float32 and easy to write down: multiples of 1/64, and four times as large in every eighth place."""
    index = np.arange(sum(map(math.prod, shapes)))
    return ((index * 37 % 101 - 50) / 64 * (1 + 3 * (index % 8 == 2))).astype(np.float32)


def update_plans() -> Iterator[tuple[str, UpdatePlan]]:
    """Every stage's options at least once."""
    for quantisation in Quantisation:
        name = quantisation.name.lower()
        yield f"top tenth, {name}", UpdatePlan(0.1, name)
        yield f"dense, {name}", UpdatePlan(1.0, name, "dense")
    yield "top tenth of each tensor", UpdatePlan(0.1, "ternary", "top_k_per_tensor")
    yield "magnitude of at least 1", UpdatePlan(1.0, "int8", "threshold", threshold=1.0)
    yield "nothing reaches the threshold", UpdatePlan(1.0, "ternary", "threshold", threshold=100.0)
    yield "random tenth", UpdatePlan(0.1, "ternary", "random_k")


def update_cases() -> Iterator[tuple[str, list[list[int]], np.ndarray, UpdatePlan]]:
    """Names, shapes, deltas and plans."""
    for name, plan in update_plans():
        yield name, SHAPES, delta(SHAPES), plan
    yield "scanned by column", [[16, 8]], delta([[16, 8]]), UpdatePlan(0.1)
    alike = np.tile(delta([[40]]), 40)
    yield "rows that resemble each other", [[40, 40]], alike, UpdatePlan(0.2)
    yield "columns that resemble each other", [[40, 40]], alike.reshape(40, 40).T.ravel(), UpdatePlan(0.2)
    crowded = delta([[400]]) * (np.arange(400) % 100 < 12)
    yield "crowds with nothing between them", [[400]], crowded.astype(np.float32), UpdatePlan(0.1)


def update_vectors() -> list[dict[str, object]]:
    """Deltas, packed, and what a receiver reads."""
    vectors = []
    for name, shapes, vector, plan in update_cases():
        encoded = encode_update(vector, shapes, plan, np.random.default_rng(1))
        vectors.append({
            "name": name,
            "input": {
                "shapes": shapes,
                "delta": vector.tolist(),
                "keep_fraction": plan.keep_fraction,
                "quantisation": plan.quantisation,
                "selection": plan.selection,
                "threshold": plan.threshold,
            },
            "hex": encoded.packed.hex(),
            "indices": encoded.sent.indices.tolist(),
            "values": encoded.sent.values.tolist(),
        })  # fmt: skip
    return vectors


def sequence_of(kind: PayloadKind) -> int:
    """The fifth of its kind; what a device sends without keeping it, as the fifth message of its third boot."""
    is_numbered_by_boot = not (kind.journalled or kind.leaf in FROM_COORDINATOR)
    return 3 << BOOT_SHIFT | 5 if is_numbered_by_boot else 5


def message_vectors() -> list[dict[str, object]]:
    """One signed message of every kind."""
    vectors = []
    cases = [
        *((0, *case) for case in MESSAGES),
        *((3, *case) for case in OF_GENERATION_3),
        (0, *SUCCESSION),
        (0, *AUTHORITIES),
        (0, *OF_SOME_BLOCKS),
        *((0, *case) for case in SESSIONS),
        *((0, *case) for case in OF_CLUSTER_2),
        (0, *OF_NO_NOISE),
        (0, *OF_TWO_SHARDS),
        (0, *OF_SELECTED),
        *((3, *case) for case in WITHOUT_COORDINATOR),
    ]
    for generation, kind, message, topic in cases:
        names_a_task = kind in NAMING_A_TASK
        fields: dict[str, Any] = {
            "sequence": sequence_of(kind),
            "task": "digits" if names_a_task else "",
            "base_version": 2,
        }
        if generation and names_a_task:
            fields["generation"] = generation
        payload = encode_payload(message)
        signed = sign_envelope(SigningKey(SEED), topic, kind, payload, **fields)
        header = {"signing_seed": SEED.hex(), "topic": topic, "kind": kind.number, **fields}
        vectors.append(
            {
                "name": kind.name.replace(" ", "_"),
                "input": header | {"payload_hex": payload.hex()},
                "hex": signed.hex(),
            }
        )
    return vectors


def difference_vectors() -> list[dict[str, object]]:
    """Weights on a grid and not, from another version and from nothing."""
    first = delta(SHAPES)
    grid = Grid.below(first, SHAPES, bits=2)
    near, far = grid.rounded(first * np.float32(1.1), SHAPES), grid.rounded(first * np.float32(-700), SHAPES)
    cases = [
        ("on the grid, from version 0", first, near, grid),
        ("on the grid, whole", None, near, grid),
        ("on the grid, two planes", near, far, grid),
        ("bits", first, first * np.float32(1.001), None),
        ("bits, whole", None, first, None),
        ("nothing has changed", near, near, grid),
    ]
    return [
        {
            "name": name,
            "input": {
                "shapes": SHAPES,
                "base": None if base is None else base.tolist(),
                "target": target.tolist(),
                "exponents": None if on is None else on.exponents.tolist(),
            },
            "hex": encode_difference(base, target, SHAPES, on).hex(),
        }
        for name, base, target, on in cases
    ]


def activation_vectors() -> list[dict[str, object]]:
    """Every format of activations, with and without numbers below 0, compressed and not; and chosen entries of rows."""
    array = delta([[3, 4, 5]]).reshape(3, 4, 5)
    cases = [(f"{wire}, whole", array, wire, "dense", 1.0) for wire in ("float32", "float16", "int8", "int4")]
    cases += [(f"{wire}, none below 0", np.abs(array), wire, "dense", 1.0) for wire in ("int8", "int4")]
    cases += [("int8, mostly 0", array * (array > 1.5), "int8", "dense", 1.0)]
    cases += [
        (f"{wire}, the largest fifth of each row", array, wire, "top_k", 0.2) for wire in ("float32", "int8", "int4")
    ]
    cases += [("int8, one entry of each row", array, "int8", "top_k", 0.05)]
    vectors = []
    for name, values, wire, selection, keep in cases:
        packed = pack_gradient(values, wire, selection, keep, np.random.default_rng(1))
        vectors.append({
            "name": name,
            "input": {
                "shape": list(values.shape),
                "values": values.ravel().tolist(),
                "wire": wire,
                "selection": selection,
                "keep": keep,
            },
            "hex": packed.hex(),
            "values": unpack_rows(packed, wire, len(values), values.shape[1:]).ravel().tolist(),
        })  # fmt: skip
    return vectors


def random_vectors() -> list[dict[str, object]]:
    """Seeds and the positions that follow from them."""
    cases = [(0, 4, 100), (0, 90, 100), (2**63 + 1, 7, 1_000_000)]
    return [
        {"input": {"seed": seed, "count": count, "size": size}, "indices": random_indices(seed, count, size).tolist()}
        for seed, count, size in cases
    ]


def shard_vectors() -> list[dict[str, object]]:
    """Devices, a fleet's shards, and where each device belongs."""
    devices = ("kitchen-pi", "shed-pi", "gateway", "a", "z" * 48)
    fleets = (("0",), ("0", "1"), ("0", "1", "2"), ("north", "south", "east-2", "west_2"))
    return [
        {"device": device, "shards": list(shards), "shard": shard_of(device, shards)}
        for shards in fleets
        for device in devices
    ]


def moved_vectors() -> list[dict[str, object]]:
    """A signed message of shard 0 as it is sent under another, of a device that has moved."""
    envelope = sign_envelope(SigningKey(SEED), UP, UPDATE, encode_payload(OF_NO_NOISE[1]), sequence=5, task="digits")
    return [
        {
            "input": {"shard": shard, "envelope_hex": envelope.hex()},
            "hex": write_moved(MovedMessage(shard, envelope)).hex(),
        }
        for shard in ("0", "a-shard-with-a-name-of-30-letter")
    ]


def main() -> None:
    """Write every file."""
    files = {
        "updates": update_vectors(),
        "messages": message_vectors(),
        "random_positions": random_vectors(),
        "differences": difference_vectors(),
        "activations": activation_vectors(),
        "masked_cohort": masked_vectors(),
        "sessions": session_vectors(),
        "home_assistant": home_assistant_vectors(),
        "shards": shard_vectors(),
        "moved_messages": moved_vectors(),
    }
    for name, vectors in files.items():
        lines = ",\n".join(json.dumps(vector) for vector in vectors)
        (FOLDER / f"{name}.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
