"""Simulated sensors: they deliver samples to the agents' sockets, at each device's own rate."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bundle_runtime.samples import Samples
from edge_agent.preparation.refusal import IS_DISK_FULL
from edge_agent.sources.unix_socket import Answer, Status

RETRY_SECONDS = 0.2
TICK_SECONDS = 0.25
"""Samples that are due are handed over this often."""
STATUS_SECONDS = 3.0
"""Longest wait for an agent's status: one that stands still holds up nothing else."""


@dataclass(slots=True)
class Sensor:
    """One device's sensor: `samples` in order, spread over `seconds`. `delivered` counts those that were stored.

    Where a task takes the class as an input, and no label, `named` has what it calls the picture and the class.
    """

    socket: Path
    task: str
    samples: Samples
    seconds: float
    delivered: int = 0
    named: tuple[str, str] | None = None

    @property
    def total(self) -> int:
        """Samples that it will deliver."""
        return len(self.samples.labels)

    async def drip(self) -> None:
        """Deliver every sample, again and again until the agent has said that it is stored."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        while self.delivered < self.total:
            elapsed = loop.time() - started
            due = min(self.total, int(self.total * elapsed / self.seconds) + 1)
            try:
                await self._deliver_until(due)
            except OSError:
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(TICK_SECONDS)

    async def _deliver_until(self, due: int) -> None:
        if due <= self.delivered:
            return
        reader, writer = await asyncio.open_unix_connection(self.socket)
        try:
            while self.delivered < due:
                writer.write(json.dumps(self._sample(self.delivered)).encode() + b"\n")
                answer = msgspec.json.decode(await _answer(reader), type=Answer)
                if not answer.ok and answer.error.endswith(IS_DISK_FULL):
                    raise OSError(answer.error)  # it is delivered again
                if not answer.ok:
                    raise SampleRefusedError(f"{self.socket}: {answer.error}")
                self.delivered += 1
        finally:
            writer.close()

    def _sample(self, number: int) -> dict[str, object]:
        inputs, label = self.samples.inputs[number].ravel().tolist(), int(self.samples.labels[number])
        if self.named is not None:
            picture, kind = self.named
            return {"task": self.task, "inputs": {picture: inputs, kind: [label]}}
        return {"task": self.task, "inputs": inputs, "label": label}


class SampleRefusedError(Exception):
    """An agent refused a valid sample, which is a defect."""


async def ask_status(socket: Path) -> Status | None:
    """An agent's status; None where it can't be reached, or does not answer."""
    try:
        async with asyncio.timeout(STATUS_SECONDS):
            reader, writer = await asyncio.open_unix_connection(socket)
            writer.write(b'{"command": "status"}\n')
            try:
                return msgspec.json.decode(await _answer(reader), type=Status)
            finally:
                writer.close()
    except OSError:
        return None


async def _answer(reader: asyncio.StreamReader) -> bytes:
    line = await reader.readline()
    if not line:
        raise ConnectionResetError("the agent closed the connection")
    return line
