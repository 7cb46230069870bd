"""The device's view of its versions: newer manifests only, whole blobs only, and no wait without an end."""

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from edge_agent.blob_cache import BlobCache
from edge_agent.device_database import DeviceDatabase
from edge_agent.version_follower import CHUNK_SECONDS, FETCH_ATTEMPTS, VersionFollower, VersionUnavailableError
from fleet_protocol.bundle import DESCRIPTION_FILE, TRAIN_FILE, WEIGHTS_FILE, blob_hash
from fleet_protocol.limits import MAX_CHUNK_BYTES
from fleet_protocol.messages import BlobChunk, BlobRequest, Manifest
from tests.unit.jumping_clock import run

FOLDER = Path(__file__).parents[2] / "models" / "digits" / "bundle"
FILES = {blob_hash(path.read_bytes()): path.read_bytes() for path in FOLDER.iterdir()}
BUNDLE, WEIGHTS, TRAIN = (
    blob_hash((FOLDER / name).read_bytes()) for name in (DESCRIPTION_FILE, WEIGHTS_FILE, TRAIN_FILE)
)
LARGE = os.urandom(2 * MAX_CHUNK_BYTES + 1)


class Device:
    """A real database, cache and follower. Requests are answered as `answers` says: none, or chunks of a blob."""

    def __init__(self, folder: Path) -> None:
        self.database = DeviceDatabase(folder / "agent.db")
        self.cache = BlobCache(folder / "blobs")
        self.requests: list[BlobRequest] = []
        self.blobs = FILES | {blob_hash(LARGE): LARGE}
        self.lose_first_answer_to_each = False
        self.versions = VersionFollower(
            "greenhouse", self.database, self.cache, listening_to=self._listen, request=self._answer
        )

    @contextlib.asynccontextmanager
    async def _listen(self, topic_filter: str):
        yield

    async def _answer(self, request: BlobRequest) -> None:
        again = request.blob in {earlier.blob for earlier in self.requests}
        self.requests.append(request)
        blob = self.blobs.get(request.blob.hex())
        if blob is None:
            return
        for number in request.chunks or range(-(-len(blob) // MAX_CHUNK_BYTES)):
            lost = self.lose_first_answer_to_each and not again and number == 1
            if not lost:
                data = blob[number * MAX_CHUNK_BYTES : (number + 1) * MAX_CHUNK_BYTES]
                self.versions.hear_chunk(request.blob.hex(), number, BlobChunk(len(blob), data))


@pytest.fixture
def device(tmp_path):
    device = Device(tmp_path)
    yield device
    device.database.close()


def manifest(version: int, weights: str = WEIGHTS) -> Manifest:
    return Manifest(version, BUNDLE, weights)


def test_only_what_lacks_is_fetched(device):
    async def scenario():
        assert device.versions.hear_manifest("digits", manifest(1))
        ready = await device.versions.ready_version("digits")
        assert (ready.number, ready.bundle, ready.description.task) == (1, BUNDLE, "digits")
        assert ready.files[TRAIN_FILE].read_bytes() == FILES[TRAIN]
        assert ready.weights.read_bytes() == FILES[WEIGHTS]
        assert [request.blob.hex() for request in device.requests] == [BUNDLE, TRAIN, WEIGHTS]

        assert device.versions.hear_manifest("digits", manifest(2, blob_hash(LARGE)))
        assert (await device.versions.ready_version("digits")).number == 2
        assert [request.blob.hex() for request in device.requests[3:]] == [blob_hash(LARGE)]

    run(scenario())


@pytest.mark.parametrize("version", [0, 4, 5])
def test_repeated_or_older_manifest_moves_nobody_back(device, version):
    device.versions.hear_manifest("digits", manifest(5))
    assert not device.versions.hear_manifest("digits", manifest(version))
    assert not device.versions.hear_manifest("digits", manifest(version, "00" * 32))
    assert device.database.known_version("digits").version == 5
    assert device.database.known_version("digits").weights == WEIGHTS


def test_lost_chunk_is_asked_for_alone(device):
    async def scenario():
        device.lose_first_answer_to_each = True
        device.versions.hear_manifest("digits", manifest(1, blob_hash(LARGE)))
        assert (await device.versions.ready_version("digits")).weights.read_bytes() == LARGE
        assert [request.chunks for request in device.requests[-2:]] == [[], [1]]

    run(scenario())


def test_silence_ends_in_a_refusal_that_names_the_blob(device):
    async def scenario():
        device.blobs = {}
        device.versions.hear_manifest("digits", manifest(1))
        with pytest.raises(VersionUnavailableError, match=BUNDLE[:16]):
            await device.versions.ready_version("digits")
        assert len(device.requests) == FETCH_ATTEMPTS
        assert asyncio.get_running_loop().time() == pytest.approx(FETCH_ATTEMPTS * CHUNK_SECONDS)

    run(scenario())


@pytest.mark.parametrize("content", [LARGE, b"", FILES[BUNDLE][:-1]], ids=["another blob", "nothing", "truncated"])
@pytest.mark.parametrize("blob", [BUNDLE, TRAIN, WEIGHTS], ids=["description", "graph", "weights"])
def test_blob_of_the_wrong_hash_is_never_trained_on(device, blob, content):
    async def scenario():
        device.blobs = FILES | {blob: content}
        device.versions.hear_manifest("digits", manifest(1))
        with pytest.raises(VersionUnavailableError, match=r"SHA-256|did not come"):
            await device.versions.ready_version("digits")
        assert not device.cache.has(blob)
        device.blobs = FILES
        assert (await device.versions.ready_version("digits")).number == 1

    run(scenario())


@pytest.mark.parametrize("blob", [BUNDLE, TRAIN, WEIGHTS], ids=["description", "graph", "weights"])
def test_file_that_the_card_has_damaged_is_fetched_anew_within_two_rounds(device, blob):
    async def scenario():
        device.versions.hear_manifest("digits", manifest(1))
        for file in (BUNDLE, TRAIN, WEIGHTS):
            device.cache.write(file, FILES[file])
        device.cache.path(blob).write_bytes(FILES[blob][:-1])
        assert (device.versions.description("digits") is None) == (blob == BUNDLE)
        with contextlib.suppress(VersionUnavailableError):
            await device.versions.ready_version("digits")
        ready = await device.versions.ready_version("digits")
        assert (ready.files[TRAIN_FILE].read_bytes(), ready.weights.read_bytes()) == (FILES[TRAIN], FILES[WEIGHTS])
        assert device.versions.description("digits") is not None

    run(scenario())


def test_bundle_of_another_task_is_refused(device):
    async def scenario():
        device.versions.hear_manifest("gestures", manifest(1))
        with pytest.raises(VersionUnavailableError, match="the manifest of gestures names a bundle of digits"):
            await device.versions.ready_version("gestures")

    run(scenario())


def test_weights_of_old_versions_are_forgotten_and_what_the_newest_needs_is_kept(device):
    async def scenario():
        newest = blob_hash(b"weights of version 2")
        device.blobs[newest] = b"weights of version 2"
        for version, weights in enumerate([blob_hash(LARGE), newest], start=1):
            device.versions.hear_manifest("digits", manifest(version, weights))
            await device.versions.ready_version("digits")
        device.versions.forget_unused(["digits"])
        assert all(device.cache.has(blob) for blob in (BUNDLE, TRAIN, newest))
        assert not device.cache.has(blob_hash(LARGE))

    run(scenario())
