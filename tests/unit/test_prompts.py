"""What a device tells where a task asks for prompts: as much as task and owner say, once, and never a sample."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.consumers.prompts import moments_of
from edge_agent.core.prompt_memory import MARK_BYTES, mark_of, with_mark, without_mark
from edge_agent.core.prompt_settings import PromptSettings
from edge_agent.producers import produce
from edge_agent.producers.prompts import returned_prompts
from edge_agent.training.prompts import prompts_of, tell_prompts
from edge_agent.training.round import Earlier
from edge_agent.training.sample_groups import grouped
from edge_agent.worker.contract import Returned, TrainingResult, Withheld
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import PROMPTS, Prompts, decode_payload
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE
from fleet_protocol.prompt_plan import MOST_MAGNITUDE, PromptPlan, check_prompts, least_samples, magnitude
from fleet_protocol.sample_schema import LabelSchema
from fleet_protocol.solved_head import SolvedHead
from fleet_protocol.task_description import TaskDescription
from tests.support.bundles import write_bundle
from tests.support.prompts import CENTRES, bundle_with_prompts, stored

TEN_OF_TWO = [0] * 10 + [2] * 10
ALL = PromptSettings(most="instance", style="voice=slt")


@pytest.fixture
def task(tmp_path) -> TaskDescription:
    return bundle_with_prompts(tmp_path).description


def asking(task: TaskDescription, **settings: object) -> TaskDescription:
    return msgspec.structs.replace(task, prompts=PromptPlan(**settings))


def earlier(owner: PromptSettings | None = ALL, told: bytes = b"", returned: tuple[Returned, ...] = ()) -> Earlier:
    return Earlier(b"", returned, seed=1, life=1, prompting=owner, told=told)


def told(task: TaskDescription, labels: list[int], before: Earlier) -> TrainingResult | Withheld | None:
    return tell_prompts(stored(labels), task.prompts, task, before)


def test_class_level_tells_which_classes_there_are_about_how_many_and_a_style_in_few_bytes(task):
    result = told(task, TEN_OF_TWO, earlier())
    ((kind, payload),) = produce(task, result)
    assert kind is PROMPTS
    assert decode_payload(payload, Prompts) == Prompts("class", bytes([4, 0, 4, 0]), "voice=slt")
    assert len(payload) < 40
    assert (result.trained_through, result.steps, result.packed) == (40, 0, b"")


@given(st.integers(1, MAX_SAMPLES_PER_UPDATE))
def test_magnitude_is_told_to_within_a_factor_of_two(samples):
    assert least_samples(magnitude(samples)) <= samples < 2 * least_samples(magnitude(samples))
    assert magnitude(samples) <= MOST_MAGNITUDE


@pytest.mark.parametrize("asked", ["class", "moments", "instance"])
@pytest.mark.parametrize("most", ["nothing", "class", "moments", "instance"])
def test_owner_caps_what_is_told(task, asked, most):
    levels = ["class", "moments", "instance"]
    found = prompts_of(stored(TEN_OF_TWO), PromptPlan(asked), PromptSettings(most=most), asking(task, level=asked))
    expected = None if most == "nothing" else levels[min(levels.index(asked), levels.index(most))]
    assert (found and found.level) == expected


def test_class_of_few_samples_is_not_spoken_of(task):
    owner = PromptSettings(most="instance", minimum_samples=5)
    found = prompts_of(stored([0] * 4 + [1] * 5), task.prompts, owner, task)
    assert found.magnitudes == bytes([0, 3, 0, 0])
    assert prompts_of(stored([0] * 4), task.prompts, owner, task) is None


def test_moments_are_those_of_the_samples_of_each_class(task):
    task = asking(task, level="moments")
    found = prompts_of(stored(TEN_OF_TWO), task.prompts, ALL, task)
    moments = moments_of(found, task)
    assert moments.counts.tolist() == [10, 0, 10, 0]
    np.testing.assert_allclose(moments.means[[0, 2]], CENTRES[[0, 2]], atol=0.06)


def test_groups_of_one_class_are_told_apart_and_none_is_small(task):
    task = asking(task, level="instance", components=3)
    samples = stored(TEN_OF_TWO)
    inputs = samples.training.inputs.copy()
    inputs[:5] = -inputs[:5]
    apart = replace(samples, training=replace(samples.training, inputs=inputs))
    found = prompts_of(apart, task.prompts, ALL, task)
    counts = moments_of(found, task).counts.reshape(4, 3)
    assert sorted(counts[0].tolist()) == [0, 5, 5]
    assert counts[counts > 0].min() >= ALL.minimum_samples


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(5, 60), most=st.integers(1, 16), least=st.integers(2, 5))
def test_no_group_is_smaller_than_the_least_whatever_the_samples(seed, count, most, least):
    generator = np.random.default_rng(seed)
    features = generator.normal(0, 1, (count, 3)).round(int(generator.integers(0, 3)))
    sizes = np.bincount(grouped(features, most, least))
    assert sizes[sizes > 0].min() >= least
    assert np.count_nonzero(sizes) <= most
    assert (grouped(features, most, least) == grouped(features, most, least)).all()


@pytest.mark.parametrize("level", ["moments", "instance"])
def test_feature_beyond_the_largest_falls_back_to_classes(task, level):
    task = asking(task, level=level, largest_feature=0.01)
    assert prompts_of(stored(TEN_OF_TWO), task.prompts, ALL, task).level == "class"


def test_what_was_told_is_not_told_again_until_a_class_doubles_or_the_style_changes(task):
    first = told(task, TEN_OF_TWO, earlier())
    assert isinstance(told(task, [*TEN_OF_TWO, 0, 2, 2], earlier(told=first.told)), Withheld)
    assert isinstance(told(task, [*TEN_OF_TWO, *[0] * 6], earlier(told=first.told)), TrainingResult)
    other = msgspec.structs.replace(ALL, style="voice=kal16")
    assert isinstance(told(task, TEN_OF_TWO, earlier(other, told=first.told)), TrainingResult)


def test_what_the_coordinator_refused_is_told_again(task):
    first = told(task, TEN_OF_TWO, earlier())
    again = told(task, TEN_OF_TWO, earlier(told=first.told, returned=(returned_prompts(first.prompts),)))
    assert again.prompts == first.prompts


@pytest.mark.parametrize(("rounds", "kind"), [(False, Withheld), (True, type(None))])
def test_after_its_prompts_a_device_trains_where_the_task_has_rounds(task, rounds, kind):
    task = asking(task, rounds=rounds)
    first = told(task, TEN_OF_TWO, earlier())
    assert isinstance(told(task, TEN_OF_TWO, earlier(told=first.told)), kind)


def test_round_that_nobody_asks_prompts_of_trains_as_a_simulated_one(task):
    assert told(task, TEN_OF_TWO, earlier(None)) is None


def test_device_whose_owner_lets_it_tell_nothing_says_so(task):
    withheld = told(task, TEN_OF_TWO, earlier(PromptSettings(most="nothing")))
    assert withheld.words == "there is nothing that its owner lets it tell, and devices of tiny train no rounds"


@given(st.binary(max_size=50), st.binary(min_size=MARK_BYTES, max_size=MARK_BYTES))
def test_mark_stands_before_what_a_round_leaves_behind(state, mark):
    assert without_mark(PromptPlan(), with_mark(PromptPlan(), mark, state)) == (mark, state)
    assert without_mark(None, with_mark(None, mark, state)) == (b"", state)
    _, kept = without_mark(PromptPlan(), with_mark(PromptPlan(), b"", state))
    assert kept == state


def test_mark_tells_level_style_and_classes_apart():
    marks = {mark_of(*told) for told in (("class", b"\1", ""), ("moments", b"\1", ""), ("class", b"\2", ""))}
    assert len(marks | {mark_of("class", b"\1", "a")}) == 4


@pytest.mark.parametrize("style", ["a\x00b", "a\nb", "a\u202eb", "x" * 161])
def test_style_that_no_coordinator_takes_is_refused_at_the_start(style):
    with pytest.raises((ValueError, msgspec.ValidationError)):
        msgspec.convert({"style": style}, PromptSettings)


def test_task_whose_head_is_solved_takes_no_prompts_as_the_next_message_would_undo_them(tmp_path):
    with pytest.raises(ConfigurationError, match=r"leave \[prompts\] or \[solved_head\] out"):
        write_bundle(tmp_path, solved_head=SolvedHead(), prompts=PromptPlan())


@pytest.mark.parametrize(
    ("plan", "label", "features", "words"),
    [
        (PromptPlan(), LabelSchema(kind="regression", values=1), 8, "label.kind is 'regression'"),
        (PromptPlan(), LabelSchema(5000), 8, "at most 4096 classes"),
        (PromptPlan(names=["a"]), LabelSchema(2), 8, "prompts.names has 1 words for 2 classes"),
        (PromptPlan("instance", components=16), LabelSchema(1000), 1000, "fewer `components`"),
    ],
)
def test_prompts_that_can_not_be_told_are_refused_with_a_remedy(plan, label, features, words):
    with pytest.raises(ConfigurationError, match=words):
        check_prompts(plan, label, features, "task.json")
