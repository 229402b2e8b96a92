"""The daemon's own log: one line per event on standard error, as logfmt or JSON."""

from __future__ import annotations

import json
import logging
import sys
import time

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
_NAMES = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "fatal"}


def _fields(record: logging.LogRecord) -> dict[str, str]:
    seconds, fraction = divmod(record.created, 1)
    clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fields = {
        "time": f"{clock}.{int(fraction * 1e6):06d}Z",
        "level": _NAMES.get(record.levelno, record.levelname.lower()),
        "msg": record.getMessage(),
    }
    if record.name.startswith("wherry."):
        fields["room"] = record.name.split(".")[1]
    if record.exc_info:
        fields["error"] = logging.Formatter().formatException(record.exc_info)
    return fields


class LogfmtFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{key}={_quoted(value)}" for key, value in _fields(record).items())


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _json(_fields(record))


def _quoted(text: str) -> str:
    if text and text.isascii() and all(c.isalnum() or c in "-._:/+" for c in text):
        return text
    return _json(text)


def _json(value: object) -> str:
    """One line, without control characters for a terminal: parts of messages come from other people."""
    encoded = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return (
        encoded
        if encoded.isprintable()
        else json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f")
    )


def configure(level: str, form: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else LogfmtFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    # hpack logs every header.
    logging.getLogger("hpack").setLevel(max(LEVELS[level], logging.INFO))
    # aiohttp and asyncio log each client that disconnects early.
    logging.getLogger("aiohttp").setLevel(max(LEVELS[level], logging.WARNING))
    logging.getLogger("asyncio").setLevel(max(LEVELS[level], logging.WARNING))
