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
    stats,
    streams,
    system,
    volumes,
    volumeversions,
)
from wherry.api.server import ApiServer
from wherry.api.services import Services


def make_server(services: Services) -> ApiServer:
    """The API of ``services``, ready to be given to listeners."""
    modules = (
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
        networks,
        missing,
    )
    return ApiServer(services, [route for module in modules for route in module.ROUTES])
