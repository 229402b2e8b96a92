"""Run a command, and handle its errors."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
from collections.abc import Sequence

from wherry import __version__
from wherry.errors import WherryError
from wherry.hub.cli import config
from wherry.hub.cli.config import HubConfig

_MODULES = {
    "accounts": ("account", "token"),
    "orgs": ("org",),
    "repositories": ("repository", "tag", "undelete"),
    "rules": ("rule",),
    "upkeep": ("migrate", "gc", "rotate-key", "events"),
    "copies": ("fsck", "backup", "restore"),
    "takeover": ("import",),
    "teams": ("team", "robot", "trust"),
    "proxies": ("proxy",),
    "replications": ("replication",),
    "webhooks": ("webhook",),
}
"""Module -> its commands. A process imports what its command needs: a server keeps none of the others."""


def make_parser(word: str) -> argparse.ArgumentParser:
    """:param word: the requested command; if it is unknown, the parser has all commands, for its help."""
    parser = argparse.ArgumentParser(prog="wherry-hub", description="A container registry.")
    parser.add_argument("--version", action="version", version=f"wherry-hub {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    serve = commands.add_parser("serve", help="serve the registry")
    config.arguments(serve, serving=True)
    serve.set_defaults(run=_serve, serving=True)
    known = word == "serve" or any(word in words for words in _MODULES.values())
    for module, words in _MODULES.items():
        if word in words or not known:
            importlib.import_module(f"wherry.hub.cli.{module}").add(commands)
    return parser


async def _serve(given: argparse.Namespace, settings: HubConfig) -> int:
    from wherry.hub.cli.serve import serve

    await serve(settings)
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run one command; the exit status."""
    given = make_parser(arguments[0] if arguments else "").parse_args(arguments)
    try:
        settings = config.load(given, config.environment(), serving=getattr(given, "serving", False))
        status: int = asyncio.run(given.run(given, settings))
    except WherryError as e:
        print(f"wherry-hub: {e.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    return status
