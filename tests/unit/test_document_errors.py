"""Whatever is wrong in a file that a person wrote is said with its place, the value seen, and what may stand there."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.configuration import AgentConfiguration
from fleet_host.configuration_file import parse_with_paths
from fleet_protocol.configuration import parse_document
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription
from workbench.export.recipe.task_file import TaskFile

ROOT = Path(__file__).parents[2]
TASK = (ROOT / "models/digits/task.toml").read_text()
AGENT = (ROOT / "systemd/agent.toml").read_text() + "\n[worker]\nthreads = 1\n\n[store]\nmaximum_samples = 2000\n"


def refusal_of(text: str, shape: type) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_with_paths(text.encode(), shape, "file.toml")
    said = str(caught.value)
    assert said.startswith("file.toml: ")
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            'strategy = "ca2fl"',
            'strategy = "fedbuf"',
            "Invalid enum value 'fedbuf' - at `aggregation.strategy`; choose one of aced, base_mean, ca2fl, ef21,"
            " fadas, fedasync, fedavg, fedbuff, posterior; did you mean 'fedbuff'?",
        ),
        (
            "steps = 60",
            'steps = 60\noptimiser = "rmsprop"',
            "at `training.optimiser`; choose one of adam, adamw, momentum, nesterov, sgd",
        ),
        (
            'loss = "balanced_cross_entropy"',
            'loss = "cross_entrop"',
            "choose one of balanced_cross_entropy, binary_cross_entropy, cross_entropy, huber, mean_squared_error,"
            " model.py; did you mean 'cross_entropy'?",
        ),
        (
            'loss = "balanced_cross_entropy"',
            "loss = 4",
            "got `int` - at `loss`; choose one of balanced",
        ),
        ("steps = 60", "steps = 0", "Expected `int` >= 1 - at `training.steps`; it is 0"),
        ("shape = [64]", "shape = [64, -3]", "at `input.shape[1]`; it is -3"),
        ("steps = 60", "steps = true", "Expected `int`, got `bool` - at `training.steps`; it is true"),
        (
            'task = "digits"',
            'task = "My Digits"',
            "Expected 1 to 48 characters of a-z, 0-9, '-' and '_' - at `task`; it is 'My Digits'",
        ),
        ("steps = 60", "", "missing key `steps` - at `training`"),
        ("steps = 60", "step = 60", "unknown key 'step' in [training]; did you mean 'steps'?"),
        (
            "[label]",
            "max_staleness = 3\n[label]",
            "unknown key 'max_staleness' in [input]; it belongs in [aggregation]",
        ),
        (
            "[label]",
            "seed = 3\n[label]",
            "unknown key 'seed' in [input]; it belongs in [solved_head] or in [gossip] or above all tables",
        ),
        ("[label]", "colour = 3\n[label]", "unknown key 'colour' in [input]; the keys are shape, minimum, maximum"),
        ("title =", "name = 'x' # " + 200 * "x" + "\ntitle =", "unknown key 'name'; the keys are task, title"),
        ("title = ", "title = [" + 50 * "'y', " + "] #", "Expected `str`, got `array` - at `title`"),
        ("steps = 60", f"steps = '{'s' * 1000}'", f"it is '{'s' * 79}"),
    ],
)
def test_mistake_in_a_task_file_is_said_with_what_may_stand_there(old, new, words):
    assert old in TASK
    said = refusal_of(TASK.replace(old, new), TaskFile)
    assert words in said
    assert len(said) < 400


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("threads = 1", 'threads = 1\nengine = "onnx"', "at `worker.engine`; choose one of onnx-step, ort-training"),
        ("port = 8883", 'protocol = "4"', "at `broker.protocol`; choose one of 3.1.1, 5"),
        ('device = "kitchen-pi"', 'device = "Kitchen"', "- at `device`; it is 'Kitchen'"),
        ("[store]", "maximum_temperature_celsius = 1\n[store]", "in [worker]; it belongs in [guards]"),
        ('name = "digits"', 'name = "digits"\nnew_samples = 3', "in [tasks[0]]; it belongs in [tasks.trigger]"),
        ('authority = "ca.crt"', "authority = 3", "at `broker.tls.authority`; it is 3"),
    ],
)
def test_mistake_in_an_agents_file_is_said_with_what_may_stand_there(old, new, words):
    assert old in AGENT
    assert words in refusal_of(AGENT.replace(old, new), AgentConfiguration)


def test_document_that_breaks_off_behind_a_mistake_is_refused_for_the_mistake():
    with pytest.raises(ConfigurationError, match="Expected `int`, got `str` - at `format`"):
        parse_document('{"format": "1", "task', TaskDescription, "task.json", "json")


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    number: Annotated[int, msgspec.Meta(ge=0)] = 0
    word: Literal["a", "b"] | None = None


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner | None = None
    items: list[Inner] = []
    named: dict[str, Inner | list[int]] = {}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["inner", "items", "named", "number", "word", "$", "[0]", "a.b", "`"]), inner)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["inner", "items", "named", "nmaed"]), VALUES))
def test_anything_else_is_refused_in_one_sentence_too(document):
    text = msgspec.json.encode(document)
    try:
        parse_document(text, Outer, "file.json", "json")
    except ConfigurationError as error:
        assert str(error).startswith("file.json: ")
