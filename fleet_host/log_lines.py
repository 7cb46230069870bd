"""One line per event, as key=value: `event=version_made task=digits version=4 updates=5`."""

import json


def log_line(event: str, **fields: object) -> str:
    """The text of one log line; a value that is not one plain word is quoted, so a line stays one line."""
    return " ".join([f"event={event}", *(f"{name}={_value(value)}" for name, value in fields.items())])


def _value(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    plain = text and text.isprintable() and not set(text) & set(' "=')
    return text if plain else json.dumps(text)
