"""The registry settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wherry.errors import InvalidArgument
from wherry.model import reference
from wherry.registry import config as registry
from wherry.registry.config import PrefixRule, RegistryConfig

_MOST = 100


def configured(merged: dict[str, Any]) -> RegistryConfig:
    """:raises InvalidArgument: an invalid value; the text names its key."""
    rules = {}
    for prefix, given in (merged["registries"] or {}).items():
        rules[prefix] = PrefixRule(
            prefix=_prefix(prefix),
            location=_prefix(given.location) if given.location else "",
            mirrors=tuple(registry.check_mirror(url) for url in given.mirrors),
            insecure=given.insecure,
            blocked=given.blocked,
        )
    if merged["registry_mirrors"]:
        _add_mirrors(rules, merged["registry_mirrors"])
    for prefix in merged["blocked_registries"] or ():
        rules[prefix] = PrefixRule(prefix=_prefix(prefix), blocked=True)
    return RegistryConfig(
        rules=tuple(rules.values()),
        insecure=tuple(registry.check_insecure(entry) for entry in merged["insecure_registries"] or ()),
        proxies=registry.proxies_from(merged["proxies"], os.environ),
        certificates=(Path(certs),) if (certs := merged["registry_certs"]) else registry.CERTS,
        downloads=_count(merged, "max_concurrent_downloads", registry.DOWNLOADS),
        uploads=_count(merged, "max_concurrent_uploads", registry.UPLOADS),
        attempts=_count(merged, "max_download_attempts", registry.ATTEMPTS),
        timeout=_count(merged, "registry_timeout", registry.TIMEOUT, most=3600),
    )


def _add_mirrors(rules: dict[str, PrefixRule], urls: list[str]) -> None:
    """``registry-mirrors`` mirror Docker Hub; only a host without a path, as with Docker."""
    hub = rules.get(reference.DEFAULT_DOMAIN)
    if hub is not None and hub.mirrors:
        raise InvalidArgument("mirrors of docker.io are in both registry-mirrors and registries")
    for url in urls:
        if urlsplit(registry.check_mirror(url)).path:
            raise InvalidArgument(f"invalid mirror: {url!r}: path, query, or fragment at end of the URI")
    rules[reference.DEFAULT_DOMAIN] = PrefixRule(
        prefix=reference.DEFAULT_DOMAIN,
        location=hub.location if hub is not None else "",
        mirrors=tuple(url.rstrip("/") for url in urls),
        insecure=hub is not None and hub.insecure,
        blocked=hub is not None and hub.blocked,
    )


def _prefix(text: str) -> str:
    """A host, with or without the beginning of a path."""
    host, _, path = text.partition("/")
    probe = f"{host}/{path or 'x'}"
    parsed = reference.parse(probe)
    if parsed.name != probe or parsed.tag or parsed.digest:
        raise InvalidArgument(f"invalid registry {text!r}: expected HOST[:PORT][/PATH]")
    return text


def _count(merged: dict[str, Any], key: str, default: int, *, most: int = _MOST) -> int:
    value: int | None = merged[key]
    if value is None:
        return default
    if not 1 <= value <= most:
        raise InvalidArgument(f"invalid {key.replace('_', '-')} {value}: it must be from 1 to {most}")
    return value
