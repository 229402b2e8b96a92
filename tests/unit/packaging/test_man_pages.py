"""Man pages are made from the tables that help reads."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from wherry.cli import commands
from wherry.daemon.configfile import ConfigFile
from wherry.daemon.flags import make_parser

sys.path.insert(0, str(Path(__file__).parents[3] / "packaging"))
import man

PAGES = man.pages()


@pytest.mark.parametrize("entry", [one for one in commands.TABLE if not one.hidden], ids=lambda e: e.paths[0])
def test_every_command_has_its_flags(entry: commands.TableEntry) -> None:
    page = PAGES[f"man1/wherry-{entry.paths[0].replace(' ', '-')}.1"]
    for flag in commands.load(entry).flags:
        wanted = rf"^\.B .*--{re.escape(flag.name)}( |$)"
        shown = page.replace("\\-", "-")
        assert bool(re.search(wanted, shown, re.MULTILINE)) is not flag.hidden, flag.name
    for path in entry.paths[1:]:
        alias = PAGES[f"man1/wherry-{path.replace(' ', '-')}.1"]
        assert alias == f".so man1/wherry-{entry.paths[0].replace(' ', '-')}.1\n"


def test_the_daemon_and_its_file() -> None:
    for action in make_parser()._actions:
        for flag in action.option_strings:
            if action.help != "==SUPPRESS==":
                assert flag.replace("-", "\\-") in PAGES["man8/wherryd.8"]
    for key in ConfigFile.__struct_encode_fields__:
        assert f".B {key}\n".replace("-", "\\-") in PAGES["man5/wherry-daemon.json.5"]


def test_no_text_is_taken_for_a_request() -> None:
    """A line that begins with a dot is one of ours (groff(7))."""
    known = re.compile(r"\.(TH|SH|TP|BR|B|I|br|so)( |$)")
    wrong = [line for text in PAGES.values() for line in text.splitlines() if line[:1] in (".", "'")]
    assert [line for line in wrong if not known.match(line)] == []


@pytest.mark.parametrize(
    ("text", "shown"), [("a-b", "a\\-b"), (".x", "\\&.x"), ("'q", "\\&'q"), ("a\\n", "a\\en")]
)
def test_what_roff_would_read_is_escaped(text: str, shown: str) -> None:
    assert man.escaped(text) == shown
