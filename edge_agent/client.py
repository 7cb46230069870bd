"""For Python programs on the device: hand samples to the agent, and ask it what it does.

    with AgentClient("/run/edge-agent/samples.sock") as agent:
        agent.send("digits", inputs, label=3)

Nothing but the standard library is imported.
"""

import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ANSWER_SECONDS = 30.0
"""Longest wait for an answer: on a slow card a sample may take seconds to write."""

Values = float | Sequence[float]


class SampleRefusedError(Exception):
    """The agent has not taken the sample; its words say what to do."""


class AgentClient:
    """One connection to the sample socket of an agent; for one thread at a time."""

    def __init__(self, path: str | Path) -> None:
        """Connect.

        Raises:
            OSError: nobody listens there.
        """
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(ANSWER_SECONDS)
        try:
            self._connection.connect(str(path))
        except OSError:
            self._connection.close()
            raise
        self._answers = self._connection.makefile("rb")

    def send(
        self, task: str, inputs: Sequence[float] | Mapping[str, Values], label: Any = None, *, budget: str = ""
    ) -> None:
        """Hand over one sample. `inputs` are its values in C order, or those of each input by its name; `label` a
        class, one number, or a list of values, as the task asks; `budget` the name of one in agent.toml.

        Raises:
            SampleRefusedError: it does not fit the task, or could not be stored.
            OSError: the connection is lost; whether the sample was stored is not known.
        """
        sample = {"task": task, "inputs": inputs} | ({} if label is None else {"label": label})
        sample |= {"budget": budget} if budget else {}
        self._hand_over(sample)

    def correct(
        self,
        task: str,
        label: Any,
        *,
        sample: int | None = None,
        inputs: Sequence[float] | Mapping[str, Values] | None = None,
    ) -> int:
        """Give a stored sample its right label; it is named by its number, or by the inputs that it was sent with.
        Returns the number that it has from now on, as it counts as new.

        Raises:
            SampleRefusedError: there is no such sample any more, or the label does not fit the task.
            OSError: the connection is lost; whether it was corrected is not known, and may be tried again.
        """
        named = {"inputs": inputs} if sample is None else {"sample": sample}
        answer = self._ask({"command": "correct", "task": task, "label": label} | named)
        if not answer.get("ok"):
            raise SampleRefusedError(answer.get("error", "no reason was given"))
        return int(answer["sample"])

    def send_reading(self, task: str, reading: Mapping[str, Any], series: str = "") -> None:
        """Hand over one reading whose values have the names of the task's fields; `time`, and `id`, may be among them.
        Those of one `series` follow one another.

        Raises:
            SampleRefusedError: it does not fit the task, or could not be stored.
            OSError: the connection is lost; whether the reading was taken is not known.
        """
        self._hand_over({"task": task, "reading": reading, "series": series})

    def predict(self, task: str, reading: Any, *, follows: bool = False) -> dict[str, Any]:
        """What the model says of one reading, in the form of the task's source or of a sample: `prediction` with
        `value` and, where there are classes, `confidence` and `probabilities`; or `error`, which says why not.

        A named reading is taken as the newest one of those that the device has read or, if it `follows`, of those that
        were asked about before here.

        Raises:
            OSError: the connection is lost.
        """
        return self._ask({"command": "predict", "task": task, "reading": reading, "follows": follows})

    def status(self) -> dict[str, Any]:
        """What the agent says of itself.

        Raises:
            OSError: the connection is lost.
        """
        return self._ask({"command": "status"})

    def close(self) -> None:
        """End the connection."""
        self._answers.close()
        self._connection.close()

    def __enter__(self) -> "AgentClient":
        """For `with`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _hand_over(self, given: Mapping[str, Any]) -> None:
        answer = self._ask(given)
        if not answer.get("ok"):
            raise SampleRefusedError(answer.get("error", "no reason was given"))

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        line = json.dumps(question, default=_as_list)
        self._connection.sendall(line.encode() + b"\n")
        answer = self._answers.readline()
        if not answer.endswith(b"\n"):
            raise ConnectionResetError("the agent closed the connection")
        return dict(json.loads(answer))


def _as_list(value: Any) -> Any:
    """Arrays and their numbers, of whichever library, have this method."""
    return value.tolist()
