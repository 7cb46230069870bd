"""New samples are looked at by a child: drift and a worse model wake the agent; what can't be compared says why."""

import asyncio
import contextlib
from pathlib import Path

import numpy as np
import pytest

from bundle_runtime.bundle_folder import load_bundle
from edge_agent.core.lifecycle import State
from edge_agent.core.triggers import Condition, TriggerSettings
from edge_agent.core.version_choice import VersionUnavailableError
from edge_agent.shell.learning.sample_looks import SampleLooks
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.versions.version_follower import ReadyVersion
from edge_agent.worker.settings import WorkerSettings

FOLDER = Path(__file__).parents[2] / "models/digits/bundle"
BUNDLE = load_bundle(FOLDER)
WINDOW = 16
TRIGGER = TriggerSettings(worse_by=0.2, drift=1.0, look_samples=WINDOW)
DEADLINE_SECONDS = 120


class AtHand:
    """The version that is on the device, or why there is none."""

    def __init__(self, missing: str = "") -> None:
        self.missing = missing

    async def version_to_use(self, _: str, needed) -> ReadyVersion:
        if self.missing:
            raise VersionUnavailableError(self.missing)
        files = {name: FOLDER / name for name in needed(BUNDLE.description)}
        return ReadyVersion(0, BUNDLE.hash, BUNDLE.description, files, FOLDER / "weights.safetensors")


class Device:
    """Stores samples, and keeps what looks at them have met."""

    def __init__(self, folder: Path, caplog, versions: AtHand, **settings: object) -> None:
        self.met: list[Condition] = []
        self.refused: str | None = None
        self.state = State.SLEEPING
        self.store = SampleStore(folder / "samples.db", 1000)
        self._caplog = caplog
        caplog.set_level("INFO")
        self._generator = np.random.default_rng(5)
        self.looks = SampleLooks(
            {"digits": TRIGGER},
            WorkerSettings(**settings),
            folder / "samples.db",
            versions,
            state=lambda: self.state,
            refused=lambda _: self.refused,
            judge=lambda _: None,
            note=lambda _, condition: self.met.append(condition),
        )

    def feed(self, count: int, brightest: float = 1.0) -> None:
        for _ in range(count):
            inputs = self._generator.uniform(0, brightest, 64).astype(np.float32)
            self.store.add("digits", inputs.tobytes(), int(self._generator.integers(10)))
            self.looks.sample_arrived("digits")

    def said(self, event: str) -> int:
        return sum(f"event={event}" in record.getMessage() for record in self._caplog.records)

    async def until_said(self, event: str, times: int = 1) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.said(event) < times:  # noqa: ASYNC110 - the log is what says so
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(device: Device):
    looking = asyncio.create_task(device.looks.run())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.wait({looking})
        device.store.close()


async def test_samples_like_the_earlier_ones_wake_nothing_and_drift_does(tmp_path, caplog) -> None:
    device = Device(tmp_path, caplog, AtHand())
    async with running(device):
        device.feed(100)
        await device.until_said("samples_compared")
        assert device.met == []
        device.feed(WINDOW, brightest=0.1)
        await device.until_said("samples_compared", 2)
        assert Condition.DRIFTED in device.met


async def test_what_can_not_be_compared_says_why_and_the_next_samples_are_looked_at(tmp_path, caplog) -> None:
    device = Device(tmp_path, caplog, AtHand())
    async with running(device):
        device.feed(WINDOW)
        await device.until_said("samples_not_compared")
        assert "16 samples are stored, 32 are needed" in caplog.text
        device.feed(WINDOW)
        await device.until_said("samples_compared")


@pytest.mark.parametrize(
    ("versions", "settings", "words"),
    [
        (AtHand("no manifest of digits has come yet"), {}, "no manifest"),
        (AtHand(), {"time_limit_seconds": 0.01}, "Tim"),
    ],
)
async def test_look_that_fails_is_said_and_ends_nothing(tmp_path, caplog, versions, settings, words) -> None:
    device = Device(tmp_path, caplog, versions, **settings)
    async with running(device):
        for times in (1, 2):
            device.feed(2 * WINDOW)
            await device.until_said("samples_not_compared", times)
        assert words in caplog.text
        assert device.met == []


async def test_nothing_is_looked_at_in_a_round_or_where_a_guard_refuses(tmp_path, caplog) -> None:
    device = Device(tmp_path, caplog, AtHand())
    device.state = State.TRAINING
    async with running(device):
        device.feed(2 * WINDOW)
        await asyncio.sleep(0)
        device.state, device.refused = State.SLEEPING, "it is hot"
        device.feed(1)
        await asyncio.sleep(0)
        assert not device.said("samples_compared") + device.said("samples_not_compared")
        device.refused = None
        device.feed(1)
        await device.until_said("samples_compared")
