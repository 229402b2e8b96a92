"""``wherry-hub import``: copy the content of another registry."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wherry.errors import InvalidArgument
from wherry.hub.cli import stores
from wherry.hub.cli.common import Commands, finish, remote_account, remote_flags
from wherry.hub.cli.config import HubConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.hub.worker.sources import RegistrySource


def add(commands: Commands) -> None:
    one = commands.add_parser(
        "import", help="copy all images of a registry: a running one, or its data directory"
    )
    one.add_argument("source", help="http://HOST:PORT, https://HOST, or a directory")
    one.add_argument("--repository", metavar="PATTERN", default="*", help="team/*, * (default)")
    remote_flags(one)
    finish(one, _import)


async def _import(given: argparse.Namespace, settings: HubConfig) -> int:
    from wherry.hub.remote.registry import Registry, check_url
    from wherry.hub.worker.sources import Directory

    if "://" not in given.source:
        if given.username or given.password_stdin or given.realm:
            raise InvalidArgument("--username, --password-stdin and --realm are for running registries")
        return await _take(given, settings, Directory(Path(given.source)))
    url = check_url(given.source)
    async with Registry(url, await remote_account(given, url)) as source:
        return await _take(given, settings, source)


async def _take(given: argparse.Namespace, settings: HubConfig, source: RegistrySource) -> int:
    from wherry.hub.worker.takeover import Takeover

    async with stores.stores(settings) as (db, objects):
        work = Takeover(source, db, objects, settings.settings(), lambda line: print(line, flush=True))
        taken = await work.run(given.repository)
    for line in taken.failed:
        print(f"wherry-hub: {line}", file=sys.stderr)
    print(
        f"{taken.repositories} repositories, {taken.tags} tags, {taken.manifests} new manifests,"
        f" {taken.blobs} new blobs, {taken.size} bytes; {len(taken.failed)} failed"
    )
    return 1 if taken.failed else 0
