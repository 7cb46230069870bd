"""What a task may not have beside `[privacy.samples]`, in words that say what to write instead."""

from pathlib import Path

import msgspec
import pytest

from bundle_runtime.bundle_folder import load_bundle
from edge_agent.core.noise_choice import RoundCount
from edge_agent.core.privacy_settings import PrivacySettings
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import SAMPLE_GRADIENTS_FILE, TRAIN_FILE
from fleet_protocol.configuration import parse_document
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.privacy.private_tasks import check_private_task
from fleet_protocol.privacy.sample_privacy import SamplePrivacy, with_noise
from fleet_protocol.prompt_plan import PromptPlan
from fleet_protocol.scaling import Scale, Scaling
from fleet_protocol.task_description import TaskDescription
from tests.support.hidden_devices import hiding_plan

PLAIN = load_bundle(Path(__file__).parents[2] / "models" / "digits" / "bundle").description
TRAINING = msgspec.structs.replace(PLAIN.training, validation_share=0.0, maximum_epochs=0, epochs_per_round=0)
PROMISE = with_noise(SamplePrivacy(epsilon=4.0, rounds=3), TRAINING.steps, "task.toml")
TASK = msgspec.structs.replace(
    PLAIN,
    training=TRAINING,
    privacy=PrivacyPlan(PROMISE),
    files={**PLAIN.files, SAMPLE_GRADIENTS_FILE: PLAIN.files[TRAIN_FILE]},
)


def read(task: TaskDescription) -> TaskDescription:
    return parse_description(msgspec.json.encode(task))


def with_training(**changed: object) -> TaskDescription:
    return msgspec.structs.replace(TASK, training=msgspec.structs.replace(TRAINING, **changed))


def with_promise(**changed: object) -> TaskDescription:
    return msgspec.structs.replace(TASK, privacy=PrivacyPlan(msgspec.structs.replace(PROMISE, **changed)))


def test_task_that_keeps_its_promise_is_read_as_it_was_written():
    assert read(TASK) == TASK
    assert TASK.graph_file == SAMPLE_GRADIENTS_FILE
    assert PLAIN.graph_file == TRAIN_FILE
    assert b"privacy" not in msgspec.json.encode(PLAIN)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (with_training(validation_share=0.1), r"training\.validation_share = 0 \(whether a round is sent would"),
        (with_training(maximum_epochs=9, gradient_clip=1.0), r"maximum_epochs = 0 .*training\.gradient_clip = 0"),
        (with_training(epochs_per_round=5), r"each round has `steps` steps"),
        (
            msgspec.structs.replace(TASK, scaling=Scaling(Scale.awaiting(1))),
            r"scaling\.inputs = 'ranges' or 'off'|columns of inputs",
        ),
        (
            msgspec.structs.replace(TASK, prompts=PromptPlan()),
            r"\[prompts\] takes from a device what has no noise, so \[privacy\.samples\] could not be kept",
        ),
        (msgspec.structs.replace(TASK, files=PLAIN.files), r"`files` lacks sample_gradients\.onnx"),
        (with_promise(noise_multiplier=0.0), r"noise_multiplier is 0; at least 0\.3 is needed"),
        (with_promise(epsilon=0.05), r"one round of 60 steps tells more of a sample than epsilon 0\.05 allows"),
        (with_promise(sampling_rate=1.0), r"raise noise_multiplier or epsilon, or lower steps or sampling_rate"),
    ],
)
def test_what_would_tell_of_samples_without_noise_is_refused_with_what_to_write(task, words):
    with pytest.raises(ConfigurationError, match=words):
        read(task)


def test_owners_choose_only_where_updates_may_count_by_their_noise():
    assert read(with_promise(owners_choose=True)).sample_privacy == msgspec.structs.replace(PROMISE, owners_choose=True)
    assert b"owners_choose" not in msgspec.json.encode(TASK)
    hidden = hiding_plan()
    plan = PrivacyPlan(msgspec.structs.replace(PROMISE, owners_choose=True), devices=hidden)
    with pytest.raises(ConfigurationError, match=r"\[privacy\.devices\] has all count alike; leave one of them out"):
        check_private_task(msgspec.structs.replace(TASK, privacy=plan), plan.samples, "task.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('noise = "own"', "noise = 'own' follows from epsilon; write epsilon"),
        ('noise = "none"\nepsilon = 2', "hides no sample, and epsilon and at_least = 'samples' demand it"),
        ('noise = "none"\nat_least = "samples"', "hides no sample"),
        ('noise = "less"', "noise"),
    ],
)
def test_owner_who_contradicts_himself_is_told_so(text, words):
    with pytest.raises(ConfigurationError, match=words):
        parse_document(text, PrivacySettings, "agent.toml")


def test_own_noise_is_what_the_owners_epsilon_needs_and_never_less_than_the_tasks():
    task = with_promise(owners_choose=True)
    steps = PROMISE.most_steps()
    stronger = PrivacySettings(at_least="samples", epsilon=1.0, noise="own").chosen(task.sample_privacy)
    assert 0.99 < stronger.epsilon_after(steps) <= 1.0
    weaker = PrivacySettings(at_least="samples", epsilon=50.0, noise="own").chosen(task.sample_privacy)
    assert weaker == task.sample_privacy
    absurd = PrivacySettings(at_least="samples", epsilon=1e-9, noise="own")
    assert absurd.chosen(task.sample_privacy) is None
    assert "no noise up to 1000 keeps epsilon 1e-09 for as many rounds as the task plans" in absurd.refusal(task)
    with pytest.raises(ValueError, match="no noise up to 1000"):
        RoundCount.of(task, absurd)


def test_running_statistics_over_samples_are_refused():
    last = msgspec.structs.replace(PLAIN.parameters[-1], trainable=False)
    with pytest.raises(ConfigurationError, match="running statistics over samples; take GroupNorm"):
        read(msgspec.structs.replace(TASK, parameters=[*PLAIN.parameters[:-1], last]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epsilon = 0", "epsilon"),
        ("epsilon = nan", "epsilon"),
        ("epsilon = 1e300", "epsilon"),
        ("epsilon = 1\nsampling_rate = 1.5", "sampling_rate"),
        ("epsilon = 1\nsampling_rate = 0", "sampling_rate"),
        ("epsilon = 1\nclip = inf", "clip"),
        ("epsilon = 1\nclip = 0", "clip"),
        ("epsilon = 1\ndelta = 0", "delta"),
        ("epsilon = 1\ndelta = 0.5", "delta"),
        ("epsilon = 1\nnoise_multiplier = -1", "noise_multiplier"),
        ("epsilon = 1\nnoise_multiplier = nan", "noise_multiplier"),
        ("epsilon = 1\nnoise = 1", "noise"),
    ],
)
def test_absurd_numbers_are_refused_by_name(text, words):
    with pytest.raises(ConfigurationError, match=words):
        parse_document(text, SamplePrivacy, "task.toml")


def test_noise_or_rounds_are_given_not_both_and_an_epsilon_out_of_reach_is_said():
    with pytest.raises(ConfigurationError, match="neither `rounds` and `noise_multiplier`; write `rounds`"):
        with_noise(SamplePrivacy(epsilon=1.0), 60, "task.toml")
    with pytest.raises(ConfigurationError, match="both `rounds` and `noise_multiplier`"):
        with_noise(SamplePrivacy(epsilon=1.0, rounds=3, noise_multiplier=1.0), 60, "task.toml")
    with pytest.raises(ConfigurationError, match="even with a noise_multiplier of 1000; allow fewer rounds"):
        with_noise(SamplePrivacy(epsilon=0.01, rounds=1_000_000, sampling_rate=1.0), 1000, "task.toml")
    given = SamplePrivacy(epsilon=1.0, noise_multiplier=2.0)
    assert with_noise(given, 60, "task.toml") is given
