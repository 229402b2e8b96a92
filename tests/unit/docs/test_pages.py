"""The pages: what they link to is there, and what they tell people to type is understood."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherry.cli import commands
from wherry.cli.grammar.flags import FlagError, HelpWanted, parse
from wherry.cli.main import global_flags
from wherry.daemon import refused
from wherry.daemon.flags import make_parser
from wherry.errors import InvalidArgument
from wherry.hub.cli.commands import make_parser as hub_parser

TOP = Path(__file__).resolve().parents[3]
PAGES = [TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted((TOP / "docs").glob("*.md"))]
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_INLINE = re.compile(r"`((?:wherry|wherryd|wherry-hub|make) [^`\n]+)`")
_PROGRAMS = ("wherry", "wherryd", "wherry-hub", "make")


def ids(path: Path) -> str:
    return path.name


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub names them."""
    found = set()
    for heading in _HEADING.findall(_FENCE.sub("", page.read_text())):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        found.add(re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    for match in _LINK.finditer(_FENCE.sub("", page.read_text())):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{page.name}: {target}"
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), f"{page.name}: {target}"


def shown(page: Path) -> Iterator[str]:
    """Every command line of ours, without the words beside it that explain it."""
    text = page.read_text()
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if re.match(r" {4}\S", line):
            for part in re.split(r"\s{2,}|\s#\s|\s[|;&<>]{1,2}\s", line.strip().removeprefix("$ ")):
                if part.partition(" ")[0] in _PROGRAMS:
                    yield part
    yield from (match[1] for match in _INLINE.finditer(text))


def words_of(line: str) -> list[str]:
    """``[--flag VALUE]`` as if it were given; an ellipsis is nothing; the first of alternatives."""
    plain = re.sub(r"(?<=\w)\[\S*\]", "", line)
    plain = re.sub(r"(\w)\|[\w|\-]+", r"\1", plain)
    plain = re.sub(r"[\[\]…]|\.\.\.", " ", plain).replace(" , ", " ")
    return [word.rstrip(",") for word in shlex.split(plain) if word.strip(",")]


def understood(words: list[str]) -> None:
    """:raises InvalidArgument: no command of ours, or a flag that it does not have."""
    program, rest = words[0], words[1:]
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(), re.MULTILINE)
        asked = [word for word in rest if "=" not in word and not word.startswith("-")]
        missing = [word for word in asked if word not in targets]
        if missing:
            raise InvalidArgument(f"no target {missing[0]}")
    elif program == "wherryd":
        parser = make_parser()
        known = {text for action in parser._actions for text in action.option_strings}
        known -= {f"--{name}" for name in refused.FLAGS}
        unknown = [w for w in rest if w.startswith("--") and w.partition("=")[0] not in known]
        if unknown and rest[0] != "doctor":
            raise InvalidArgument(f"unknown flag {unknown[0]}")
    elif program == "wherry":
        _client(rest)
    else:
        _hub(rest)


def _client(words: list[str]) -> None:
    _, words = parse(global_flags(), words, interspersed=False)
    if not words:
        return
    group = commands.group_flags(words[0])
    if group:
        _, rest = parse(group, words[1:], interspersed=False)
        words = [words[0], *rest]
    found = commands.find(words)
    if found.entry is None:
        if found.used < len(words) and not words[found.used].isupper():
            raise InvalidArgument(f"no command {' '.join(words)}")
        return
    command = commands.load(found.entry)
    try:
        parse(command.flags, words[found.used :], interspersed=command.interspersed)
    except HelpWanted:
        return
    except FlagError as e:
        if "invalid" not in e.message and "argument" not in e.message:  # a placeholder instead of a value
            raise


def _hub(words: list[str]) -> None:
    parser = hub_parser(words[0])
    known: dict[str, object] = {}
    current = parser
    while words:
        subs = next((a for a in current._actions if isinstance(a, argparse._SubParsersAction)), None)
        known |= {text: action for action in current._actions for text in action.option_strings}
        if subs is None or words[0] not in subs.choices:
            break
        current = subs.choices[words.pop(0)]
    known |= {text: action for action in current._actions for text in action.option_strings}
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    if unknown or current is parser:
        raise InvalidArgument(f"not understood: {' '.join(unknown or words)}")


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_what_is_shown_is_understood(page: Path) -> None:
    wrong = []
    for line in shown(page):
        try:
            understood(words_of(line))
        except (InvalidArgument, ValueError) as e:
            wrong.append(f"{line}: {e}")
    assert not wrong, "\n".join(wrong)


def test_the_check_notices() -> None:
    wrong = (
        "wherry runn x",
        "wherry run --nothing x",
        "wherryd --nothing",
        "wherry-hub nothing",
        "make nothing",
    )
    for line in wrong:
        with pytest.raises(InvalidArgument):
            understood(words_of(line))
