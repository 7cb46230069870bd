"""A mask helper's claims on the disk: they outlive the process, belong to one key, and are never half there."""

import sqlite3
import sys
from contextlib import closing

import pytest

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import SigningKey
from secure_aggregation.encryption_key import read_encryption_key
from secure_aggregation.helper.claims import EarlierClaim
from session_relay.helper.cli import main
from session_relay.helper.mask_claims import FILE_NAME, MaskClaims, read_mask_key
from session_relay.helper.mask_serving import key_holder_of
from tests.support.agent import AgentProcess
from tests.support.broker import Broker
from tests.support.masked_fleet import MaskHelperProcess

COHORT, OTHER, SET, SECOND = (bytes([number]) * 32 for number in range(4))
UPDATES = [(bytes([9]) * 32, 7), (bytes([8]) * 32, 2**62)]


def test_claim_is_for_life_and_the_same_set_may_be_claimed_again(tmp_path):
    claims = MaskClaims(tmp_path / "claims.db")
    key = bytes(claims.key)
    assert claims.claim(COHORT, SET, UPDATES) is None
    claims.close()
    claims = MaskClaims(tmp_path / "claims.db")
    assert bytes(claims.key) == key
    assert claims.claim(COHORT, SET, UPDATES) is None
    assert claims.claim(COHORT, SECOND, []) == EarlierClaim(None, SET)
    assert claims.claim(OTHER, SECOND, [(bytes(32), 1), UPDATES[1]]) == EarlierClaim(UPDATES[1], SET)
    assert claims.claim(OTHER, SECOND, [(bytes(32), 1)]) is None, "a refused claim has left nothing"
    assert read_mask_key(tmp_path / "claims.db") == claims.key.verify_key


def test_helper_without_its_claims_has_another_key(tmp_path):
    first = MaskClaims(tmp_path / "claims.db")
    before = bytes(first.key)
    first.close()
    for file in tmp_path.glob("claims.db*"):
        file.unlink()
    assert bytes(MaskClaims(tmp_path / "claims.db").key) != before


@pytest.mark.parametrize(
    "change", ["UPDATE cohorts SET set_hash = x'00'", "DELETE FROM key", "UPDATE updates SET sequence = 8"]
)
def test_damaged_claims_are_not_used_and_the_remedy_is_said(tmp_path, change):
    claims = MaskClaims(tmp_path / "claims.db")
    claims.claim(COHORT, SET, UPDATES[:1])
    claims.close()
    with closing(sqlite3.connect(tmp_path / "claims.db")) as connection, connection:
        connection.execute(change)
    with pytest.raises(ConfigurationError, match=r"move claims.db away .* Never put an older copy"):
        MaskClaims(tmp_path / "claims.db")


def test_key_is_asked_for_before_the_first_start(tmp_path):
    with pytest.raises(ConfigurationError, match="start it once"):
        read_mask_key(tmp_path / "claims.db")


def test_owner_of_a_helper_is_shown_its_mask_key(tmp_path, capsys):
    broker = Broker(tmp_path / "broker")  # that does not run
    helper = MaskHelperProcess(tmp_path / "mask", "mask", broker, SigningKey.generate().verify_key)
    helper.knows([AgentProcess(tmp_path / name, name, broker, SigningKey.generate().verify_key) for name in "ab"])
    main(["mask-key", "--config", str(helper.configuration)])
    assert capsys.readouterr().out == f"{helper.mask_key}\n"


def test_encryption_key_is_made_once_and_its_file_is_what_the_owner_is_given(tmp_path, capsys):
    broker = Broker(tmp_path / "broker")  # that does not run
    helper = MaskHelperProcess(tmp_path / "mask", "mask", broker, SigningKey.generate().verify_key)
    helper.knows([AgentProcess(tmp_path / name, name, broker, SigningKey.generate().verify_key) for name in "ab"])
    asked = ["encryption-key", str(tmp_path / "key_holder.key"), "--config", str(helper.configuration)]
    with pytest.raises(SystemExit):
        main(asked)
    assert "no encryption key yet; write key_holder = true into [masks] of helper.toml" in capsys.readouterr().err
    claims = MaskClaims(tmp_path / "mask" / "state" / FILE_NAME)
    made = claims.encryption_key()
    assert claims.encryption_key() == made
    claims.close()
    assert MaskClaims(tmp_path / "mask" / "state" / FILE_NAME).encryption_key() == made
    main(asked)
    assert (tmp_path / "key_holder.key").read_bytes() == made[1]
    assert read_encryption_key(made[1], claims.key.verify_key)
    asked[1] = str(tmp_path / "nowhere" / "key_holder.key")
    with pytest.raises(SystemExit):
        main(asked)
    assert "name a file in a folder that is there" in capsys.readouterr().err


def test_damaged_encryption_key_is_not_used(tmp_path):
    claims = MaskClaims(tmp_path / "claims.db")
    claims.encryption_key()
    claims.close()
    with closing(sqlite3.connect(tmp_path / "claims.db")) as connection, connection:
        connection.execute("UPDATE encryption_key SET secret = zeroblob(16384)")
    with pytest.raises(ConfigurationError, match=r"move claims.db away"):
        MaskClaims(tmp_path / "claims.db").encryption_key()


def test_key_holder_without_tenseal_is_told_what_to_install_and_has_made_no_half_a_key(tmp_path, monkeypatch):
    claims = MaskClaims(tmp_path / "claims.db")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "tenseal", None)
        with pytest.raises(ConfigurationError, match=r"pip install 'edgeflock\[homomorphic\]'"):
            key_holder_of(claims)
    assert len(key_holder_of(claims).key) == 32


def test_key_holder_whose_tenseal_is_gone_says_so_at_its_start_and_not_at_its_first_answer(tmp_path, monkeypatch):
    claims = MaskClaims(tmp_path / "claims.db")
    before = key_holder_of(claims).key
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "tenseal", None)
        with pytest.raises(ConfigurationError, match=r"pip install 'edgeflock\[homomorphic\]'"):
            key_holder_of(claims)
    assert key_holder_of(claims).key == before


def test_file_is_its_owners_alone(tmp_path):
    MaskClaims(tmp_path / "claims.db")
    assert (tmp_path / "claims.db").stat().st_mode & 0o077 == 0
