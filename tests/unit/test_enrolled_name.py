"""A key that was accepted under one name is not tried under another."""

import pytest

from edge_agent.shell.connection.enrolled_name import EnrolledName
from fleet_protocol.errors import ConfigurationError

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))


def test_name_may_change_until_it_was_accepted_and_then_only_with_the_key(tmp_path):
    EnrolledName(tmp_path, "kitchn", KEY).check()
    accepted = EnrolledName(tmp_path, "kitchen", KEY)
    accepted.check()
    accepted.note()
    EnrolledName(tmp_path, "kitchen", KEY).check()
    with pytest.raises(ConfigurationError, match=r'device = "attic".*write device = "kitchen".*edge-agent keygen'):
        EnrolledName(tmp_path, "attic", KEY).check()
    other = EnrolledName(tmp_path, "attic", OTHER_KEY)
    other.check()
    other.note()
    EnrolledName(tmp_path, "kitchen", KEY).check()


@pytest.mark.parametrize("content", ["", "kitchen", "\n\n", "kitchen " + "0" * 64])
def test_damaged_note_is_no_note(tmp_path, content):
    (tmp_path / "enrolled-as").write_text(content)
    EnrolledName(tmp_path, "attic", KEY).check()


def test_note_that_cannot_be_read_is_no_note(tmp_path):
    (tmp_path / "enrolled-as").mkdir()
    EnrolledName(tmp_path, "attic", KEY).check()
