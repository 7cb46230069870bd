"""The table `[selection]`: what a device is worth, whom a threshold takes, and which tasks can't have it."""

import math
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.selection import FEWEST_KNOWN, MOST_TIMES_USUAL, Told, Utilities
from broker_coordinator.aggregation.selection_pace import SelectionPace, turn_of, usual_seconds
from broker_coordinator.consumers.update import UpdateFacts
from broker_coordinator.serving.served_task import told_by
from edge_agent.core.selection import RoundFigures, after_round, why_not_selected
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle import parse_description
from fleet_protocol.cohort import EVERYONE, is_asked
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.kinds import Manifest, Selection, decode_payload, encode_payload
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.robust_plan import RobustPlan
from fleet_protocol.selection_plan import SelectionPlan, check_selection, expected_staleness
from tests.support.digits_rounds import TASK as DIGITS
from tests.support.hidden_devices import hiding_plan
from tests.support.split_task import TASK as SPLIT

NO_LOTTERY = SelectionPlan(share=0.25, exploration=0.0, fairness=0.0)
NAMES = [f"pi-{number}" for number in range(20)]


def task_of(plan: SelectionPlan, base=DIGITS, **changes):
    return msgspec.structs.replace(base, selection=plan, **changes)


def reason_for(task, version, device, selection, figures, *, has_trained=False) -> str | None:
    return why_not_selected(task, version, device, selection, figures, has_trained=has_trained)


def refusal(task) -> str:
    with pytest.raises(ConfigurationError, match=r"^task\.json: ") as caught:
        parse_description(msgspec.json.encode(task))
    return str(caught.value)


def known(utilities: dict[str, float], staleness: int = 0) -> Utilities:
    found = Utilities()
    for device, utility in utilities.items():
        found.note(device, Told(utility, staleness))
    return found


def asked(found: Utilities, plan: SelectionPlan, buffer_size: int, *, versions: int = 0) -> Selection | None:
    """For version 3, after those for which everybody was asked; it is not known how long they took."""
    while found.pace.asks_everyone(turn_of(len(found._told), buffer_size)):
        found.version_made(0.0, buffer_size, in_time=True)
    return found.selection(plan, DIGITS.task, 3, versions=versions, buffer_size=buffer_size)


def taken(plan: SelectionPlan, selection: Selection | None, worth: dict[str, float], version: int = 3) -> list[str]:
    """Those of devices with one sample and such a loss that train."""
    return [
        device
        for device, utility in worth.items()
        if reason_for(task_of(plan), version, device, selection, RoundFigures(1, utility, 1.0, 5, 0.0)) is None
    ]


def test_a_utility_is_oorts_by_samples_loss_and_speed():
    plan = SelectionPlan(preferred_seconds=10.0)
    assert plan.utility(20, 1.5) == 30.0
    assert plan.utility(20, -1.5) == 0.0, "the better a device fits, the less there is to learn"
    assert plan.discount(10, 1.0) == plan.discount(1, 7.0) == 1.0
    assert plan.discount(8, 5.0) == pytest.approx(1 / 16)
    assert plan.discount(8, 0.0) == 1.0, "nothing is known of how fast versions come"
    slower = SelectionPlan(preferred_seconds=10.0, speed_weight=1.0)
    assert slower.discount(8, 5.0) == pytest.approx(1 / 4)
    assert SelectionPlan().discount(10**9, 1.0) == 1.0


def test_a_utility_is_pisces_by_expected_staleness():
    plan = SelectionPlan("pisces")
    assert plan.utility(20, 1.5) == 30.0
    assert plan.discount(3, 10.0) == pytest.approx(4**-0.5)
    assert plan.discount(3, 0.0) == 1.0, "nothing is known of how fast versions come"
    assert SelectionPlan("pisces", staleness_weight=1.0).discount(3, 10.0) == pytest.approx(1 / 4)


def test_rounds_count_in_whole_versions():
    assert [expected_staleness(seconds, 10.0) for seconds in (0.0, 9.9, 10.0, 39.0)] == [0, 0, 1, 3]
    assert expected_staleness(39.0, 0.0) == 0
    assert expected_staleness(1e308, 1e-308) == 10**9


def test_power_of_choice_looks_at_losses_alone():
    plan = SelectionPlan("power_of_choice")
    assert plan.utility(2000, 1.5) == 1.5
    assert plan.discount(10**6, 1.0) == 1.0


def test_exploration_falls_from_nine_tenths_to_two():
    plan = SelectionPlan(share=0.5)
    assert plan.new_drawn(0) == pytest.approx(0.9 * 0.5)
    assert plan.new_drawn(1) == pytest.approx(0.9 * 0.98 * 0.5)
    assert plan.new_drawn(10**9) == pytest.approx(0.2 * 0.5)
    assert SelectionPlan(share=0.5, exploration=0.45).new_drawn(1000) == pytest.approx(0.1 * 0.5)
    assert asked(known(dict.fromkeys(NAMES, 1.0)), plan, 2, versions=1).drawn_below == round(
        EVERYONE * 0.9 * 0.98 * 0.5
    )


def test_those_with_the_highest_utilities_train():
    worth = {name: float(number) for number, name in enumerate(NAMES)}
    selection = asked(known(worth), NO_LOTTERY, buffer_size=2)
    assert taken(NO_LOTTERY, selection, worth) == NAMES[15:]


def test_half_as_many_again_are_asked_as_fill_a_buffer():
    worth = {name: float(number) for number, name in enumerate(NAMES)}
    selection = asked(known(worth), NO_LOTTERY, buffer_size=8)
    assert taken(NO_LOTTERY, selection, worth) == NAMES[8:]
    assert asked(known(worth), NO_LOTTERY, buffer_size=14).takes_everybody


@pytest.mark.parametrize("devices", range(FEWEST_KNOWN))
def test_a_fleet_of_few_selects_none(devices):
    selection = asked(known(dict.fromkeys(NAMES[:devices], 1.0)), NO_LOTTERY, buffer_size=1)
    assert selection is None if devices == 0 else selection.takes_everybody
    assert taken(NO_LOTTERY, selection, {"pi": 0.0}) == ["pi"]
    assert taken(NO_LOTTERY, None, {"pi": 0.0}) == ["pi"]


def test_a_device_has_one_vote_and_moves_the_threshold_past_one_other():
    worth = {name: float(number) for number, name in enumerate(NAMES)}
    honest = asked(known(worth), NO_LOTTERY, buffer_size=2)
    lied = known(worth)
    for _ in range(1000):
        lied.note(NAMES[0], Told(1e300, 0))
    assert (honest.least, asked(lied, NO_LOTTERY, buffer_size=2).least) == (15.0, 16.0)


def test_a_device_that_sends_without_end_raises_the_mean_by_little():
    flooded = known(dict.fromkeys(NAMES, 1.0))
    for _ in range(100_000):
        flooded.note(NAMES[0], Told(1.0, 0))
    selection = asked(flooded, NO_LOTTERY, buffer_size=2)
    assert selection.mean_updates == pytest.approx((19 + MOST_TIMES_USUAL) / 20)


def test_how_long_a_round_takes_is_known_from_staleness():
    plan = SelectionPlan(share=0.25, exploration=0.0, fairness=0.0, preferred_seconds=60.0)
    found = Utilities()
    for number, name in enumerate(NAMES):
        found.note(name, Told(100.0, 40 if number < 12 else 2))
    for _ in range(6):
        found.version_made(30.0, 10, in_time=True)
    selection = asked(found, plan, buffer_size=10)
    assert selection.version_seconds == 30.0
    assert selection.least == pytest.approx(100 * (60 / 1200) ** 2)


@pytest.mark.parametrize("method", ["utility", "pisces"])
def test_of_new_devices_some_are_drawn_and_others_the_next_time(method):
    task = task_of(SelectionPlan(method, share=0.5, exploration=0.5, fairness=0.0))
    selection = Selection(1e9, round(EVERYONE * 0.25), 0.0, 0.0)
    names = [f"pi-{number}" for number in range(2000)]
    drawn = [{name for name in names if reason_for(task, each, name, selection, None) is None} for each in (3, 4)]
    assert all(0.2 < len(each) / 2000 < 0.3 for each in drawn)
    assert len(drawn[0] & drawn[1]) < 0.5 * len(drawn[0])
    assert taken(task.selection, selection, dict.fromkeys(names, 1.0)) == [], "what is known is not drawn"


def test_power_of_choice_takes_candidates_with_the_highest_losses_and_new_ones():
    plan = SelectionPlan("power_of_choice", share=0.2, candidates=0.5, fairness=0.0)
    worth = {f"pi-{number}": float(number) for number in range(1000)}
    selection = asked(known(worth), plan, buffer_size=2)
    candidates = {name for name in worth if is_asked(DIGITS.task, 3, name, selection.drawn_below)}
    found = taken(plan, selection, worth)
    assert found == [name for name in worth if name in candidates][-200:]
    new = {name for name in worth if reason_for(task_of(plan), 3, name, selection, None) is None}
    assert new == candidates


def test_who_took_part_less_than_its_share_trains():
    plan = SelectionPlan(fairness=0.5)
    never_drawn = Selection(1e9, 0, 10.0, 0.0)

    def reason(updates: int, mean_before: float = 0.0) -> str | None:
        figures = RoundFigures(1, 1.0, 1.0, updates, mean_before)
        return reason_for(task_of(plan), 7, "pi", never_drawn, figures)

    assert reason(4) is None
    assert "asks for a utility of 1e+09, and this device's is 1" in reason(5)
    assert reason(4, mean_before=4.0) is not None, "what others sent before it joined does not count"
    assert reason(1, mean_before=4.0) is None


def test_who_has_trained_from_a_version_waits_for_the_next_where_others_are_asked():
    task, figures = task_of(NO_LOTTERY), RoundFigures(1, 9.0, 1.0, 5, 0.0)
    everybody_good = Selection(1.0, 0, 100.0, 0.0)
    assert reason_for(task, 7, "pi", everybody_good, figures) is None
    assert "has had its round from version 7" in reason_for(task, 7, "pi", everybody_good, figures, has_trained=True)
    assert reason_for(task, 7, "pi", None, figures, has_trained=True) is None
    assert reason_for(task, 7, "pi", Selection(0.0, EVERYONE, 100.0, 0.0), figures, has_trained=True) is None


def test_what_a_device_notes_of_its_rounds():
    selection = Selection(1.0, 0, 6.0, 0.0)
    first = after_round(None, selection, 8, 0.5, 20.0)
    assert first == RoundFigures(8, 0.5, 20.0, 1, 6.0)
    later = Selection(1.0, 0, 60.0, 0.0)
    assert after_round(first, later, 9, 0.25, 21.0) == RoundFigures(9, 0.25, 21.0, 2, 6.0)
    assert after_round(None, None, 8, 0.5, 20.0).mean_before == 0.0


def test_who_joins_while_everybody_is_asked_is_owed_nothing_for_the_time_before():
    found = known(dict.fromkeys(NAMES, 1.0))
    for name in NAMES:
        found.note(name, Told(1.0, 0), 39)
    joined = after_round(None, found.everyone(), 8, 0.5, 20.0)
    assert not joined.missing(SelectionPlan(), Selection(1e9, 0, 40.0, 0.0))
    assert joined.missing(SelectionPlan(), Selection(1e9, 0, 44.0, 0.0))


def test_samples_count_as_the_device_knows_them_too():
    """Not as its update weighs, which follows what others declare."""
    plan = msgspec.structs.replace(DIGITS.aggregation, max_samples=50)
    task = task_of(SelectionPlan(), aggregation=plan)
    assert told_by(task, UpdateFacts(8, 2.0, 1.0, declared=20), 3) == Told(40.0, 3)
    assert told_by(task, UpdateFacts(8, 2.0, 1.0), 3) == Told(16.0, 3)
    assert told_by(task, UpdateFacts(8, 2.0, 1.0, declared=4000), 3) == Told(100.0, 3)
    assert told_by(task, UpdateFacts(8, None, 1.0), 3) is None
    assert told_by(DIGITS, UpdateFacts(8, 2.0, 1.0), 3) is None


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=60), st.floats(0.01, 0.99), st.integers(1, 30))
def test_devices_that_know_what_the_coordinator_knows_fill_a_buffer(losses, share, buffer_size):
    plan = SelectionPlan(share=share, exploration=0.0, fairness=0.0)
    worth = {f"pi-{number}": loss for number, loss in enumerate(losses)}
    selection = asked(known(worth), plan, buffer_size)
    assert len(taken(plan, selection, worth)) >= min(len(losses), max(buffer_size, math.ceil(share * len(losses))))


@given(st.integers(5, 60), st.integers(1, 30), st.integers(0, 500))
def test_power_of_choice_never_asks_fewer_than_the_buffer_takes(devices, buffer_size, version):
    plan = SelectionPlan("power_of_choice", fairness=0.0)
    worth = {f"pi-{number}": 1.0 + number for number in range(devices)}
    found = known(worth)
    asked(found, plan, buffer_size)
    selection = found.selection(plan, DIGITS.task, version, versions=9, buffer_size=buffer_size)
    assert len(taken(plan, selection, worth, version)) >= min(devices, math.ceil(1.5 * buffer_size))


@pytest.mark.parametrize("seconds", [21.0, 321.0])
@pytest.mark.parametrize("method", ["utility", "pisces"])
def test_equal_devices_are_all_asked_by_their_own_rounds(method, seconds):
    preferred = {"preferred_seconds": 20.0} if method == "utility" else {}
    plan = SelectionPlan(method, share=0.4, exploration=0.0, fairness=0.0, **preferred)
    found = known(dict.fromkeys(NAMES[:10], 8.0), staleness=math.ceil(seconds / 100.0))
    for _ in range(20):
        found.version_made(100.0, 2, in_time=True)
    selection = asked(found, plan, buffer_size=2)
    assert selection.version_seconds == 100.0
    assert not selection.takes_everybody
    figures = RoundFigures(8, 1.0, seconds, 5, 0.0)
    assert all(reason_for(task_of(plan), 3, name, selection, figures) is None for name in NAMES[:10])


def paced(usual: float, seconds: float, versions: int, *, in_time: bool = True) -> SelectionPace:
    """After `versions` that took so long, in turns of three; one takes `usual` while everybody is asked."""
    pace = SelectionPace()
    while pace.asks_everyone(3):
        pace.version_made(usual, 3, in_time=True)
    for _ in range(versions):
        pace.version_made(seconds, 3, in_time=in_time)
    return pace


def test_more_are_asked_while_versions_take_longer_than_with_everybody_and_fewer_again():
    assert paced(100.0, 110.0, 30).width == 1.0
    pace = paced(100.0, 130.0, 12)
    assert pace.width > 2
    for _ in range(40):
        pace.version_made(100.0, 3, in_time=True)
    assert pace.width == 1.0
    assert paced(100.0, 300.0, 2, in_time=False).width == 1.25**2


def test_everybody_is_asked_now_and_again_to_see_how_long_versions_take():
    pace = paced(100.0, 100.0, 0)
    selected = 0
    while not pace.asks_everyone(3):
        pace.version_made(100.0, 3, in_time=True)
        selected += 1
    assert selected == 60
    for _ in range(6):
        assert pace.asks_everyone(3)
        pace.version_made(200.0, 3, in_time=True)
    assert pace.patience(1e6) == 600.0


def test_everybody_is_asked_for_one_turn_at_first_and_for_two_later():
    pace, asked = SelectionPace(), []
    for _ in range(3 * 23 + 6):
        asked.append(pace.asks_everyone(3))
        pace.version_made(100.0, 3, in_time=True)
    assert asked == 3 * [True] + 60 * [False] + 6 * [True] + 6 * [False]


def test_where_as_many_are_asked_as_there_are_it_is_measured_anew_how_long_versions_take():
    """The first turn was too short, as the fast devices are there first: nobody who is asked comes near it."""
    found = known(dict.fromkeys(NAMES, 1.0))
    plan = SelectionPlan(share=0.5)
    while found.pace.asks_everyone(turn_of(20, 2)):
        found.version_made(50.0, 2, in_time=True)
    asked = []
    for _ in range(100):
        asked.append(found.selection(plan, DIGITS.task, 3, versions=0, buffer_size=2).takes_everybody)
        found.version_made(100.0, 2, in_time=True)
    assert asked.index(True) > 10
    assert not all(asked[-50:])


def test_patience_is_three_times_the_usual_and_no_more_than_the_tasks():
    assert paced(100.0, 100.0, 1).patience(3600.0) == 300.0
    assert paced(100.0, 100.0, 1).patience(250.0) == 250.0
    assert paced(0.0, 0.0, 1).patience(3600.0) == 1.0


def test_a_night_counts_as_four_versions_of_the_day():
    assert usual_seconds([10.0, 30_000.0, 10.0]) == 20.0
    assert usual_seconds([0.0, 0.0, 60.0]) == 20.0, "updates that came together"
    assert usual_seconds([7.0]) == 7.0


@pytest.mark.parametrize("field", ["least", "mean_updates", "version_seconds"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_a_forged_manifest_with_no_number_is_refused(field, value):
    selection = Selection(1.0, 5, 2.0, 3.0)
    encoded = encode_payload(Manifest(7, "0f" * 32, "1e" * 32, selection=selection))
    assert decode_payload(encoded, Manifest).selection == selection
    forged = encode_payload(Manifest(7, "0f" * 32, "1e" * 32, selection=_with(selection, field, value)))
    with pytest.raises(ProtocolError, match=r"Manifest: "):
        decode_payload(forged, Manifest)


def _with(selection: Selection, field: str, value: float) -> list[float]:
    return [value if each == field else getattr(selection, each) for each in selection.__struct_fields__]


def test_a_manifest_of_a_task_that_takes_everybody_is_as_before():
    manifest = Manifest(7, "0f" * 32, "1e" * 32)
    assert decode_payload(encode_payload(manifest), Manifest) == manifest
    assert len(encode_payload(manifest)) == 1 + 1 + 2 * 66


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"share": 0.0}, "share"),
        ({"share": 1.5}, "share"),
        ({"fairness": 1.5}, "fairness"),
        ({"patience_seconds": 0.0}, "patience_seconds"),
        ({"method": "power_of_choice", "exploration": 0.5}, "exploration has no effect with selection.method"),
        ({"method": "pisces", "preferred_seconds": 5.0}, "preferred_seconds has no effect with selection.method"),
        ({"candidates": 0.5}, "candidates has no effect with selection.method = 'utility'"),
        ({"speed_weight": 1.0}, "speed_weight has no effect without selection.preferred_seconds"),
        ({"method": "power_of_choice", "share": 0.75}, "lower the share, or raise candidates"),
    ],
)
def test_settings_without_effect_and_without_sense_are_refused(settings, words):
    assert words in refusal(task_of(SelectionPlan(**settings)))


@pytest.mark.parametrize(
    ("base", "changes", "words"),
    [
        (SPLIT, {}, "[split] does not go with [selection]"),
        (
            DIGITS,
            {"aggregation": AggregationPlan(buffer_size=3, strategy="fedavg", max_staleness=0, round_seconds=60.0)},
            "'fedavg' draws the devices of each round by itself",
        ),
        (
            DIGITS,
            {"aggregation": AggregationPlan(robust=RobustPlan("fltrust", trusted_devices=("root-pi",)))},
            "aggregation.robust.trusted_devices does not go with [selection]",
        ),
        (DIGITS, {"privacy": PrivacyPlan(devices=hiding_plan())}, "[privacy.devices] does not go with [selection]"),
    ],
)
def test_tasks_whose_devices_choose_themselves_are_refused(base, changes, words):
    task = task_of(SelectionPlan(), base, **changes)
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        check_selection(task, SelectionPlan(), "task.json")


def test_a_task_that_selects_is_read():
    task = task_of(SelectionPlan(preferred_seconds=60.0))
    assert parse_description(msgspec.json.encode(task)).selection == task.selection
