"""Messages on stderr: `warning: text` for people, one JSON object a line for machines."""

import contextlib
import datetime
import json
import logging
import sys
from collections.abc import Iterator
from typing import TextIO

LOGGERS = ("fommctl", "py.warnings")
"""Ours, and Python's warnings of libraries, which are shown with -v only."""


class LogFormatter(logging.Formatter):
    """One record as text or as a JSON object with time (UTC, ISO 8601), level, logger and message."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self.json = style == "json"

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage().rstrip()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        if self.json:
            return json_line(record.levelname.lower(), message, logger=record.name)
        return f"{record.levelname.lower()}: {message}"


def json_line(level: str, message: str, **more: object) -> str:
    """One message for machines."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, "level": level, "message": message, **more})


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what sys.stderr is at the time, so that messages and a progress bar do not overwrite each other."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class WarningCollector(logging.Handler):
    """Keeps the warnings of a run, for its JSON."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:
            self.messages.append(record.getMessage())


def start(style: str, verbosity: int = 0, quiet: bool = False) -> WarningCollector:
    """Send the records of fommctl to stderr: warnings; with verbosity 1 information too, with 2 all; quiet: errors.

    Returns what collects the warnings, whether they are shown or not.
    """
    handler, collector = StderrHandler(), WarningCollector()
    handler.setFormatter(LogFormatter(style))
    level = logging.ERROR if quiet else {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    handler.setLevel(level)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        ours = name == "fommctl"
        logger.handlers[:] = [handler, collector] if ours else [handler]
        logger.propagate = False
        logger.setLevel(min(level, logging.WARNING) if ours else level if verbosity else logging.ERROR)
    logging.captureWarnings(True)
    return collector


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Leave logging as it was: the command line may run inside another program."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger, list(logger.handlers), logger.propagate, logger.level) for logger in loggers]
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, handlers, propagate, level in before:
            logger.handlers[:] = handlers
            logger.propagate = propagate
            logger.setLevel(level)
