"""The entry point: opens the registries that can have a reference."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from wherry.model.credentials import ANONYMOUS, Credentials
from wherry.model.reference import DEFAULT_DOMAIN, Reference
from wherry.registry.config import HUB_HOST, HUB_NAMES, Blocked, RegistryConfig, RegistryPlace, places
from wherry.registry.errors import BLOCKED, RegistryError
from wherry.registry.fetch import Fetcher
from wherry.registry.repository import Repository
from wherry.registry.transport import Session, TlsContexts
from wherry.storage.content import ContentStore


class Distribution:
    """Lives as long as the daemon; used on the loop only."""

    def __init__(self, config: RegistryConfig, content: ContentStore) -> None:
        self.config = config
        self.fetcher = Fetcher(content)
        self._tls = TlsContexts(config.certificates)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Connections for one operation."""
        async with Session(self.config, self._tls) as session:
            yield session

    async def open(
        self,
        session: Session,
        reference: Reference,
        credentials: Iterable[Credentials],
        *,
        actions: str = "pull",
    ) -> Sequence[Repository]:
        """The repositories that may have a reference: mirrors first (only for pulls), the registry itself
        last.

        :param credentials: each is used only for its own registry.
        :raises RegistryError: the registry is blocked.
        """
        try:
            found = places(self.config, reference, mirrors=actions == "pull")
        except Blocked as e:
            raise RegistryError(e.host, BLOCKED, "the daemon's configuration blocks it") from e
        known = {key_of(one.server or reference.domain): one for one in credentials if one}
        return [
            Repository(
                session,
                place,
                await session.base(place.host, insecure=place.insecure, scheme=place.scheme),
                _credentials(place, known),
                actions=actions,
            )
            for place in found
        ]

    async def open_host(
        self, session: Session, host: str, credentials: Credentials, *, offline: bool = False
    ) -> Repository:
        """A registry itself, without a repository.

        :param offline: ask for a token that remains valid after this operation.
        :raises RegistryError: the registry is blocked.
        """
        rule = self.config.rule_for(host)
        if rule is not None and rule.blocked:
            raise RegistryError(host, BLOCKED, "the daemon's configuration blocks it")
        name = HUB_HOST if host == DEFAULT_DOMAIN else host
        insecure = self.config.is_insecure(name) or (rule is not None and rule.insecure)
        place = RegistryPlace(name, "", insecure)
        base = await session.base(name, insecure=insecure)
        return Repository(session, place, base, credentials, actions="", offline=offline)


def _credentials(place: RegistryPlace, known: Mapping[str, Credentials]) -> Credentials:
    if place.userinfo is not None:
        return Credentials(*place.userinfo)
    return known.get(key_of(place.host), ANONYMOUS)


def key_of(server: str) -> str:
    """The name under which a registry's credentials are stored: its host, however it was written.

    ``https://index.docker.io/v1/`` is ``docker.io``.
    """
    host = server.partition("://")[2] or server
    host = host.partition("/")[0].lower()
    return "docker.io" if host in HUB_NAMES else host
