"""Prompts that no samples have are refused with the reason; what is admitted can be drawn from."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.admission.consumer import Offered
from broker_coordinator.consumers import PROMPTS_CONSUMER
from broker_coordinator.consumers.prompts import PromptFacts, moments_of, read_tally
from edge_agent.core.prompt_settings import PromptSettings
from edge_agent.training.prompts import prompts_of
from fleet_protocol.codec import ClassStatistics
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import Prompts, decode_payload, encode_payload
from fleet_protocol.prompt_plan import PromptPlan
from fleet_protocol.task_description import TaskDescription
from tests.support.prompts import bundle_with_prompts, stored

GOOD = Prompts("class", bytes([4, 0, 4, 0]), "voice=slt")
PLAN = PromptPlan("instance", components=2, largest_feature=2.0)


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> TaskDescription:
    return bundle_with_prompts(tmp_path_factory.mktemp("bundle"), PLAN).description


def offered(prompts: Prompts, task: TaskDescription) -> Offered[Prompts]:
    return Offered("pi", None, prompts, task, 0)


def moments(task: TaskDescription, scale: float = 1.0, classes: tuple[int, ...] = (0, 2)) -> Prompts:
    counts, means, variances = np.zeros(8, np.int64), np.zeros((8, 8)), np.zeros((8, 8))
    for label in classes:
        counts[2 * label], means[2 * label], variances[2 * label] = 9, 0.5 * scale, 0.1 * scale
    packed = ClassStatistics(counts, means, variances).encode("float16", "gaussian")
    return Prompts("instance", bytes([4, 0, 4, 0]), "", packed)


def with_bytes(prompts: Prompts, packed: bytes) -> Prompts:
    return msgspec.structs.replace(prompts, packed=packed)


def test_good_prompts_are_admitted_with_what_the_journal_tells_of_them(task):
    assert PROMPTS_CONSUMER.admit(offered(GOOD, task)).facts == PromptFacts("class", 2, "voice=slt")
    assert PROMPTS_CONSUMER.admit(offered(moments(task), task)).facts == PromptFacts("instance", 2, "")


BAD = {
    "too few classes": (Prompts("class", bytes(3)), Reason.WRONG_SHAPE, "prompts of 3 classes; tiny has 4"),
    "no class": (Prompts("class", bytes(4)), Reason.OUT_OF_BOUNDS, "magnitude of a class is 0"),
    "absurd": (Prompts("class", bytes([255, 0, 0, 0])), Reason.OUT_OF_BOUNDS, "magnitude of a class is 255"),
    "control character": (Prompts("class", bytes([4, 0, 0, 0]), "a\x1b[2J"), Reason.OUT_OF_BOUNDS, "can't be printed"),
    "right to left": (Prompts("class", bytes([4, 0, 0, 0]), "a\u202e"), Reason.OUT_OF_BOUNDS, "can't be printed"),
    "moments at class level": (with_bytes(GOOD, b"\x01"), Reason.WRONG_SHAPE, "which has none"),
    "half of the moments": (Prompts("moments", bytes([4, 0, 0, 0]), "", b"\x09"), Reason.MALFORMED, "end within"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_no_samples_have_is_refused_with_the_reason(task, name):
    prompts, reason, words = BAD[name]
    with pytest.raises(ProtocolError, match=words) as refused:
        PROMPTS_CONSUMER.admit(offered(prompts, task))
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("scale", "words"),
    [(5.0, "means from 2.5 to 2.5"), (-1.0, "from -0.0999"), (200, "means")],
)
def test_absurd_but_finite_moments_are_refused(task, scale, words):
    with pytest.raises(ProtocolError, match=words):
        PROMPTS_CONSUMER.admit(offered(moments(task, scale), task))


def test_moments_of_classes_that_are_not_told_are_refused(task):
    with pytest.raises(ProtocolError, match="moments of other classes"):
        PROMPTS_CONSUMER.admit(offered(moments(task, classes=(0, 3)), task))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_moments_that_are_no_numbers_are_refused(task, number):
    good = moments(task)
    packed = good.packed[:-2] + np.float16(number).tobytes()
    with pytest.raises(ProtocolError, match="NaN, infinity"):
        PROMPTS_CONSUMER.admit(offered(with_bytes(good, packed), task))


def test_level_above_the_tasks_own_and_a_task_that_asks_for_none_are_refused(task):
    low = msgspec.structs.replace(task, prompts=PromptPlan())
    with pytest.raises(ProtocolError, match="tiny takes class at most"):
        PROMPTS_CONSUMER.admit(offered(moments(task), low))
    with pytest.raises(ProtocolError, match="asks for no prompts"):
        PROMPTS_CONSUMER.admit(offered(GOOD, msgspec.structs.replace(task, prompts=None)))


@pytest.mark.parametrize("style", ["x" * 161, "x" * 10_000])
def test_long_style_is_malformed_before_anybody_looks_at_it(style):
    with pytest.raises(ProtocolError, match="malformed"):
        decode_payload(encode_payload(msgspec.structs.replace(GOOD, style=style)), Prompts)


@given(packed=st.binary(max_size=400), level=st.sampled_from(["moments", "instance"]))
def test_hostile_moments_are_refused_or_finite(task, packed, level):
    prompts = Prompts(level, bytes([4, 0, 4, 0]), "", packed)
    try:
        PROMPTS_CONSUMER.admit(offered(prompts, task))
    except ProtocolError:
        return
    found = moments_of(prompts, task)
    assert np.isfinite(found.means).all()
    assert (found.spread >= 0).all()


@given(seed=st.integers(0, 999), level=st.sampled_from(["class", "moments", "instance"]))
def test_what_devices_tell_is_admitted(task, seed, level):
    labels = np.random.default_rng(seed).integers(0, 4, 60).tolist()
    asked = msgspec.structs.replace(task, prompts=PromptPlan(level, largest_feature=2.0))
    prompts = prompts_of(stored(labels, seed), asked.prompts, PromptSettings(most="instance"), asked)
    assert PROMPTS_CONSUMER.admit(offered(prompts, asked)).facts.level == level


def test_state_counts_messages(task):
    state = PROMPTS_CONSUMER.next_state(b"", [1, 1], task)
    assert read_tally(PROMPTS_CONSUMER.next_state(state, [1], task)).messages == 3
