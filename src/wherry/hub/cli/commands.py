"""Run a command, and handle its errors."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from wherry import __version__
from wherry.errors import WherryError
from wherry.hub.cli import (
    accounts,
    config,
    copies,
    orgs,
    proxies,
    replications,
    repositories,
    rules,
    takeover,
    teams,
    upkeep,
    webhooks,
)
from wherry.hub.cli.config import HubConfig


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wherry-hub", description="A container registry.")
    parser.add_argument("--version", action="version", version=f"wherry-hub {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    serve = commands.add_parser("serve", help="serve the registry")
    config.arguments(serve, serving=True)
    serve.set_defaults(run=_serve, serving=True)
    for module in (
        accounts,
        orgs,
        repositories,
        rules,
        upkeep,
        copies,
        takeover,
        teams,
        proxies,
        replications,
        webhooks,
    ):
        module.add(commands)
    return parser


async def _serve(given: argparse.Namespace, settings: HubConfig) -> int:
    from wherry.hub.cli.serve import serve

    await serve(settings)
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run one command; the exit status."""
    given = _parser().parse_args(arguments)
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
