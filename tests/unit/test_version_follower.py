"""The device's view of its versions: newer manifests only, whole blobs only, and no wait without an end."""

import asyncio
import contextlib
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.shell.storage.blob_cache import BlobCache
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.shell.versions.fetcher import CHUNK_SECONDS, FETCH_ATTEMPTS, Fetcher
from edge_agent.shell.versions.version_follower import ReadyVersion, VersionFollower, VersionUnavailableError
from edge_agent.training.rebuild import RebuildError, rebuild
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE, EVALUATE_FILE, TRAIN_FILE, WEIGHTS_FILE, blob_hash
from fleet_protocol.codec import Grid, encode_difference, read_weights, write_weights
from fleet_protocol.kinds import BlobChunk, BlobRequest, Manifest, WeightsRequest
from fleet_protocol.limits import MAX_CHUNK_BYTES
from fleet_protocol.topics import PackedWeights
from tests.support.jumping_clock import run

FOLDER = Path(__file__).parents[2] / "models" / "digits" / "bundle"
FILES = {blob_hash(path.read_bytes()): path.read_bytes() for path in FOLDER.iterdir()}
BUNDLE, WEIGHTS, TRAIN, EVALUATE = (
    blob_hash((FOLDER / name).read_bytes()) for name in (DESCRIPTION_FILE, WEIGHTS_FILE, TRAIN_FILE, EVALUATE_FILE)
)
LARGE = os.urandom(2 * MAX_CHUNK_BYTES + 1)


TASK = parse_description(FILES[BUNDLE])
FIRST = read_weights(FILES[WEIGHTS], TASK.parameters)
GRID = Grid.below(FIRST, TASK.shapes, TASK.downlink.precision_bits)


def weights_of(number: int) -> np.ndarray:
    """Versions that are apart as if trained."""
    drift = np.random.default_rng(1).normal(0, 0.01, FIRST.size).astype(np.float32)
    return GRID.rounded(FIRST + number * drift, TASK.shapes)


def file_of(number: int) -> bytes:
    return write_weights(weights_of(number), TASK.parameters)


class Device:
    """A real database, cache, fetcher and follower. Requests are answered with what `blobs` and `packed` hold."""

    def __init__(self, folder: Path) -> None:
        self.database = DeviceDatabase(folder / "agent.db")
        self.cache = BlobCache(folder / "blobs")
        self.requests: list[BlobRequest] = []
        self.packed_requests: list[PackedWeights] = []
        self.blobs = FILES | {blob_hash(LARGE): LARGE}
        self.packed: dict[PackedWeights, bytes] = {}
        self.lose_first_answer_to_each = False
        self.fetcher = Fetcher("greenhouse", self._listen, self._answer)
        self.versions = VersionFollower(self.database, self.cache, self.fetcher, "attic-pi")

    @contextlib.asynccontextmanager
    async def _listen(self, topic_filter: str):
        yield

    async def _answer(self, request: BlobRequest | WeightsRequest, task: str) -> None:
        if isinstance(request, WeightsRequest):
            wanted = PackedWeights(task, request.version, request.base)
            again = wanted in self.packed_requests
            self.packed_requests.append(wanted)
            content = self.packed.get(wanted)
        else:
            wanted = request.blob.hex()
            again = request.blob in {earlier.blob for earlier in self.requests}
            self.requests.append(request)
            content = self.blobs.get(wanted)
        if content is None:
            return
        for number in request.chunks or range(-(-len(content) // MAX_CHUNK_BYTES)):
            lost = self.lose_first_answer_to_each and not again and number == 1
            if not lost:
                data = content[number * MAX_CHUNK_BYTES : (number + 1) * MAX_CHUNK_BYTES]
                self.fetcher.receive_chunk(wanted, number, BlobChunk(len(content), data))

    def receive_version(self, number: int) -> None:
        """Its manifest, and its whole weights where somebody asks."""
        self.blobs[blob_hash(file_of(number))] = file_of(number)
        assert self.versions.receive_manifest("digits", manifest(number, blob_hash(file_of(number))))

    def offer(self, number: int, base: int | None) -> bytes:
        """A difference to ask for."""
        start = None if base is None else weights_of(base)
        packed = encode_difference(start, weights_of(number), TASK.shapes, GRID)
        self.packed[PackedWeights("digits", number, base)] = packed
        return packed

    @property
    def whole_weights_fetched(self) -> list[str]:
        return [request.blob.hex() for request in self.requests if request.blob.hex() not in {BUNDLE, TRAIN, EVALUATE}]


@pytest.fixture
def device(tmp_path):
    device = Device(tmp_path)
    yield device
    device.database.close()


def manifest(version: int, weights: str = WEIGHTS) -> Manifest:
    return Manifest(version, BUNDLE, weights)


def test_only_what_lacks_is_fetched(device):
    async def scenario():
        assert device.versions.receive_manifest("digits", manifest(0))
        ready = await device.versions.ready_version("digits")
        assert (ready.number, ready.bundle, ready.description.task) == (0, BUNDLE, "digits")
        assert ready.files[TRAIN_FILE].read_bytes() == FILES[TRAIN]
        assert ready.weights.read_bytes() == FILES[WEIGHTS]
        assert [request.blob.hex() for request in device.requests] == [BUNDLE, TRAIN, EVALUATE, WEIGHTS]

        assert device.versions.receive_manifest("digits", manifest(2, blob_hash(LARGE)))
        assert (await device.versions.ready_version("digits")).number == 2
        assert [request.blob.hex() for request in device.requests[4:]] == [blob_hash(LARGE)]

    run(scenario())


@pytest.mark.parametrize("version", [0, 4, 5])
def test_repeated_or_older_manifest_moves_nobody_back(device, version):
    device.versions.receive_manifest("digits", manifest(5))
    assert not device.versions.receive_manifest("digits", manifest(version))
    assert not device.versions.receive_manifest("digits", manifest(version, "00" * 32))
    assert device.database.known_version("digits").version == 5
    assert device.database.known_version("digits").weights == WEIGHTS


def test_lost_chunk_is_asked_for_alone(device):
    async def scenario():
        device.lose_first_answer_to_each = True
        device.versions.receive_manifest("digits", manifest(1, blob_hash(LARGE)))
        assert (await device.versions.ready_version("digits")).weights.read_bytes() == LARGE
        assert [request.chunks for request in device.requests[-2:]] == [[], [1]]

    run(scenario())


def test_silence_ends_in_a_refusal_that_names_the_blob(device):
    async def scenario():
        device.blobs = {}
        device.versions.receive_manifest("digits", manifest(1))
        with pytest.raises(VersionUnavailableError, match=BUNDLE[:16]):
            await device.versions.ready_version("digits")
        assert len(device.requests) == FETCH_ATTEMPTS
        assert not device.packed_requests
        assert asyncio.get_running_loop().time() == pytest.approx(FETCH_ATTEMPTS * CHUNK_SECONDS)

    run(scenario())


@pytest.mark.parametrize("content", [LARGE, b"", FILES[BUNDLE][:-1]], ids=["another blob", "nothing", "truncated"])
@pytest.mark.parametrize(
    "blob", [BUNDLE, TRAIN, EVALUATE, WEIGHTS], ids=["description", "train", "evaluate", "weights"]
)
def test_blob_of_the_wrong_hash_is_never_trained_on(device, blob, content):
    async def scenario():
        device.blobs = FILES | {blob: content}
        device.versions.receive_manifest("digits", manifest(0))
        with pytest.raises(VersionUnavailableError, match=r"SHA-256|did not come"):
            await device.versions.ready_version("digits")
        assert not device.cache.has(blob)
        device.blobs = FILES
        assert (await device.versions.ready_version("digits")).number == 0

    run(scenario())


@pytest.mark.parametrize(
    "blob", [BUNDLE, TRAIN, EVALUATE, WEIGHTS], ids=["description", "train", "evaluate", "weights"]
)
def test_file_that_the_card_has_damaged_is_fetched_again_within_two_rounds(device, blob):
    async def scenario():
        device.versions.receive_manifest("digits", manifest(1))
        for file in (BUNDLE, TRAIN, EVALUATE, WEIGHTS):
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
        device.versions.receive_manifest("gestures", manifest(1))
        with pytest.raises(VersionUnavailableError, match="the manifest of gestures names a bundle of digits"):
            await device.versions.ready_version("gestures")

    run(scenario())


def test_bundle_whose_versions_nothing_here_can_contribute_to_is_refused(device):
    async def scenario():
        other = msgspec.structs.replace(TASK, versions_from="sung update")
        text = msgspec.json.encode(other)
        device.blobs[blob_hash(text)] = text
        device.versions.receive_manifest("digits", Manifest(1, blob_hash(text), WEIGHTS))
        with pytest.raises(VersionUnavailableError, match="'sung update', which nothing here produces"):
            await device.versions.ready_version("digits")
        assert [request.blob.hex() for request in device.requests] == [blob_hash(text)], "nothing else is fetched"

    run(scenario())


def test_weights_of_old_versions_are_forgotten_and_what_the_newest_needs_is_kept(device):
    async def scenario():
        newest = blob_hash(b"weights of version 2")
        device.blobs[newest] = b"weights of version 2"
        for version, weights in enumerate([blob_hash(LARGE), newest], start=1):
            device.versions.receive_manifest("digits", manifest(version, weights))
            device.versions.hold(await device.versions.ready_version("digits"))
        device.versions.forget_unused(["digits"])
        assert all(device.cache.has(blob) for blob in (BUNDLE, TRAIN, EVALUATE, newest))
        assert not device.cache.has(blob_hash(LARGE))

    run(scenario())


async def train(device: Device) -> ReadyVersion:
    """As a round does: fetch, unpack where it came packed, hold."""
    ready = await device.versions.ready_version("digits")
    if ready.packed is not None:
        rebuild(ready.packed, ready.weights, ready.description.parameters)
    device.versions.hold(ready)
    return ready


def test_device_follows_by_differences_from_version_zero_on(device):
    async def scenario():
        for number, base in ((0, None), (1, 0), (2, 1), (7, 2)):
            device.receive_version(number)
            device.offer(number, base)
            ready = await train(device)
            device.versions.forget_unused(["digits"])
            assert ready.weights.read_bytes() == file_of(number)
        assert [(asked.base, asked.version) for asked in device.packed_requests] == [
            (None, 0),
            (0, 1),
            (1, 2),
            (2, 7),
        ]
        assert device.whole_weights_fetched == []
        assert {path.name for path in device.cache.path(WEIGHTS).parent.iterdir()} == {
            BUNDLE,
            TRAIN,
            EVALUATE,
            blob_hash(file_of(7)),
        }

    run(scenario())


def test_newcomer_gets_the_newest_version_packed_from_nothing(device):
    async def scenario():
        device.receive_version(5)
        assert len(device.offer(5, None)) < len(file_of(5)) / 3
        assert (await train(device)).weights.read_bytes() == file_of(5)
        assert device.whole_weights_fetched == []

    run(scenario())


def test_base_stays_while_newer_versions_are_announced_and_after_a_restart(device, tmp_path):
    async def scenario():
        device.receive_version(1)
        device.offer(1, None)
        await train(device)
        device.receive_version(2)
        device.receive_version(3)
        device.versions.forget_unused(["digits"])
        again = VersionFollower(device.database, BlobCache(tmp_path / "blobs"), device.fetcher, "attic-pi")
        device.offer(3, 1)
        ready = await again.ready_version("digits")
        rebuild(ready.packed, ready.weights, TASK.parameters)
        assert ready.weights.read_bytes() == file_of(3)

    run(scenario())


def test_round_that_is_put_off_and_tried_again_does_not_fetch_its_difference_again(device):
    async def scenario():
        device.receive_version(1)
        device.offer(1, None)
        await train(device)
        device.receive_version(2)
        device.offer(2, 1)
        tried = [await device.versions.ready_version("digits") for _ in range(3)]
        assert tried[0] == tried[1] == tried[2]
        assert device.packed_requests == [PackedWeights("digits", 1, None), PackedWeights("digits", 2, 1)]
        rebuild(tried[2].packed, tried[2].weights, TASK.parameters)
        assert tried[2].weights.read_bytes() == file_of(2)

    run(scenario())


@pytest.mark.parametrize("packed", [True, False])
def test_version_in_use_keeps_its_files_while_newer_ones_come(device, packed):
    """As at a helper, whose process starts with one version while the next ones are fetched."""

    async def scenario():
        device.receive_version(1)
        device.offer(1, None)
        await train(device)
        device.receive_version(2)
        if packed:
            device.offer(2, 1)
        else:
            device.blobs[blob_hash(file_of(2))] = file_of(2)
        starting = await device.versions.ready_version("digits")
        unfinished = starting.weights.with_suffix(".part")
        if packed:
            unfinished.write_bytes(b"the first half")
        device.receive_version(3)
        device.offer(3, 1)
        await train(device)
        device.versions.forget_unused(["digits"], [starting])
        assert all(path.exists() for path in starting.files.values())
        if packed:
            assert unfinished.exists()
            rebuild(starting.packed, starting.weights, TASK.parameters)
        assert starting.weights.read_bytes() == file_of(2)
        device.versions.forget_unused(["digits"])
        assert not starting.weights.exists()

    run(scenario())


@pytest.mark.parametrize("damage", ["difference", "base", "another version", "not a difference"])
def test_difference_that_does_not_lead_there_is_refused_and_the_whole_weights_are_fetched(device, damage):
    async def scenario():
        device.receive_version(1)
        device.offer(1, None)
        base = await train(device)
        device.receive_version(2)
        wanted, packed = PackedWeights("digits", 2, 1), device.offer(2, 1)
        if damage == "base":
            base.weights.write_bytes(base.weights.read_bytes()[:-1] + b"\x00")
        device.packed[wanted] = {
            "difference": packed[:-1] + bytes([packed[-1] ^ 1]),
            "base": packed,
            "another version": encode_difference(weights_of(1), weights_of(3), TASK.shapes, GRID),
            "not a difference": b"\x00",
        }[damage]
        ready = await device.versions.ready_version("digits")
        with pytest.raises(RebuildError) as caught:
            rebuild(ready.packed, ready.weights, TASK.parameters)
        assert not ready.weights.exists()
        device.versions.refuse_packed(ready, str(caught.value))
        ready = await train(device)
        assert (ready.packed, ready.weights.read_bytes()) == (None, file_of(2))
        assert device.whole_weights_fetched == [blob_hash(file_of(2))]

    run(scenario())


def test_coordinator_that_knows_no_differences_costs_a_wait_and_not_the_version(device):
    async def scenario():
        device.receive_version(4)
        assert (await train(device)).weights.read_bytes() == file_of(4)
        assert device.packed_requests == [PackedWeights("digits", 4, None)] * FETCH_ATTEMPTS

    run(scenario())


def test_large_difference_comes_in_chunks_and_a_lost_one_is_asked_for_alone(device):
    async def scenario():
        device.receive_version(4)
        device.packed[PackedWeights("digits", 4, None)] = LARGE
        device.lose_first_answer_to_each = True
        ready = await device.versions.ready_version("digits")
        assert ready.packed.difference == LARGE
        assert len(device.packed_requests) == 2

    run(scenario())
