"""A device in cohorts with a key holder: which it joins, under whose key it encrypts, and what it lacks for that."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from edge_agent.training.compression import remember
from edge_agent.training.masked_update import checked_cohort, encryption_key, masked
from edge_agent.worker.contract import JoinedCohort, files_for
from fleet_host.seal import encryptions_of_zero
from fleet_protocol.bundle_files import KEY_HOLDER_FILE, blob_hash
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import encode_payload
from secure_aggregation.ciphertexts import unpack_ciphertext
from secure_aggregation.encryption_key import write_encryption_key
from secure_aggregation.signatures import signed
from tests.support.masked_cohort import key_of, manifest_of
from tests.support.masked_task import MaskHelperOnDisk, masked_bundle

PARAMETERS = 36


@pytest.fixture(scope="module")
def helpers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("helpers")
    return [MaskHelperOnDisk(f"mask-{number}", folder, holds_key=True) for number in range(2)]


@pytest.fixture(scope="module")
def bundle(helpers, tmp_path_factory):
    return masked_bundle(tmp_path_factory.mktemp("bundle"), helpers, 3, colluding=1, key_holder="mask-1")


def joined(task, **fields):
    keys = tuple(bytes.fromhex(key) for key in task.masks.helpers.values())
    promised = {
        "task": task.task, "helpers": keys, "colluding": 1, "parameters": PARAMETERS, "entries": PARAMETERS,
        "clip": 0.5, "bits": 12, "weights": (1,), "most_devices": 3, "key_holder": 1,
        "encryption_key": bytes.fromhex(task.files[KEY_HOLDER_FILE]),
    }  # fmt: skip
    manifest = manifest_of(**(promised | fields))
    coordinator = key_of("coordinator")
    message = encode_payload(signed(coordinator, manifest))
    return JoinedCohort(message, bytes(coordinator.verify_key), "pi", 7, 3, 0, list(keys), 2, 1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"encryption_key": b"", "key_holder": 0}, "has key_holder 0, and .* promises 1"),
        ({"encryption_key": bytes(32)}, f"has encryption_key {bytes(32).hex()}"),
        ({"key_holder": 0}, "has key_holder 0"),
    ],
)
def test_cohort_with_another_key_or_none_is_not_joined(bundle, fields, words):
    task = bundle.description
    assert checked_cohort(joined(task), task).manifest.encryption_key
    with pytest.raises(ProtocolError, match=words) as refusal:
        checked_cohort(joined(task, **fields), task)
    assert refusal.value.reason == Reason.OUT_OF_BOUNDS


def test_key_is_taken_from_the_bundle_and_believed_if_the_trusted_helper_has_signed_it(bundle, helpers):
    task, file = bundle.description, bundle.files[KEY_HOLDER_FILE]
    public = encryption_key(file, task)
    assert public is not None
    assert file == write_encryption_key(helpers[1].claims.key, public)
    with pytest.raises(ProtocolError, match="the file is truncated or altered"):
        encryption_key(file[:-1], task)
    strangers = write_encryption_key(helpers[0].claims.key, public)
    exchanged = msgspec.structs.replace(task, files=task.files | {KEY_HOLDER_FILE: blob_hash(strangers)})
    with pytest.raises(ProtocolError, match="not signed by the key holder that the task names"):
        encryption_key(strangers, exchanged)


def test_device_fetches_the_key_for_tasks_with_a_key_holder_alone(bundle, helpers, tmp_path):
    assert KEY_HOLDER_FILE in files_for("onnx-step", bundle.description)
    masks_alone = masked_bundle(tmp_path, helpers, colluding=1).description
    assert KEY_HOLDER_FILE not in files_for("onnx-step", masks_alone)
    assert encryption_key(b"", masks_alone) is None


def test_round_sends_a_ciphertext_keeps_its_rounding_and_never_sends_masks_alone_instead(bundle):
    task = bundle.description
    cohort = checked_cohort(joined(task), task)
    zeros = encryptions_of_zero(encryption_key(bundle.files[KEY_HOLDER_FILE], task), 1)
    delta = np.linspace(-0.3, 0.3, PARAMETERS, dtype=np.float32)
    draws = np.random.default_rng(3).bytes
    with pytest.raises(ProtocolError, match="has a key holder, and there are no encryptions for one"):
        masked(delta, remember(task, b"", (), 1), cohort, draws)
    memory = remember(task, b"", (), 1)
    cohort = replace(cohort, zeros=zeros)
    made, forgotten = masked(delta, memory, cohort, draws)
    assert not forgotten
    assert unpack_ciphertext(made.values, PARAMETERS).shape == (1, 2, 2048)
    np.testing.assert_allclose(np.frombuffer(memory.state(), np.float32), delta - made.sent.values, atol=1e-6)
