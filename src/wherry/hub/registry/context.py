"""The context that every endpoint uses."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiohttp import web

from wherry.hub.auth.bearer import Tokens
from wherry.hub.auth.login import Logins
from wherry.hub.core.rights import Principal
from wherry.hub.registry.addresses import Trusted
from wherry.hub.registry.counting import Counters
from wherry.hub.registry.flights import Flights
from wherry.hub.registry.hashes import RunningHashes
from wherry.hub.registry.limits import RequestLimits
from wherry.hub.registry.proxying import HubProxies
from wherry.hub.store.objects import Objects
from wherry.hub.store.settings import HubSettings
from wherry.hub.store.sql import HubDatabase


@dataclass(frozen=True)
class Hub:
    """:ivar url: how clients reach this hub from outside, without a slash at the end; empty: as in the
    request.
    :ivar redirect: seconds for which a redirect to a blob in the object store is valid; 0: no redirects.
    :ivar accel: the prefix under which a front proxy sends our objects itself (X-Accel-Redirect); empty: not
        used.
    """

    db: HubDatabase
    objects: Objects
    settings: HubSettings
    tokens: Tokens
    logins: Logins
    proxies: HubProxies
    flights: Flights
    url: str = ""
    redirect: int = 0
    accel: str = ""
    trusted: Trusted = field(default_factory=Trusted)
    limits: RequestLimits = field(default_factory=RequestLimits)
    counters: Counters = field(default_factory=Counters)
    running: RunningHashes = field(default_factory=RunningHashes)


@dataclass(frozen=True)
class Ask:
    """One request: the principal, the repository, and the last part of its path."""

    hub: Hub
    request: web.BaseRequest
    caller: Principal
    name: str
    reference: str

    @property
    def query(self) -> dict[str, str]:
        return dict(self.request.query)

    @property
    def account(self) -> int | None:
        return self.caller.account
