"""Log lines, one grammar for every program: `level=INFO event=version_made task=digits version=4 updates=5`.

A value is one plain word or a JSON string, so that a line is one line and splits into pairs again.
"""

import json
import logging
import sys

from fleet_host.log_limit import RepetitionFilter


class LineFormatter(logging.Formatter):
    """Writes one line per record; what a library logs becomes the event `library_message`. A traceback follows it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line of a record, without its traceback."""
        is_ours = record.message.startswith("event=")
        line = record.message if is_ours else log_line("library_message", logger=record.name, text=record.message)
        return f"level={record.levelname} {line}"


def configure_logging() -> None:
    """Log to standard error, from INFO up, and the same thing not too often; journald and Docker add the time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RepetitionFilter())
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def log_line(event: str, **fields: object) -> str:
    """The text of one log line; floats with four significant digits."""
    return " ".join(f"{name}={_written(value)}" for name, value in {"event": event, **fields}.items())


def _written(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    is_plain_word = text and text.isprintable() and not set(text) & set(' "=')
    return text if is_plain_word else json.dumps(text)
