"""What Home Assistant is told, what is published then, and the states that it has to show: for each kind of label."""

import json
from pathlib import Path

import msgspec

from edge_agent.core.prediction import Prediction
from edge_agent.sources.home_assistant import AnnouncedTopics, announcements
from edge_agent.sources.prediction_command import Predicted
from fleet_protocol.bundle import parse_description
from fleet_protocol.sample_schema import LabelSchema, labels_as_one

DIGITS = parse_description((Path(__file__).parents[2] / "models/digits/bundle/task.json").read_bytes())
TOPICS = AnnouncedTopics("edgeflock/digits")
HEADS = {"digit": LabelSchema(10), "angle": LabelSchema(kind="regression", values=1)}
STATUS = {
    "device": "pi",
    "state": "training",
    "tasks": {"digits": {"state": "sleeping", "reason": "guard refused: " + "it is hot, " * 30, "waits_for": ""}},
    "samples": {"digits": 41},
    "versions": {"digits": 7},
}
AGENT_STATES = {
    "agent": "training",
    "reason": ("guard refused: " + "it is hot, " * 30)[:255],
    "samples": "41",
    "version": "7",
}
CASES = [
    (
        DIGITS,
        Predicted("digits", 7, 0.8, Prediction(3, 0.9712, [0.0288, 0.9712])),
        {"prediction": "3", "confidence": "97.1"},
    ),
    (
        msgspec.structs.replace(DIGITS, label=LabelSchema(3, "multi_label")),
        Predicted("digits", 7, 0.8, Prediction([1, 0, 1], 0.5, [0.9, 0.1, 0.5])),
        {"prediction": "1 0 1", "confidence": "50.0"},
    ),
    (
        msgspec.structs.replace(DIGITS, label=LabelSchema(kind="regression", values=1)),
        Predicted("digits", 7, 0.8, Prediction(21.5)),
        {"prediction": "21.5"},
    ),
    (
        msgspec.structs.replace(DIGITS, label=LabelSchema(2, shape=[400])),
        Predicted("digits", 7, 0.8, Prediction([1] * 400, 0.6)),
        {"prediction": ("1 " * 400)[:255], "confidence": "60.0"},
    ),
    (
        msgspec.structs.replace(DIGITS, label=labels_as_one(HEADS), heads=HEADS),
        Predicted("digits", 7, 0.8, heads={"digit": Prediction(3, 0.5, [0.5, 0.5]), "angle": Prediction(-4.5)}),
        {"digit_prediction": "3", "digit_confidence": "50.0", "angle_prediction": "-4.5"},
    ),
]


def home_assistant_vectors() -> list[dict[str, object]]:
    """For `home_assistant.json`."""
    return [
        {
            "announced": {
                topic: json.loads(payload)
                for topic, payload in announcements("homeassistant", "home", "pi", description, TOPICS).items()
            },
            "published": {
                TOPICS.predictions: json.loads(msgspec.json.encode(predicted)),
                TOPICS.state: STATUS,
            },
            "states": {f"edgeflock_home_pi_digits_{name}": state for name, state in states.items()}
            | {f"edgeflock_home_pi_digits_{name}": state for name, state in AGENT_STATES.items()},
        }
        for description, predicted, states in CASES
    ]
