"""Build the API from all routes."""

from __future__ import annotations

from wherry.api import upgrades
from wherry.api.router import Route
from wherry.api.routes import (
    backup,
    building,
    commit,
    containers,
    diskusage,
    files,
    images,
    lost,
    missing,
    networks,
    registries,
    secrets,
    stats,
    streams,
    system,
    volumeregistry,
    volumes,
    volumeversions,
)
from wherry.api.server import ApiServer
from wherry.api.upgrades import Http2
from wherry.engine.engine import Engine

MODULES = (
    system,
    lost,
    diskusage,
    backup,
    building,
    containers,
    files,
    commit,
    streams,
    stats,
    images,
    registries,
    volumes,
    volumeversions,
    volumeregistry,
    networks,
    secrets,
    missing,
)


def make_server(engine: Engine, http2: Http2) -> ApiServer:
    """The application that serves ``engine``; listeners use it.

    :param http2: receives the connections on which clients want to speak HTTP/2.
    """
    return ApiServer(engine, routes(http2))


def routes(http2: Http2) -> list[Route]:
    """Every route; the first that fits answers."""
    found = [route for module in MODULES for route in module.ROUTES]
    return [*upgrades.routes(http2), *found]
