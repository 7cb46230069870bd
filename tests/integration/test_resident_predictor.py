"""The resident predictor: there when something is asked, gone when nothing is, and back after it was killed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner
from edge_agent.shell.predicting.resident_predictor import PredictionFailedError, ResidentPredictor
from edge_agent.shell.versions.version_follower import ReadyVersion
from edge_agent.worker.prediction import predicting_files
from edge_agent.worker.settings import WorkerSettings
from fleet_protocol.codec import own_of, read_weights, with_own
from tests.support.personal_task import HEAD, personal

FOLDER = Path(__file__).parents[2] / "models/digits/bundle"
BUNDLE = load_bundle(FOLDER)
ROW = np.linspace(0, 1, 64, dtype=np.float32)
DEADLINE_SECONDS = 120
LONG = 3600.0


def version(weights: Path = FOLDER / "weights.safetensors") -> ReadyVersion:
    files = {name: FOLDER / name for name in predicting_files(BUNDLE.description)}
    return ReadyVersion(0, BUNDLE.hash, BUNDLE.description, files, weights)


@contextlib.asynccontextmanager
async def predictor(idle_seconds: float = LONG, **settings: object) -> AsyncIterator[ResidentPredictor]:
    resident = ResidentPredictor(WorkerSettings(**settings), idle_seconds)
    async with asyncio.timeout(DEADLINE_SECONDS):
        try:
            yield resident
        finally:
            await resident.end()


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if is_predictor(child)]


def is_predictor(child: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):  # one that has ended this moment has no command line
        return "edge_agent.training.predictor" in " ".join(child.cmdline())
    return False


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the end of a child announces nothing
        await asyncio.sleep(0.01)


async def test_scores_are_those_of_the_bundle_and_one_child_makes_them_all() -> None:
    weights = read_weights(BUNDLE.weights, BUNDLE.description.parameters)
    expected = BundleRunner(BUNDLE.description, BUNDLE.files).predict(weights, ROW[np.newaxis])[0]
    async with predictor() as resident:
        first = await resident.scores(version(), ROW.tobytes())
        (child,) = children()
        again = await asyncio.gather(*(resident.scores(version(), ROW.tobytes()) for _ in range(3)))
        assert children() == [child]
    assert np.array_equal(np.array(first.values[""], np.float32), expected)
    assert again == [first] * 3


async def test_idle_predictor_ends_and_the_next_question_starts_it_again() -> None:
    async with predictor(idle_seconds=0.05) as resident:
        first = await resident.scores(version(), ROW.tobytes())
        await until(lambda: not resident.runs and not children())
        assert await resident.scores(version(), ROW.tobytes()) == first


async def test_killed_predictor_is_said_and_started_again() -> None:
    async with predictor() as resident:
        first = await resident.scores(version(), ROW.tobytes())
        (child,) = children()
        child.kill()
        with contextlib.suppress(PredictionFailedError):  # unless its end was noticed before the question
            await resident.scores(version(), ROW.tobytes())
        assert await resident.scores(version(), ROW.tobytes()) == first


async def test_other_weights_are_loaded(tmp_path: Path) -> None:
    from safetensors.numpy import load, save_file  # noqa: PLC0415

    doubled = {name: 2 * values for name, values in load(BUNDLE.weights).items()}
    save_file(doubled, tmp_path / "doubled.safetensors")
    async with predictor() as resident:
        first = await resident.scores(version(), ROW.tobytes())
        assert await resident.scores(version(tmp_path / "doubled.safetensors"), ROW.tobytes()) != first
        assert len(children()) == 1


async def test_a_device_answers_with_what_it_keeps_to_itself_from_its_next_round_on() -> None:
    task = personal(BUNDLE.description, parameters=HEAD)
    shared = read_weights(BUNDLE.weights, task.parameters)
    async with predictor() as resident:
        asked = replace(version(), description=task)
        first = await resident.scores(asked, ROW.tobytes())
        for factor in (2, 3):
            own = own_of(factor * shared, task)
            model = with_own(shared, own, task)
            expected = BundleRunner(task, BUNDLE.files).predict(model, ROW[np.newaxis])[0]
            found = await resident.scores(replace(asked, own=own), ROW.tobytes())
            assert np.array_equal(np.array(found.values[""], np.float32), expected)
            assert found != first
        assert await resident.scores(replace(asked, own=b"damaged"), ROW.tobytes()) == first


async def test_version_that_can_not_be_loaded_says_why(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"damaged")
    async with predictor() as resident:
        with pytest.raises(PredictionFailedError, match="safetensors"):
            await resident.scores(version(tmp_path / "weights.safetensors"), ROW.tobytes())
        assert not resident.runs
        assert await resident.scores(version(), ROW.tobytes())


async def test_predictor_out_of_memory_is_said() -> None:
    async with predictor(memory_limit_mib=8) as resident:
        with pytest.raises(PredictionFailedError, match="memory"):
            await resident.scores(version(), ROW.tobytes())
