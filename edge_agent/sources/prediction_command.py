"""A question for a prediction on the sample socket, and its answer.

{"command": "predict", "task": "digits", "reading": {"inputs": [0.0, 0.5, ...]}}
    ->   {"task": "digits", "version": 7, "milliseconds": 0.8, "prediction": {"value": 3, "confidence": 0.97, ...}}
"""

from typing import Literal

import msgspec

from edge_agent.core.prediction import Prediction
from fleet_protocol.document_errors import NOT_JSON, explain


class CannotPredictError(Exception):
    """There is no prediction; the words say why, and what to do."""


class PredictCommand(msgspec.Struct, forbid_unknown_fields=True):
    """The question. `reading` is in the form of the task's source, or of a sample.

    Named readings that the window lacks are those that the device has read last; or, with `follows`, those that were
    asked about before on the same connection.
    """

    command: Literal["predict"]
    task: str
    reading: msgspec.Raw
    follows: bool = False


class Predicted(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer: made with the weights of `version`; `milliseconds` from the question on.

    A model with several heads has a prediction for each, by name, in `heads` alone.
    """

    task: str
    version: int
    milliseconds: float
    prediction: Prediction | None = None
    heads: dict[str, Prediction] = {}


def read_question(line: bytes) -> PredictCommand:
    """Parse a line.

    Raises:
        CannotPredictError: it is no question.
    """
    try:
        return msgspec.json.decode(line, type=PredictCommand)
    except msgspec.ValidationError as error:
        raise CannotPredictError(explain(error, PredictCommand, msgspec.json.decode(line))) from error
    except NOT_JSON as error:
        raise CannotPredictError(f"not valid JSON: {error}") from error
