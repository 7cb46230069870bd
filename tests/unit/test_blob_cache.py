"""A file in the cache has the hash that is its name, or is deleted."""

import pytest

from edge_agent.shell.storage.blob_cache import BlobCache
from fleet_protocol.bundle_files import blob_hash
from fleet_protocol.errors import ProtocolError, Reason

DATA = b"weights of version 7"
NAME = blob_hash(DATA)


@pytest.fixture
def cache(tmp_path):
    return BlobCache(tmp_path / "blobs")


def test_blob_survives_a_restart(cache, tmp_path):
    cache.write(NAME, DATA)
    again = BlobCache(tmp_path / "blobs")
    assert again.has(NAME)
    assert again.read(NAME) == DATA


def test_wrong_content_is_never_stored(cache, tmp_path):
    with pytest.raises(ProtocolError) as caught:
        cache.write(NAME, DATA + b"!")
    assert caught.value.reason is Reason.WRONG_HASH
    assert list((tmp_path / "blobs").iterdir()) == []


@pytest.mark.parametrize("check", [BlobCache.read, BlobCache.verify])
@pytest.mark.parametrize("damage", [b"", DATA[:-1], b"W" + DATA[1:]], ids=["emptied", "truncated", "altered"])
def test_blob_that_the_card_has_damaged_is_refused_once_and_can_be_fetched_again(cache, damage, check):
    cache.write(NAME, DATA)
    cache.path(NAME).write_bytes(damage)
    with pytest.raises(ProtocolError) as caught:
        check(cache, NAME)
    assert caught.value.reason is Reason.WRONG_HASH
    assert not cache.has(NAME)
    cache.write(NAME, DATA)
    check(cache, NAME)
    assert cache.read(NAME) == DATA


def test_leftover_of_an_interrupted_write_is_no_blob_and_is_cleared(cache, tmp_path):
    cache.write(NAME, DATA)
    other = blob_hash(b"other")
    (tmp_path / "blobs" / f"{other}.part").write_bytes(b"oth")
    assert not cache.has(other)
    cache.keep_only([NAME])
    assert [path.name for path in (tmp_path / "blobs").iterdir()] == [NAME]


def test_only_what_is_wanted_is_kept(cache):
    cache.write(NAME, DATA)
    cache.write(blob_hash(b"old"), b"old")
    cache.keep_only([NAME, blob_hash(b"not here yet")])
    assert cache.has(NAME)
    assert not cache.has(blob_hash(b"old"))


def test_what_cannot_be_deleted_stays_is_said_and_keeps_nothing_else(cache, caplog):
    cache.write(NAME, DATA)
    cache.path("lost+found").mkdir()
    cache.write(blob_hash(b"old"), b"old")
    cache.keep_only([])
    assert [path.name for path in cache.path("").iterdir()] == ["lost+found"]
    assert caplog.text.count("event=blob_not_deleted file=lost+found") == 1
