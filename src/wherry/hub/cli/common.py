"""What the commands share: groups of commands, one change or one look at the rows, and tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from wherry.errors import InvalidArgument
from wherry.hub.cli import config, stores
from wherry.hub.cli.config import HubConfig
from wherry.hub.cli.tables import table
from wherry.hub.store import events
from wherry.hub.store.sql import Tx

if TYPE_CHECKING:
    from wherry.hub.remote.registry import RemoteAccount

T = TypeVar("T")
Commands = Any  # argparse's own type has no public name
Run = Callable[[argparse.Namespace, HubConfig], Awaitable[int]]
ACTOR = "(command line)"


def group(commands: Commands, word: str, text: str) -> Commands:
    """A command that has commands of its own."""
    return commands.add_parser(word, help=text).add_subparsers(
        dest="subcommand", metavar="COMMAND", required=True
    )


def command(inside: Commands, word: str, text: str, run: Run, *arguments: str) -> argparse.ArgumentParser:
    """One command, with positional arguments. ``name=SHOWN`` is one that the help calls SHOWN."""
    parser: argparse.ArgumentParser = inside.add_parser(word, help=text)
    for one in arguments:
        name, _, shown_as = one.partition("=")
        parser.add_argument(name, metavar=shown_as or None)
    finish(parser, run)
    return parser


def finish(parser: argparse.ArgumentParser, run: Run) -> None:
    config.arguments(parser)
    parser.set_defaults(run=run)


async def change(settings: HubConfig, work: Callable[[Tx], T]) -> T:
    """Change rows. :returns: what ``work`` returns."""
    async with stores.database(settings) as db:
        return await db.write(work)


async def look(settings: HubConfig, work: Callable[[Tx], T]) -> T:
    """Read rows."""
    async with stores.database(settings) as db:
        return await db.scan(work)


def shown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Print a table. :returns: the exit status."""
    print(table(heads, rows))
    return 0


def note(tx: Tx, action: str, repository: str = "", **detail: Any) -> None:
    """Record an event of the operator's."""
    events.note(tx, ACTOR, "", action, repository, **detail)


def by_number(inside: Commands, word: str, text: str, run: Run, name: str = "id") -> None:
    """A command for what has a number."""
    parser = inside.add_parser(word, help=text)
    parser.add_argument(name, type=int)
    finish(parser, run)


def removal(noun: str, remove: Callable[[Tx, int], object]) -> Run:
    """The command that removes a row by its number."""

    async def run(given: argparse.Namespace, settings: HubConfig) -> int:
        def work(tx: Tx) -> None:
            remove(tx, given.id)
            note(tx, f"{noun}.remove", **{noun: given.id})

        await change(settings, work)
        print(f"{noun} {given.id} removed")
        return 0

    return run


def remote_flags(parser: argparse.ArgumentParser) -> None:
    """Flags for the account at another registry; :func:`remote_account` reads them."""
    parser.add_argument("--username", default="", help="account at the other registry")
    parser.add_argument("--password-stdin", action="store_true", help="read its password from stdin")
    parser.add_argument(
        "--realm", default="", metavar="URL", help="the token service that may receive the password"
    )


async def remote_account(given: argparse.Namespace, url: str) -> RemoteAccount:
    """:raises InvalidArgument: a user name without a password, or a password without a user name."""
    from wherry.hub.remote.registry import account_for

    password = sys.stdin.readline().rstrip("\r\n") if given.password_stdin else ""
    if bool(given.username) != bool(password):
        raise InvalidArgument("--username and --password-stdin must be used together")
    return await account_for(url, given.username, password, given.realm)


def moment(seconds: int | None) -> str:
    """For people, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M") if seconds is not None else "never"
