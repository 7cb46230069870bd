"""Log lines, one grammar for every program: `level=INFO event=version_made task=digits version=4 updates=5`.

A value is one plain word or a JSON string, so that a line is one line and splits into pairs again.
"""

import json
import logging
import sys

FORMAT = "level=%(levelname)s %(message)s"


def configure_logging() -> None:
    """Log to standard error, from INFO up; journald and Docker add the time."""
    logging.basicConfig(level=logging.INFO, format=FORMAT, stream=sys.stderr)


def log_line(event: str, **fields: object) -> str:
    """The text of one log line; floats with four significant digits."""
    return " ".join(f"{name}={_written(value)}" for name, value in {"event": event, **fields}.items())


def _written(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    is_plain_word = text and text.isprintable() and not set(text) & set(' "=')
    return text if is_plain_word else json.dumps(text)
