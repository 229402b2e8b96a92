"""Command-line flags as Docker's users type them (the rules of Go's ``pflag``), without :mod:`argparse`.

``argparse`` cannot express them: it abbreviates long names, has no ``--rm=false``, has other error messages,
and takes 7 ms to import. The rules:

- ``--name value``, ``--name=value``, ``-n value``, ``-nvalue``, ``-n=value``; booleans only after ``=``;
- short flags cluster: ``-it`` is ``-i -t``, and the first that takes a value takes the rest;
- ``--`` ends the flags; a command with ``interspersed`` False ends them at its first argument too.
"""

from __future__ import annotations

from wherry.cli.grammar.values import BOOL
from wherry.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from wherry.cli.grammar.values import Kind


class FlagError(InvalidArgument):
    """The flags cannot be parsed; shown with the usage line."""


class HelpWanted(Exception):
    """``--help`` was given."""


class Flag:
    """One flag: ``name`` without dashes, ``short`` letter or empty, its kind, a help text.

    ``default`` is what is returned when the flag is absent; ``shown`` is the default that help prints.
    ``complete`` names what its values are, for completion: ``container``, ``context``, ``image``,
    ``network``, ``volume``, ``file``, or words separated by spaces. ``hidden`` flags work and are not in
    help.
    """

    __slots__ = ("complete", "default", "hidden", "kind", "name", "short", "shown", "text")

    def __init__(
        self,
        name: str,
        short: str,
        kind: Kind,
        text: str,
        *,
        default: Any = None,
        shown: str = "",
        complete: str = "",
        hidden: bool = False,
    ) -> None:
        self.name, self.short, self.kind, self.text = name, short, kind, text
        self.default = kind.empty if default is None else default
        self.shown, self.complete, self.hidden = shown, complete, hidden

    @property
    def display(self) -> str:
        """``-m, --memory``, as error messages name a flag."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class Options:
    """Parsed flags, accessed by their long names."""

    __slots__ = ("_flags", "_values")

    def __init__(self, flags: Iterable[Flag]) -> None:
        self._flags = {flag.name: flag for flag in flags}
        self._values: dict[str, Any] = {}

    def set(self, flag: Flag, text: str) -> None:
        """:raises FlagError: the text is not a valid value of the flag's kind."""
        try:
            value = flag.kind.parse(text)
        except ValueError as e:
            raise FlagError(f'invalid argument "{text}" for "{flag.display}" flag: {e}') from e
        if flag.kind.repeats:
            held = self._values.setdefault(flag.name, [])
            held.extend(value if flag.kind.splits else [value])
        else:
            self._values[flag.name] = value

    def extend(self, name: str, values: list[Any]) -> None:
        """Add the values given under an older name to a repeated flag."""
        self._values.setdefault(name, []).extend(values)

    def __contains__(self, name: str) -> bool:
        """Whether the command has such a flag."""
        return name in self._flags

    def given(self, name: str) -> bool:
        """Whether the flag was on the command line at all."""
        return name in self._values

    @property
    def any_given(self) -> bool:
        """Whether any flag was given."""
        return bool(self._values)

    def get(self, name: str) -> Any:
        flag = self._flags[name]
        if name in self._values:
            return self._values[name]
        return [] if flag.kind.repeats else flag.default

    def on(self, name: str) -> bool:
        return bool(self.get(name))

    def text(self, name: str) -> str:
        return str(self.get(name))

    def number(self, name: str) -> int:
        return int(self.get(name))

    def many(self, name: str) -> list[str]:
        values: list[str] = self.get(name)
        return values

    def pairs(self, name: str) -> dict[str, str]:
        """A repeated ``key=value`` flag as a mapping; the last of several wins."""
        return dict(self.get(name))

    def filters(self, name: str = "filter") -> dict[str, list[str]]:
        """A repeated filter flag: several values of one key are alternatives."""
        collected: dict[str, list[str]] = {}
        for key, value in self.get(name):
            collected.setdefault(key, []).append(value)
        return collected


def parse(
    flags: Sequence[Flag], argv: Sequence[str], *, interspersed: bool = True
) -> tuple[Options, list[str]]:
    """Split ``argv`` into flags and arguments.

    :raises FlagError: an unknown flag, a missing or malformed value.
    :raises HelpWanted: ``--help``, or ``-h`` if the command has no such flag.
    """
    options = Options(flags)
    long = {flag.name: flag for flag in flags}
    short = {flag.short: flag for flag in flags if flag.short}
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return options, words + rest
        if word.startswith("--"):
            _long(options, long, word, rest)
        elif word.startswith("-") and word != "-":
            _cluster(options, short, word, rest)
        elif interspersed:
            words.append(word)
        else:
            return options, [word, *rest]
    return options, words


def _long(options: Options, flags: dict[str, Flag], word: str, rest: list[str]) -> None:
    name, equals, value = word[2:].partition("=")
    if not name or name.startswith("-"):
        raise FlagError(f"bad flag syntax: {word}")
    if name not in flags:
        if name == "help":
            raise HelpWanted
        raise FlagError(f"unknown flag: --{name}{_hint(name, flags)}")
    flag = flags[name]
    if equals:
        options.set(flag, value)
    elif flag.kind is BOOL:
        options.set(flag, "true")
    elif rest:
        options.set(flag, rest.pop(0))
    else:
        raise FlagError(f"flag needs an argument: --{name}")


def _hint(name: str, flags: dict[str, Flag]) -> str:
    from difflib import get_close_matches

    known = [flag for flag, found in flags.items() if not found.hidden]
    close = get_close_matches(name[:64], known, n=3, cutoff=0.7)
    return "\n\nDid you mean this?\n" + "\n".join(f"\t--{flag}" for flag in close) if close else ""


def _cluster(options: Options, flags: dict[str, Flag], word: str, rest: list[str]) -> None:
    letters = word[1:]
    while letters:
        letter, tail = letters[0], letters[1:]
        if letter not in flags:
            if letter == "h":
                raise HelpWanted
            raise FlagError(f"unknown shorthand flag: '{letter}' in -{letters}")
        flag = flags[letter]
        if tail.startswith("="):
            options.set(flag, tail[1:])
            return
        if flag.kind is BOOL:
            options.set(flag, "true")
            letters = tail
            continue
        if tail:
            options.set(flag, tail)
        elif rest:
            options.set(flag, rest.pop(0))
        else:
            raise FlagError(f"flag needs an argument: '{letter}' in -{letters}")
        return
