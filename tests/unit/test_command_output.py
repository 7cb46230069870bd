"""Lists as people read them: aligned under a header, no wider than the terminal."""

from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.commands.devices import LISTED
from broker_coordinator.commands.output import table, write_fields, write_rows
from fleet_host.command_line import write_error
from fleet_protocol.errors import ConfigurationError

DEVICE = {
    "name": "kitchen-pi",
    "state": "pending",
    "presence": None,
    "key_id": "0f" * 8,
    "profile": "raspberry-pi-zero-2w",
    "software": "edgeflock 0.1.0",
    "public_key": "0f" * 32,
    "note": "",
}


def test_list_has_a_header_and_a_pending_device_no_presence():
    header, line = table([DEVICE], LISTED, None)
    assert header == "NAME        STATE    PRESENCE  KEY ID            PROFILE               SOFTWARE         NOTE"
    assert line == "kitchen-pi  pending  -         0f0f0f0f0f0f0f0f  raspberry-pi-zero-2w  edgeflock 0.1.0  -"
    assert len(header) <= 100


def test_hash_is_cut_to_what_tells_it_apart():
    assert table([{"bundle": "ab" * 32}], ["bundle"], None)[1] == "abababababab…"


@given(
    st.lists(st.fixed_dictionaries({"name": st.text("ab", max_size=60), "profile": st.text("cd", max_size=60)})),
    st.integers(20, 200),
)
def test_no_line_is_wider_than_the_terminal_and_columns_stay_aligned(rows, width):
    lines = table(rows, ["name", "profile"], width)
    assert len(lines) == len(rows) + 1
    assert all(len(line) <= width for line in lines)
    starts = lines[0].index("PROFILE")
    assert all(line[starts - 2 : starts].strip() == "" for line in lines)


def test_text_of_a_stranger_can_not_act_on_a_terminal(capsys):
    """Escape sequences of seven and of eight bits, and changes of the writing direction."""
    hostile = "pi\x1b[2J\x9b2J\u202etxt"
    write_rows([{"name": hostile}], ["name"], as_json=False, when_empty="")
    write_fields({"name": hostile}, as_json=False)
    write_error("broker-coordinator", ConfigurationError(f"first\n{hostile}"))
    out, err = capsys.readouterr()
    assert out == "NAME\npi?[2J?2J?txt\nname         pi?[2J?2J?txt\n"
    assert err == "broker-coordinator: first\npi?[2J?2J?txt\n"


def test_values_of_fields_begin_in_one_column_however_long_a_name_is(capsys):
    write_fields({"task": "digits", "accuracy_on_synthetic": 0.5, "versions_of_the_whole_fleet": []}, as_json=False)
    task, accuracy, _ = capsys.readouterr().out.splitlines()
    assert task.index("digits") == accuracy.index("0.5")
