"""The worker's half of a round that a helper takes part in: steps are asked for through the agent's pipe."""

from collections.abc import Callable
from typing import BinaryIO

import msgspec

from edge_agent.training.split.exchange import SessionGone
from edge_agent.worker.contract import SessionLost, StepAsked, read_frame, read_reply
from fleet_protocol.sessions.steps import StepAnswer, StepRequest


class AgentPipe:
    """An `Exchange`: `send` writes to the agent, whose replies come on `replies`."""

    def __init__(self, replies: BinaryIO, send: Callable[[StepAsked], None]) -> None:
        self._replies = replies
        self._send = send
        self._helpers = 0
        self._answers = msgspec.msgpack.Decoder(StepAnswer)

    def send(self, request: StepRequest) -> None:
        """Ask; it waits only while the agent does not read."""
        self._send(StepAsked(msgspec.msgpack.encode(request), self._helpers))

    def receive(self) -> StepAnswer | SessionGone:
        """Wait for the next answer. A helper's that can't be read is a session that gives none.

        Raises:
            PipeEndedError: the agent wants no more of this round.
        """
        reply = read_reply(read_frame(self._replies))
        if isinstance(reply, SessionLost):
            self._helpers += 1
            return SessionGone(reply.words, reply.moved)
        try:
            answer = self._answers.decode(reply.answer)
        except msgspec.DecodeError as error:
            return SessionGone(f"the helper's answer is none ({error})")
        if answer.number != reply.number:  # no other one comes: the step must not wait for it
            return StepAnswer(reply.number, b"", f"this is the answer to request {answer.number}, not {reply.number}")
        return answer
