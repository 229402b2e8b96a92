"""Lines of the daemon's own log."""

from __future__ import annotations

import json
import logging

import pytest

from wherry.daemon.logs import JsonFormatter, LogfmtFormatter

HOSTILE = 'a "b"\nlevel=error msg=forged\x1b[2J\x9b31m\u202eover\x7f\udcff'


@pytest.mark.parametrize("formatter", [LogfmtFormatter(), JsonFormatter()])
def test_an_event_is_one_line_and_does_nothing_to_a_terminal(formatter: logging.Formatter) -> None:
    text = formatter.format(logging.makeLogRecord({"msg": "%s", "args": (HOSTILE,), "name": "wherry.api.x"}))
    assert text.isprintable()
    told = (
        text if isinstance(formatter, JsonFormatter) else text[text.index("msg=") + 4 : text.rindex(" room=")]
    )
    found = json.loads(told)
    assert (found["msg"] if isinstance(found, dict) else found) == HOSTILE


def test_words_of_other_languages_stay() -> None:
    text = LogfmtFormatter().format(
        logging.makeLogRecord({"msg": "größer als möglich", "name": "wherry.api"})
    )
    assert 'msg="größer als möglich"' in text
