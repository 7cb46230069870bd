"""The demo's sensors deliver everything, whatever an agent answers; one that stands still holds up nobody."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from bundle_runtime.samples import Samples
from edge_agent.preparation.refusal import IS_DISK_FULL
from workbench.demo import sensors
from workbench.demo.sensors import SampleRefusedError, Sensor, ask_status

OK, FULL = b'{"ok":true}\n', f'{{"ok":false,"error":"database or disk is full; {IS_DISK_FULL}"}}\n'.encode()


@asynccontextmanager
async def agent(path: Path, answer: Callable[[], bytes]) -> AsyncIterator[None]:
    """Answers every line; nothing where `answer` is empty."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(answer())
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield
    finally:
        server.close()


@pytest.fixture
def sensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sensor:
    monkeypatch.setattr(sensors, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(sensors, "TICK_SECONDS", 0.0)
    samples = Samples(np.zeros((3, 4), np.float32), np.zeros(3, np.int64))
    return Sensor(tmp_path / "socket", "digits", samples, seconds=0.001)


async def test_sample_that_finds_a_full_disk_is_delivered_again(sensor: Sensor) -> None:
    answers: Iterator[bytes] = iter([OK, FULL, FULL, OK, OK])
    async with agent(sensor.socket, lambda: next(answers)):
        await sensor.drip()
    assert sensor.delivered == 3
    assert list(answers) == []


async def test_class_that_is_an_input_goes_by_its_name_and_is_no_label(sensor: Sensor) -> None:
    sensor.named = ("picture", "digit")
    sent: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            sent.append(line)
            writer.write(OK)
        writer.close()

    server = await asyncio.start_unix_server(serve, sensor.socket)
    try:
        await sensor.drip()
    finally:
        server.close()
    assert json.loads(sent[0]) == {"task": "digits", "inputs": {"picture": [0.0] * 4, "digit": [0]}}


async def test_sample_that_is_refused_for_itself_is_a_defect(sensor: Sensor) -> None:
    async with agent(sensor.socket, lambda: b'{"ok":false,"error":"label 12 is none"}\n'):
        with pytest.raises(SampleRefusedError, match="label 12"):
            await sensor.drip()


async def test_agent_that_does_not_answer_has_no_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "STATUS_SECONDS", 0.01)
    async with agent(tmp_path / "socket", lambda: b""):
        assert await ask_status(tmp_path / "socket") is None
    assert await ask_status(tmp_path / "nowhere") is None
