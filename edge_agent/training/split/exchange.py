"""How a round reaches its helper, whatever is in between."""

from dataclasses import dataclass
from typing import Protocol

from fleet_protocol.sessions.steps import StepAnswer, StepRequest


class SessionFailedError(Exception):
    """The round can't go on with a helper; says why."""


@dataclass(frozen=True, slots=True)
class SessionGone:
    """No answer comes any more to what was asked. Where the session has `moved`, another helper answers what is asked
    from now on, with the version's weights: requests are numbered from 1 again. `words` say why.
    """

    words: str
    moved: bool = False


class Exchange(Protocol):
    """A session with a helper. Answers may come in another order than they were asked for."""

    def send(self, request: StepRequest) -> None:
        """Ask; it does not wait."""

    def receive(self) -> StepAnswer | SessionGone:
        """Wait for the next answer. It repeats what gets lost, and does not wait for ever."""
