"""Stands where the training child does: it reads the shipped store, takes minutes, and learns one piece a round."""

import asyncio
import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path

from edge_agent.training.rebuild import RebuildError, rebuild
from edge_agent.worker.contract import RebuildFailure, TrainingFailure, TrainingJob, TrainingResult, Verdict, Withheld
from tests.month.storage import Card
from tests.support.device import packed_delta

SHORTEST_ROUND_SECONDS, LONGEST_ROUND_SECONDS = 20.0, 90.0
CPU_MILLISECONDS = 40_000
"""Of a round."""
FAILS, WITHHOLDS, KEEPS_NEWEST = 0.03, 0.03, 0.3
"""Shares of rounds that end without a result, that send nothing, and whose compression leaves the newest piece out."""


class MonthWorker:
    """Of one device. `pieces` gives the name of the next piece, `seen` are the ids of samples that rounds have read."""

    def __init__(self, card: Card, draw: random.Random, pieces: "count[int]", now: Callable[[], float]) -> None:
        self._card = card
        self._draw = draw
        self._pieces = pieces
        self._now = now
        self.spent_milliseconds = 0
        self.seen: set[int] = set()
        self.began: list[float] = []
        """When rounds began, in seconds since the start."""

    async def train(self, job: TrainingJob, _on_news: object) -> Verdict:
        """Run a round."""
        self.began.append(self._now())
        rows = self._read(job)
        await asyncio.sleep(self._draw.uniform(SHORTEST_ROUND_SECONDS, LONGEST_ROUND_SECONDS))
        self.spent_milliseconds += CPU_MILLISECONDS
        if job.packed is not None:
            if self._card.full:
                return TrainingFailure("No space left on device")
            try:
                rebuild(job.packed, Path(job.weights), job.description.parameters)
            except RebuildError as error:
                return RebuildFailure(str(error))
        fate = self._draw.random()
        if not rows or fate < FAILS:
            return TrainingFailure("the device has no memory left")
        self.seen.update(rows)
        if fate < FAILS + WITHHOLDS:
            return Withheld("worse", "validation became worse", max(rows), 0.0)
        return self._learn(job, rows)

    async def end(self) -> None:
        """Nothing stays."""

    def _learn(self, job: TrainingJob, rows: list[int]) -> TrainingResult:
        piece = next(self._pieces)
        pieces = json.loads(job.residual or b"[]")
        pieces += [each for returned in job.returned for each in self._card.contents[returned.packed]]
        pieces.append(piece)
        residual = [pieces.pop()] if len(pieces) > 1 and self._draw.random() < KEEPS_NEWEST else []
        packed = packed_delta(seed=piece)
        self._card.contents[packed] = tuple(pieces)
        return TrainingResult(
            packed=packed,
            residual=json.dumps(residual).encode(),
            samples=min(len(rows), 100),
            steps=25,
            trained_through=max(rows),
            loss=0.5,
            life=job.life,
        )

    def _read(self, job: TrainingJob) -> list[int]:
        query = "SELECT id FROM samples WHERE task = ?"
        with closing(sqlite3.connect(f"file:{job.sample_store}?mode=ro", uri=True)) as connection:
            return [number for (number,) in connection.execute(query, (job.description.task,))]
