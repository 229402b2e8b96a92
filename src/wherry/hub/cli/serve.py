"""``wherry-hub serve``: the process that answers requests, and its background work."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import ssl
import sys
import time

from wherry import __version__, threads
from wherry.errors import InvalidArgument, Unavailable
from wherry.hub.auth import bearer
from wherry.hub.auth.bearer import LIFE, Tokens
from wherry.hub.auth.login import Logins
from wherry.hub.cli import stores
from wherry.hub.cli.config import HubConfig
from wherry.hub.registry import addresses
from wherry.hub.registry.addresses import Trusted
from wherry.hub.registry.context import Hub
from wherry.hub.registry.flights import Flights
from wherry.hub.registry.limits import RequestLimits
from wherry.hub.registry.proxying import HubProxies
from wherry.hub.registry.server import Other, RegistryServer
from wherry.hub.remote.issuers import Issuers
from wherry.hub.store.objects import Objects
from wherry.hub.store.sql import HubDatabase
from wherry.hub.worker.rounds import Rounds

log = logging.getLogger(__name__)
_REVOCATIONS = 2.0
"""Seconds between two reads of revocations."""
_PULLS = 10.0
_DRAIN = 30.0
"""Seconds that running requests have when the process is told to stop."""


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logs(level: str, form: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Json() if form == "json" else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("botocore").setLevel(logging.WARNING)
    logging.getLogger("aiobotocore").setLevel(logging.WARNING)


async def serve(config: HubConfig) -> None:
    """Run until SIGTERM or SIGINT."""
    began = time.monotonic()
    configure_logs(config.log_level, config.log_format)
    loop = asyncio.get_running_loop()
    threads.install(loop)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    context = _tls(config)
    if context is not None:
        loop.add_signal_handler(signal.SIGHUP, _reload, context, config)
    async with stores.stores(config) as (db, objects):
        rounds = Rounds()
        try:
            if "worker" in config.role:
                _work(config, rounds, db, objects)
            if config.role & {"registry", "web"}:
                await _answer(config, rounds, db, objects, context, stopping, began)
            else:
                log.info("wherry-hub %s runs background work on %s", __version__, db.describe())
                await stopping.wait()
        finally:
            await rounds.stop()
    log.info("stopped")


def _work(config: HubConfig, rounds: Rounds, db: HubDatabase, objects: Objects) -> None:
    # A process that only answers requests does not load them.
    from wherry.hub.worker import retention
    from wherry.hub.worker.collector import HubCollector
    from wherry.hub.worker.deliveries import Deliveries
    from wherry.hub.worker.facts import ImageFacts, sum_up
    from wherry.hub.worker.replication import Replication

    collector = HubCollector(db, objects, config.settings())
    rounds.every(max(1, config.collect_every), "collect", collector.run)
    rounds.every(2, "deliver webhooks", Deliveries(db, config.webhook_rules()).run)
    rounds.every(3600, "apply the rules for tags", lambda: retention.run(db, config.settings()))
    replication = Replication(db, objects, config.settings(), config.proxy_rules())
    rounds.every(max(1, config.replicate_every), "replicate", replication.run)
    rounds.every(
        max(1, config.collect_every), "delete expired tags", lambda: retention.expire(db, config.settings())
    )
    rounds.every(max(1, config.collect_every), "read the platforms of images", ImageFacts(db, objects).run)
    rounds.every(900, "sum up pulls", lambda: sum_up(db))
    rounds.every(600, "delete old copies", lambda: collector.forget_copies())
    rounds.every(60, "delete old revocations", lambda: collector.forget(time.time() - 4 * LIFE))


async def _answer(
    config: HubConfig, rounds: Rounds, db: HubDatabase, objects: Objects, context: ssl.SSLContext | None,
    stopping: asyncio.Event, began: float,
) -> None:  # fmt: skip
    hub = await assemble(config, db, objects)
    api, pages = await _for_people(config, rounds, hub) if "web" in config.role else (None, None)
    registry = RegistryServer(hub, registry="registry" in config.role, api=api, pages=pages)
    rounds.every(_REVOCATIONS, "read revocations", lambda: hub.tokens.refresh(db))
    rounds.every(_PULLS, "count pulls", lambda: hub.counters.flush(db))
    listening = _listen(config)
    server = await asyncio.get_running_loop().create_server(registry.http, sock=listening, ssl=context)
    host, port = listening.getsockname()[:2]
    log.info(
        "wherry-hub %s serves http%s://%s:%s (%s; %s) after %.0f ms",
        __version__, "s" if context else "", f"[{host}]" if ":" in host else host, port,
        db.describe(), objects.describe(), (time.monotonic() - began) * 1e3,
    )  # fmt: skip
    try:
        await stopping.wait()
        log.info("stopping")
    finally:
        server.close()
        await registry.server.shutdown(_DRAIN)
        await hub.flights.close()
        await hub.proxies.close()
        await hub.counters.flush(db)


async def _for_people(config: HubConfig, rounds: Rounds, hub: Hub) -> tuple[Other, Other]:
    # A process that serves no pages does not load Django.
    from wherry.hub.api.server import JsonApi
    from wherry.hub.cli import pages

    return JsonApi(hub, config.webhook_rules()), await pages.assemble(config, rounds, hub)


async def assemble(config: HubConfig, db: HubDatabase, objects: Objects) -> Hub:
    tokens = Tokens(config.service)
    await db.write(bearer.ensure_key)
    await tokens.refresh(db)
    proxies = HubProxies(db, config.settings(), config.proxy_rules())
    return Hub(
        db=db,
        objects=objects,
        settings=config.settings(),
        tokens=tokens,
        logins=Logins(db, Issuers(config.proxy_rules())),
        proxies=proxies,
        flights=Flights(proxies, db, objects, config.settings()),
        url=config.url.rstrip("/"),
        redirect=config.redirect,
        accel=config.accel_prefix,
        limits=RequestLimits(config.pull_limit, config.pull_limit_account),
        trusted=Trusted(addresses.networks(config.trusted_proxies)),
    )


def _listen(config: HubConfig) -> socket.socket:
    """:raises Unavailable: the address is in use, or does not belong to this host."""
    host, port = config.listen
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(1024)
            listening.setblocking(False)
        except BaseException:
            listening.close()
            raise
    except OSError as e:
        raise Unavailable(f"cannot listen on {host}:{port}: {e.strerror or e}") from e
    return listening


def _reload(context: ssl.SSLContext, config: HubConfig) -> None:
    """At SIGHUP: load a renewed certificate for new connections."""
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except (OSError, ssl.SSLError) as e:
        log.error(
            "cannot use %s and %s, the previous certificate stays in use: %s",
            config.tls_cert,
            config.tls_key,
            e,
        )
    else:
        log.info("certificate reloaded")


def _tls(config: HubConfig) -> ssl.SSLContext | None:
    if not config.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except (OSError, ssl.SSLError) as e:
        raise InvalidArgument(f"cannot use {config.tls_cert} and {config.tls_key}: {e}") from e
    return context
