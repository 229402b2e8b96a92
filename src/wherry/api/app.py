"""All routes together."""

from __future__ import annotations

from wherry.api.routes import (
    build,
    commit,
    containers,
    files,
    images,
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
from wherry.api.services import Services

MODULES = (
    system,
    build,
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


def make_server(services: Services) -> ApiServer:
    """The API of ``services``, ready to be given to listeners."""
    return ApiServer(services, [route for module in MODULES for route in module.ROUTES])
