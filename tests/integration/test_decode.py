"""`edgeflock decode`: a message in words, and never more trust than was checked."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from broker_coordinator.admission.fleet_view import Device, DeviceState
from broker_coordinator.storage.database import open_database, writing
from broker_coordinator.storage.device_registry import store_device
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol import topics
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.codec import encode_update
from fleet_protocol.encryption import encrypt_payload
from fleet_protocol.envelope import sign_envelope
from fleet_protocol.keys import SigningKey, write_signing_key, write_verify_key
from fleet_protocol.kinds import (
    ENCRYPTED_UPDATE,
    ENROLMENT,
    KINDS,
    PRESENCE,
    RECEIPT,
    UPDATE,
    Enrolment,
    Presence,
    PresenceState,
    Receipt,
    Update,
    encode_payload,
)
from fleet_protocol.limits import BOOT_SHIFT
from fleet_protocol.update_plan import UpdatePlan
from workbench import cli

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "models" / "digits" / "bundle"
DIGITS = parse_description((BUNDLE / DESCRIPTION_FILE).read_bytes())
KEY, TOPIC = SigningKey(bytes(32)), topics.up("home", "0", "kitchen-pi")
PUBLIC = write_verify_key(KEY.verify_key)


def update() -> bytes:
    generator = np.random.default_rng(1)
    delta = generator.standard_normal(DIGITS.parameter_count).astype(np.float32)
    packed = encode_update(delta, DIGITS.shapes, UpdatePlan(0.01), generator).packed
    payload = encode_payload(Update(16, 40, 0.75, packed))
    return sign_envelope(KEY, TOPIC, UPDATE, payload, sequence=5, task="digits", base_version=3)


@pytest.fixture
def decode(monkeypatch, capsys, tmp_path):
    """Runs the command on a message; returns its exit code, and label to words."""

    def run(data: bytes, *options: object, file: str | None = None) -> tuple[int, dict[str, str]]:
        path = tmp_path / "message"
        path.write_bytes(data)
        monkeypatch.setattr(sys, "argv", ["edgeflock", "decode", file or str(path), *map(str, options)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        output = capsys.readouterr()
        lines = {line[:20].strip(): line[20:] for line in output.out.splitlines()}
        return int(ended.value.code or 0), lines | ({"error": output.err} if output.err else {})

    return run


def test_update_in_words(decode):
    code, said = decode(update(), "--topic", TOPIC, "--key", PUBLIC, "--bundle", BUNDLE)
    assert code == 0
    assert said["message"].startswith("update, ")
    assert said["task"] == "digits, made from version 3"
    assert (said["samples"], said["steps"], said["loss"], said["sequence"]) == ("16", "40", "0.75", "5")
    assert "ternary" in said["packing"]
    assert said["entries"].startswith("48 of 4810 (1.00%)")
    assert "positions" in said["stages"]
    assert said["verified"] == f"yes, for topic {TOPIC}"


def test_envelope_and_header_of_an_update_take_at_most_160_bytes(decode):
    assert int(decode(update())[1]["message"].rsplit(" ", 1)[1]) <= 160


def test_standard_input_and_hex_are_read_as_well(decode):
    for data in (update(), update().hex().encode(), update().hex(" ").encode() + b"\n"):
        assert decode(data, file="-")[1]["task"] == "digits, made from version 3"


@pytest.mark.parametrize(
    ("options", "code", "verdict"),
    [
        ([], 0, "not checked: the key is unknown"),
        (["--key", PUBLIC], 0, "not checked: the signature covers the topic"),
        (["--key", PUBLIC, "--topic", topics.up("home", "0", "garden-pi")], 1, "no, bad_signature"),
        (["--key", write_verify_key(SigningKey(bytes([1] * 32)).verify_key), "--topic", TOPIC], 1, "no: signed with"),
    ],
)
def test_nothing_is_called_verified_that_was_not(decode, options, code, verdict):
    ended, said = decode(update(), *options)
    assert ended == code
    assert said["verified"].startswith(verdict)


def test_device_is_named_and_verified_from_the_database(decode, tmp_path):
    engine = open_database(tmp_path / "coordinator.sqlite")
    with writing(engine) as connection:
        store_device(connection, Device("kitchen-pi", KEY.verify_key, DeviceState.APPROVED))
    engine.dispose()
    code, said = decode(update(), "--topic", TOPIC, "--database", tmp_path / "coordinator.sqlite")
    assert code == 0
    assert said["from"].endswith(", kitchen-pi (approved)")
    assert said["verified"].startswith("yes")


def test_coordinators_configuration_is_enough_to_verify_both_directions(decode, tmp_path):
    engine = open_database(tmp_path / "coordinator.db")
    with writing(engine) as connection:
        store_device(connection, Device("kitchen-pi", KEY.verify_key, DeviceState.APPROVED))
    engine.dispose()
    coordinator = SigningKey.generate()
    (tmp_path / "coordinator.key").touch(mode=0o600)
    (tmp_path / "coordinator.key").write_text(write_signing_key(coordinator))
    configuration = tmp_path / "coordinator.toml"
    configuration.write_text(
        'fleet = "home"\nkey_file = "coordinator.key"\ndatabase = "coordinator.db"\n'
        f'[broker]\nhost = "127.0.0.1"\n[[tasks]]\nbundle = "{BUNDLE}"\n'
    )
    code, said = decode(update(), "--topic", TOPIC, "--config", configuration)
    assert code == 0
    assert said["from"].endswith(", kitchen-pi (approved)")
    assert said["entries"].startswith("48 of 4810")
    assert said["verified"].startswith("yes")
    payload, down = encode_payload(Receipt(bytes(16), "accepted", "", "", 1, 1)), topics.down("home", "0", "kitchen-pi")
    signed = sign_envelope(coordinator, down, RECEIPT, payload, sequence=1)
    code, said = decode(signed, "--topic", down, "--config", configuration)
    assert said["from"].endswith(", the coordinator")
    assert (code, said["verified"]) == (0, f"yes, for topic {down}")
    forged = sign_envelope(SigningKey.generate(), down, RECEIPT, payload, sequence=1)
    assert decode(forged, "--topic", down, "--config", configuration)[1]["verified"].startswith("not checked")


def test_a_task_that_was_published_by_command_is_known_from_the_database(decode, tmp_path):
    engine = open_database(tmp_path / "coordinator.db")
    TaskRegistry(engine).publish(load_bundle(BUNDLE))
    engine.dispose()
    (tmp_path / "coordinator.key").touch(mode=0o600)
    (tmp_path / "coordinator.key").write_text(write_signing_key(SigningKey.generate()))
    configuration = tmp_path / "coordinator.toml"
    configuration.write_text(
        'fleet = "home"\nkey_file = "coordinator.key"\ndatabase = "coordinator.db"\n[broker]\nhost = "127.0.0.1"\n'
    )
    code, said = decode(update(), "--config", configuration)
    assert code == 0
    assert said["entries"].startswith("48 of 4810")


def test_missing_file_of_the_configuration_is_named(decode, tmp_path):
    configuration = tmp_path / "coordinator.toml"
    configuration.write_text(
        'fleet = "home"\nkey_file = "none.key"\ndatabase = "coordinator.db"\n'
        f'[broker]\nhost = "127.0.0.1"\n[[tasks]]\nbundle = "{BUNDLE}"\n'
    )
    code, said = decode(update(), "--config", configuration)
    assert code == 2
    assert "none.key" in said["error"]


def test_enrolment_is_verified_with_the_key_that_it_names(decode):
    payload = encode_payload(Enrolment(bytes(KEY.verify_key), "pi-4", "0.1", ["digits"]))
    data = sign_envelope(KEY, TOPIC, ENROLMENT, payload, sequence=1)
    assert decode(data, "--topic", TOPIC)[1]["verified"].startswith("yes")


def test_presence_shows_boot_and_message_rather_than_one_large_number(decode):
    state = topics.state("home", "0", "kitchen-pi")
    payload = encode_payload(Presence(PresenceState.ONLINE, 3))
    _, said = decode(sign_envelope(KEY, state, PRESENCE, payload, sequence=3 << BOOT_SHIFT | 9))
    assert (said["state"], said["boot"], said["sequence"]) == ("online", "3", "12884901897: message 9 of boot 3")


def test_text_from_strangers_cannot_drive_the_terminal(decode):
    payload = encode_payload(Receipt(bytes(16), "rejected", "\x1b[2J", "one\ntwo", 0, 1))
    _, said = decode(sign_envelope(KEY, TOPIC, RECEIPT, payload, sequence=1))
    assert (said["reason"], said["detail"]) == ("\\x1b[2J", "one\\ntwo")


def test_payload_that_would_be_refused_says_why(decode):
    payload = encode_payload(Update(16, 40, 0.75, b"\x61\x02"))
    data = sign_envelope(KEY, TOPIC, UPDATE, payload, sequence=1, task="digits")
    code, said = decode(data, "--bundle", BUNDLE)
    assert code == 1
    assert said["payload"].startswith("refused, malformed: ")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b" \n", "message: it is empty; capture one whole message: mosquitto_sub -C 1 -F %x -t TOPIC"),
        (b"hello", "message: no message of edgeflock's protocol: message is not a tagged COSE_Sign1"),
        (b"\xd2\x84", "message: no message of edgeflock's protocol: "),
        (bytes(100), "message: no message of edgeflock's protocol: "),
        (b"d2845", "message: 5 hex digits are an odd number, it is cut off; capture one whole message"),
        (update()[:-9], "message: no message of edgeflock's protocol: "),
        (update()[:-9].hex().encode(), "message: no message of edgeflock's protocol: "),
        (bytes(5_000_000), "exceeds the limit of 4194304"),
    ],
    ids=["empty", "text", "two bytes", "zeroes", "half a digit pair", "cut off", "cut off in hex", "too large"],
)
def test_what_is_no_message_ends_in_one_line_that_names_file_and_remedy(decode, data, words):
    code, said = decode(data)
    assert code == 2
    assert said["error"].startswith("edgeflock: ")
    assert words in said["error"]
    assert said["error"].count("\n") == 1


def damaged() -> Iterator[bytes]:
    """Messages of every kind with a byte of their payload changed, or their last ones missing, signed as they are."""
    for vector in json.loads((ROOT / "tests/vectors/messages.json").read_text()):
        given = vector["input"]
        signer = SigningKey(bytes.fromhex(given["signing_seed"]))
        whole = bytes.fromhex(given["payload_hex"])
        for payload in (whole[: len(whole) // 2], bytes([whole[0] ^ 0x1F]) + whole[1:], b"", whole + b"\0"):
            kind = KINDS[given["kind"]]
            header = {name: given[name] for name in ("sequence", "task", "base_version")}
            yield sign_envelope(signer, given["topic"], kind, payload, **header)


def test_a_damaged_payload_of_any_kind_is_shown_as_refused_with_its_reason(decode):
    for data in damaged():
        code, said = decode(data, "--bundle", BUNDLE)
        assert code == 1
        assert said["payload"].startswith("refused, ")


def test_every_vector_can_be_shown(decode):
    for vector in json.loads((ROOT / "tests/vectors/messages.json").read_text()):
        public = write_verify_key(SigningKey(bytes.fromhex(vector["input"]["signing_seed"])).verify_key)
        code, said = decode(bytes.fromhex(vector["hex"]), "--key", public, "--topic", vector["input"]["topic"])
        assert code == 0
        assert said["verified"].startswith("yes")


def test_encrypted_update_is_shown_as_such_and_opened_with_the_coordinator_key(decode, tmp_path):
    coordinator, other = SigningKey(bytes([7]) * 32), SigningKey(bytes([8]) * 32)
    payload = encode_payload(Update(16, 40, 0.75, bytes.fromhex("69012aa0803f")))
    signed = sign_envelope(
        KEY,
        TOPIC,
        ENCRYPTED_UPDATE,
        encrypt_payload(KEY, coordinator.verify_key, 5, payload),
        sequence=5,
        task="digits",
    )
    code, said = decode(signed, "--topic", TOPIC, "--key", PUBLIC)
    assert code == 0
    assert said["message"].startswith("encrypted update, ")
    assert said["encrypted"].startswith(f"{len(payload) + 48} bytes, ")
    assert "--coordinator-key-file" in said["encrypted"]
    assert "samples" not in said
    for key, readable in ((coordinator, True), (other, False)):
        file = tmp_path / "coordinator.key"
        file.touch(mode=0o600)
        file.write_text(write_signing_key(key))
        code, said = decode(signed, "--coordinator-key-file", file)
        assert code == (0 if readable else 1)
        assert (said.get("samples") == "16") == readable
        assert ("wrong_recipient" in said.get("payload", "")) != readable
