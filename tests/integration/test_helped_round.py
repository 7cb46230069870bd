"""A round that a helper takes part in, through the worker's pipe and the helper's child, both real processes."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.training.compression import unpack
from edge_agent.worker import warm_process
from edge_agent.worker.contract import (
    Reply,
    SessionLost,
    StepAnswered,
    StepAsked,
    TrainingFailure,
    TrainingJob,
    TrainingResult,
)
from edge_agent.worker.settings import WorkerSettings
from edge_agent.worker.supervisor import train_in_child
from fleet_protocol.codec import HeldBlocks
from fleet_protocol.limits import MIB
from fleet_protocol.sessions.steps import StepAnswer
from fleet_protocol.split_costs import BASE_BYTES
from fleet_protocol.task_description import TaskDescription
from session_relay.helper.compute_contract import ComputeFailure, NothingLearned
from session_relay.helper.middle import room_for_passes
from tests.support.local_helper import SESSION, LocalHelper, middle_of
from tests.support.waiting import until
from tests.support.worker import make_job, store_samples
from workbench.recipe_folder import find_recipe

BUNDLE = find_recipe("mnist_cnn") / "bundle"
SETTINGS = WorkerSettings(nice=0, memory_limit_mib=1024, time_limit_seconds=60.0)
SAMPLES = 64


def of_task(job: TrainingJob, **split) -> TrainingJob:
    """The same with another plan: few steps, one after the other, nothing rounded."""
    description = job.description
    plan = msgspec.structs.replace(
        description.split, activations="float32", gradients="float32", most_in_flight=1, **split
    )
    training = msgspec.structs.replace(
        description.training, steps=4, batch_size=16, epochs_per_round=0, validation_share=0.0
    )
    update = msgspec.structs.replace(description.update, quantisation="float32", selection="dense")
    return msgspec.structs.replace(
        job, description=msgspec.structs.replace(description, split=plan, training=training, update=update)
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    inputs = generator.random((SAMPLES, 1, 28, 28), dtype=np.float32)
    return store_samples(tmp_path / "samples.db", "mnist_cnn", inputs, generator.integers(0, 10, SAMPLES))


def split_job(store: Path) -> TrainingJob:
    whole = make_job(BUNDLE, store)
    assert whole.description.split is not None
    return of_task(make_job(BUNDLE, store, cut=whole.description.split.cuts[0]))


@pytest.fixture
def job(store: Path) -> TrainingJob:
    return split_job(store)


def deltas(result: object, task: TaskDescription) -> np.ndarray:
    """What an update says of the weights, f32[P], 0 where others' blocks are."""
    assert isinstance(result, TrainingResult), result
    update = unpack(result.packed, HeldBlocks.of(task, result.held))
    vector = np.zeros(task.trained_count, np.float32)
    vector[update.indices] = update.values
    return vector


class MisbehavingHelper:
    """Replies to each request with what it is given, if anything; notes what it is asked."""

    def __init__(self, *replies: Reply) -> None:
        self._replies = list(replies)
        self._reply: Callable[[Reply], None] | None = None
        self.requests: list[StepAsked] = []
        self.asked = asyncio.Event()

    def listen(self, reply: Callable[[Reply], None]) -> None:
        self._reply = reply

    def ask(self, asked: StepAsked) -> None:
        self.requests.append(asked)
        self.asked.set()
        if self._replies and self._reply is not None:
            self._reply(self._replies.pop(0))


def answers(packed: bytes, problem: str = "", late: int = 0) -> list[Reply]:
    """To the first requests, in their order; or to those that came so many before."""
    encode = msgspec.msgpack.encode
    return [StepAnswered(number, encode(StepAnswer(number - late, packed, problem))) for number in range(1, 99)]


async def test_device_and_helper_together_learn_what_the_device_learns_alone(job, store) -> None:
    helper = LocalHelper(job, BUNDLE, SETTINGS)
    own = await train_in_child(job, SETTINGS, helper=helper)
    others = await helper.contribution()
    alone = await train_in_child(of_task(make_job(BUNDLE, store)), SETTINGS)
    task = job.description
    assert isinstance(own, TrainingResult) and isinstance(others, TrainingResult), (own, others)
    assert (own.held, others.held) == ((SAMPLES, 0, SAMPLES), (0, SAMPLES, 0))
    np.testing.assert_allclose(deltas(own, task) + deltas(others, task), deltas(alone, task), atol=1e-5)
    assert not np.any((deltas(own, task) != 0) & (deltas(others, task) != 0)), "each sends its own blocks alone"


async def test_helper_that_nobody_has_asked_has_nothing_to_send(job) -> None:
    assert await LocalHelper(job, BUNDLE, SETTINGS).contribution() == NothingLearned()


async def test_helpers_child_that_is_killed_is_a_failure_and_not_a_contribution(job, children) -> None:
    helper = LocalHelper(job, BUNDLE, SETTINGS)
    await asyncio.to_thread(until, children.all, "the child runs")
    for child in children.all():
        child.kill()
    failure = await helper.computing
    assert isinstance(failure, ComputeFailure)
    assert "ended before its time" in failure.error


@pytest.mark.parametrize("is_loaded", [True, False], ids=["serving", "loading"])
async def test_helpers_child_that_is_stuck_is_ended_within_its_time(job, children, is_loaded) -> None:
    limits = SETTINGS if is_loaded else msgspec.structs.replace(SETTINGS, time_limit_seconds=2.0)
    middle = middle_of(job, BUNDLE, limits, lambda _: None, answer_seconds=1.0)
    computing = asyncio.ensure_future(middle.run())
    await asyncio.to_thread(until, lambda: children.all() and middle.is_loaded >= is_loaded, "the child is there")
    (child,) = children.all()
    child.suspend()
    assert not computing.done(), "nobody is there yet whom it keeps waiting"
    middle.ask(SESSION, 1, b"a request")
    failure = await computing
    assert isinstance(failure, ComputeFailure)
    assert failure.is_stuck
    setting = "[helper] answer_seconds" if is_loaded else "[worker] time_limit_seconds"
    assert failure.error == f"no answer within {1 if is_loaded else 2} s ({setting}), and was killed"
    assert children.all() == []


async def test_helper_with_little_memory_keeps_fewer_passes_and_serves_a_device_all_the_same(job) -> None:
    little = msgspec.structs.replace(SETTINGS, memory_limit_mib=BASE_BYTES // MIB + 13)
    assert room_for_passes(job.description, little.memory_limit_mib, 256) == 6
    assert room_for_passes(job.description, 1, 256) == 1, "the child's limit itself says that it is too little"
    assert room_for_passes(job.description, 4096, 256) == 256
    helper = LocalHelper(job, BUNDLE, little)
    assert isinstance(await train_in_child(job, SETTINGS, helper=helper), TrainingResult)
    assert isinstance(await helper.contribution(), TrainingResult)


async def test_helper_with_too_little_memory_to_load_a_version_says_so(job) -> None:
    helper = LocalHelper(job, BUNDLE, msgspec.structs.replace(SETTINGS, memory_limit_mib=64))
    failure = await helper.computing
    assert isinstance(failure, ComputeFailure), failure
    assert "memory limit" in failure.error and "64 MiB" in failure.error
    assert not helper.middle.is_loaded


async def test_order_that_is_none_ends_the_session_and_not_the_child(job) -> None:
    helper = LocalHelper(job, BUNDLE, SETTINGS)
    problems: list[str] = []
    helper.middle = middle_of(job, BUNDLE, SETTINGS, lambda step: problems.append(step.problem))
    helper.computing.cancel()
    helper.computing = asyncio.ensure_future(helper.middle.run())
    helper.middle.ask(SESSION, 1, b"\xffno request")
    assert await helper.contribution() == NothingLearned()
    assert problems and "the request is none" in problems[0]


@pytest.mark.parametrize(
    ("replies", "words"),
    [
        ([SessionLost("helper cellar-pi: helper_gone")], "helper cellar-pi: helper_gone"),
        ([StepAnswered(1, b"\xc1")], "the helper's answer is none"),
        (answers(b""), "answers wrong"),
        (answers(b"", "the helper is full"), "the helper is full"),
        (answers(b"", late=1), "this is the answer to request"),
        ([SessionLost("it moved", moved=True)] * 99, "it moved"),
    ],
    ids=["lost", "garbage", "empty", "refused", "of an old step", "moved for ever"],
)
async def test_round_without_usable_answers_ends_with_words_and_without_an_update(job, replies, words) -> None:
    failure = await train_in_child(job, SETTINGS, helper=MisbehavingHelper(*replies))
    assert isinstance(failure, TrainingFailure)
    assert words in failure.error
    assert failure.helper_lost


async def test_round_goes_on_with_another_helper_from_where_it_was(job) -> None:
    second = LocalHelper(job, BUNDLE, SETTINGS)
    moved: list[StepAsked] = []
    listen, ask = second.listen, second.ask

    def ask_second(asked: StepAsked) -> None:
        if asked.helper == 0:
            moved.append(asked)
            assert second.reply is not None
            second.reply(SessionLost("the first has gone", moved=True))
        else:
            ask(asked)

    helper = MisbehavingHelper()
    helper.listen, helper.ask = listen, ask_second  # type: ignore[method-assign]
    own = await train_in_child(job, SETTINGS, helper=helper)
    assert isinstance(own, TrainingResult), own
    assert len(moved) == 1, "what is asked after that is for the second"
    assert isinstance(await second.contribution(), TrainingResult)


async def test_round_that_waits_for_an_answer_is_killed_at_its_time_limit(job, children) -> None:
    short = msgspec.structs.replace(SETTINGS, time_limit_seconds=3.0)
    failure = await train_in_child(job, short, helper=MisbehavingHelper())
    assert failure == TrainingFailure("worker passed its time limit of 3 s and was killed", out_of_time=True)
    assert children.all() == []


async def test_round_that_waits_for_an_answer_ends_by_itself_when_it_is_asked(job, children, monkeypatch) -> None:
    monkeypatch.setattr(warm_process, "END_SECONDS", 600.0)
    helper = MisbehavingHelper()
    running = asyncio.ensure_future(train_in_child(job, SETTINGS, helper=helper))
    await helper.asked.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert children.all() == []


async def test_worker_that_asks_for_a_step_in_a_round_without_a_helper_is_killed(job, children) -> None:
    failure = await train_in_child(job, SETTINGS)
    assert isinstance(failure, TrainingFailure)
    assert failure.error.endswith("in a round without one, and was killed")
    assert children.all() == []
