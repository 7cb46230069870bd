"""One version of one task at a helper: the child that computes its blocks, and the sessions that it serves."""

import asyncio
import contextlib
import dataclasses
import logging
import math
import secrets
import sys
from collections.abc import Callable

import msgspec

from edge_agent.shell.versions.version_follower import ReadyVersion
from edge_agent.worker.child import RunningProcess, end_child, start_child
from edge_agent.worker.contract import LENGTH_BYTES, Returned, TrainingResult, Unconfined
from edge_agent.worker.settings import WorkerSettings
from fleet_host.log_lines import log_line
from fleet_protocol.limits import MAX_PROBLEM_CHARACTERS, MAX_WAIT_SECONDS, MIB
from fleet_protocol.split_costs import BASE_BYTES, FLAT_VECTORS, FLOAT_BYTES
from fleet_protocol.split_plan import SplitPlan, is_helpers
from fleet_protocol.task_description import TaskDescription
from session_relay.helper.compute_contract import (
    ComputeFailure,
    ComputeJob,
    Contribute,
    Join,
    Learned,
    Leave,
    NothingLearned,
    Order,
    Ready,
    Seen,
    Step,
    StepDone,
    frame,
    longest_compute_message,
    read_compute_message,
)
from session_relay.helper.configuration import HelperSettings
from session_relay.helper.core.turns import Turns

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-P", "-m", "session_relay.helper.compute")
CONFINEMENT = "none needed; a kernel from 5.13 on, with Landlock and seccomp, keeps bundles from it"
LIFE_BITS = 32
"""Of an error feedback's `life`, as a device draws it."""


def blocks_of_helpers(plan: SplitPlan) -> list[int]:
    """Those that any cut gives to a helper."""
    return [block for block in range(len(plan.blocks)) if any(is_helpers(cut, block) for cut in plan.cuts)]


def room_for_passes(task: TaskDescription, memory_limit_mib: int, most_mib: int) -> int:
    """How much the child keeps for backward passes, in MiB: `most_mib`, or half of what its limit leaves beside its
    libraries and the model. The other half is for what it computes with: over the limit it would end, for all devices.
    """
    taken = BASE_BYTES + FLAT_VECTORS * FLOAT_BYTES * task.version.size
    return max(1, min(most_mib, (memory_limit_mib - taken // MIB) // 2))


class Middle:
    """Steps that are asked for before the child runs wait until it does."""

    def __init__(
        self,
        version: ReadyVersion,
        settings: WorkerSettings,
        own: HelperSettings,
        *,
        ready: Callable[[ReadyVersion], None],
        done: Callable[[StepDone], None],
        seen: Callable[[ReadyVersion, str, Seen], None],
    ) -> None:
        """The child is limited by `settings`, and by what is the helper's `own`. `ready` hears when the version is
        loaded, `done` of each answered step, `seen` of each session that has ended, with its device.
        """
        self.version = version
        self.sessions: set[bytes] = set()
        """Those that are open."""
        self.takes_sessions = True
        self.is_loaded = False
        """Whether its child has ever been ready to compute."""
        self.has_answered = False
        """Whether it has ever computed a step."""
        self.has_unpacked = asyncio.Event()
        """Set when its child no longer writes the file of the version's weights: it has, or can't."""
        self.due = asyncio.Event()
        """Set when what it has learned is wanted."""
        self.contributed_at = -math.inf
        """When that was last."""
        self.began_at = asyncio.get_running_loop().time()
        self._settings = settings
        self._own = own
        self._ready = ready
        self._done = done
        self._seen = seen
        self._devices: dict[bytes, str] = {}
        self._process: RunningProcess | None = None
        self._orders: asyncio.StreamWriter | None = None
        self._early: list[bytes] = []
        plan = version.description.split
        self._turns = Turns[Step](plan.most_in_flight if plan else 1)
        self._unanswered = 0
        self._learned: asyncio.Future[Learned] | None = None
        self._answer_by: float | None = None
        """On the event loop's clock; None where nothing is asked."""
        self._limit = asyncio.timeout(None)

    def join(self, session: bytes, cut: str, samples: int, device: str) -> None:
        """A session of `device` begins, of this cut, which trains on so many samples."""
        self.sessions.add(session)
        self._devices[session] = device
        self._order(Join(session, cut, samples))

    def ask(self, session: bytes, number: int, request: bytes) -> None:
        """A session's device asks for a step."""
        self._compute(self._turns.asked(session, Step(session, number, request)))

    def leave(self, session: bytes) -> None:
        """A session is over."""
        self.sessions.discard(session)
        self._turns.left(session)
        self._order(Leave(session))

    @property
    def is_over(self) -> bool:
        """Whether no session will ask it for anything any more."""
        return not self.takes_sessions and not self.sessions

    @property
    def unpacks(self) -> bool:
        """Whether its child writes the file of the version's weights, or will."""
        return self.version.packed is not None and not self.has_unpacked.is_set()

    def start_from_file(self, *, whole: bool) -> None:
        """Another one was to unpack the weights: where their file is `whole`, this one reads it."""
        if whole:
            self.version = dataclasses.replace(self.version, packed=None)

    def contribute(self, residual: bytes, returned: list[Returned], seed: int) -> "asyncio.Future[Learned]":
        """What it has learned since the last time, joined with what earlier contributions left. One at a time."""
        self._learned = asyncio.get_running_loop().create_future()
        self._order(Contribute(residual, returned, seed, 1 + secrets.randbits(LIFE_BITS)))
        self._await_answer()
        return self._learned

    async def run(self) -> ComputeFailure:
        """Compute until it fails. Cancelled, it ends the child."""
        try:
            child = await start_child(COMMAND, None)
            self._process = child.process
            answers, self._orders = await asyncio.open_connection(sock=child.connection)
            self._orders.write(frame(self._job()))
            self._orders.writelines(self._early)
            return await self._read(answers)
        except TimeoutError:
            setting = "[helper] answer_seconds" if self.is_loaded else "[worker] time_limit_seconds"
            words = f"no answer within {self._answer_seconds:g} s ({setting}), and was killed"
            return ComputeFailure(words, is_stuck=True)
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError):
            memory = self._settings.memory_limit_mib
            return ComputeFailure(f"ended before its time (memory limit {memory} MiB)")
        except OSError as error:
            return ComputeFailure(f"can't be started: {error}")
        finally:
            if self._orders is not None:
                self._orders.close()
            if self._process is not None:
                await end_child(self._process)
            self.has_unpacked.set()

    async def _read(self, answers: asyncio.StreamReader) -> ComputeFailure:
        longest = longest_compute_message(self.version.description)
        while True:
            async with asyncio.timeout_at(self._answer_by) as self._limit:
                length = int.from_bytes(await answers.readexactly(LENGTH_BYTES), "big")
                if length > longest:
                    return ComputeFailure(f"began a message of {length} bytes, at most {longest} are read")
                message = read_compute_message(await answers.readexactly(length))
            match message:
                case StepDone():
                    self._note_answer()
                    self.has_answered = True
                    self._compute(self._turns.answered(message.session))
                    self._done(message)
                case Ready() if not self.is_loaded:
                    self.is_loaded = True
                    self.has_unpacked.set()
                    self._set_time()
                    self._ready(self.version)
                case Unconfined() if not self.is_loaded:
                    logger.warning(log_line("worker_not_confined", lacking=message.lacking, remedy=CONFINEMENT))
                case Seen() if message.session in self._devices.keys() - self.sessions:
                    self._seen(self.version, self._devices.pop(message.session), message)
                case ComputeFailure():
                    words = message.error[:MAX_PROBLEM_CHARACTERS]  # a bundle may have taken the child over
                    return ComputeFailure(words, message.is_packed)
                case TrainingResult() | NothingLearned() if self._learned is not None and not self._learned.done():
                    self._note_answer()
                    self._learned.set_result(message)
                case _:
                    return ComputeFailure(f"sent a {type(message).__name__} without being asked")

    def _compute(self, steps: list[Step]) -> None:
        for step in steps:
            self._order(step)
            self._await_answer()

    def _await_answer(self) -> None:
        """From now on an answer is due, unless one was already."""
        self._unanswered += 1
        if self._answer_by is None:
            self._set_time()

    def _note_answer(self) -> None:
        self._unanswered = max(0, self._unanswered - 1)
        self._set_time()

    def _set_time(self) -> None:
        """The next answer is due so long after the last one, and after the version was loaded."""
        now = asyncio.get_running_loop().time()
        self._answer_by = now + self._answer_seconds if self._unanswered else None
        with contextlib.suppress(RuntimeError):  # between two messages nothing is awaited
            self._limit.reschedule(self._answer_by)

    @property
    def _answer_seconds(self) -> float:
        return self._own.answer_seconds if self.is_loaded else self._settings.time_limit_seconds

    def _order(self, order: Order) -> None:
        data = frame(order)
        if self._orders is None:
            self._early.append(data)
        else:
            self._orders.write(data)

    def _job(self) -> ComputeJob:
        version, settings = self.version, self._settings
        plan = version.description.split
        return ComputeJob(
            description=version.description,
            files={name: str(path) for name, path in version.files.items()},
            weights=str(version.weights),
            packed=version.packed,
            blocks=blocks_of_helpers(plan) if plan else [],
            threads=settings.threads,
            nice=settings.nice,
            memory_limit_mib=settings.memory_limit_mib,
            cpu_limit_seconds=settings.threads * MAX_WAIT_SECONDS,
            kept_mib=room_for_passes(version.description, settings.memory_limit_mib, self._own.kept_mib),
            cluster=version.cluster,
        )
