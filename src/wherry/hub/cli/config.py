"""The configuration: a TOML file, environment variables, flags; each overrides those before it.

A setting ``keep-deleted`` is ``keep-deleted = "7d"`` in the file, ``WHERRY_HUB_KEEP_DELETED`` in the
environment and ``--keep-deleted`` on the command line.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wherry.errors import InvalidArgument
from wherry.hub.core import reach
from wherry.hub.core.reach import Rules
from wherry.hub.registry import addresses
from wherry.hub.registry.addresses import Trusted
from wherry.hub.registry.limits import limit
from wherry.hub.store.settings import HubSettings

DEFAULT_ROOT = "/var/lib/wherry-hub"
ROLES = frozenset({"registry", "web", "worker"})
_DURATION = re.compile(r"([0-9]{1,9})(s|m|h|d)?", re.ASCII)
_UNITS = {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> int:
    """Seconds of ``90``, ``90s``, ``15m``, ``24h``, ``7d``. :raises InvalidArgument:"""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise InvalidArgument(f"invalid duration {text!r}: use 90s, 15m, 24h or 7d")
    return int(found[1]) * _UNITS[found[2]]


def duration_or_never(text: str) -> int | None:
    return None if text == "never" else duration(text)


def boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "yes", "no", "1", "0"):
        raise InvalidArgument(f"invalid value {text!r}: use true or false")
    return text.lower() in ("true", "yes", "1")


def listen(text: str) -> tuple[str, int]:
    """``127.0.0.1:5000``, ``[::1]:5000``. :raises InvalidArgument:"""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise InvalidArgument(f"invalid address {text!r}: use HOST:PORT")
    return host.strip("[]") or "0.0.0.0", int(port)


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def roles(text: str) -> frozenset[str]:
    found = frozenset(_words(text))
    if not found or not found <= ROLES:
        raise InvalidArgument(f"invalid role {text!r}: use {', '.join(sorted(ROLES))}")
    return found


def sign_up(text: str) -> str:
    if text not in ("open", "invitation", "closed"):
        raise InvalidArgument(f"invalid value {text!r}: use open, invitation or closed")
    return text


@dataclass(frozen=True)
class Setting:
    read: Callable[[str], Any]
    default: str
    help: str
    metavar: str = "VALUE"


SETTINGS: dict[str, Setting] = {
    "root": Setting(Path, DEFAULT_ROOT, "directory of the database and the objects", "DIR"),
    "database": Setting(str, "", "postgresql://… instead of SQLite below the root", "URL"),
    "objects": Setting(str, "", "s3://BUCKET/PREFIX instead of files below the root", "URL"),
}
"""The settings of every command."""
SERVING: dict[str, Setting] = {
    "listen": Setting(listen, "127.0.0.1:5000", "address to serve on", "HOST:PORT"),
    "role": Setting(
        roles, "registry,web,worker", "what this process does: registry, web (pages), worker", "ROLES"
    ),
    "url": Setting(
        str, "", "the hub's address for clients, if it differs from the one in their requests", "URL"
    ),
    "service": Setting(str, "wherry-hub", "the name of the token service", "NAME"),
    "tls-cert": Setting(str, "", "certificate chain, PEM", "FILE"),
    "tls-key": Setting(str, "", "its private key, PEM", "FILE"),
    "insecure-http": Setting(
        boolean, "false", "serve without TLS on an address that other machines can reach", "BOOL"
    ),
    "trusted-proxies": Setting(_words, "", "networks of front proxies whose headers are trusted", "CIDR,…"),
    "accel-prefix": Setting(
        str, "", "let a front proxy send objects: the prefix of X-Accel-Redirect", "PATH"
    ),
    "redirect": Setting(
        duration, "0", "redirect clients to the object store; how long its URLs are valid", "TIME"
    ),
    "grace": Setting(
        duration, "24h", "how long pushed content is kept until a manifest refers to it", "TIME"
    ),
    "keep-deleted": Setting(duration, "7d", "how long deleted content can be restored", "TIME"),
    "keep-untagged": Setting(
        duration_or_never, "90d", "how long an image is kept after its last tag has moved", "TIME|never"
    ),
    "trash": Setting(duration, "1h", "how long an object is kept after its row was deleted", "TIME"),
    "proxy-keep": Setting(
        duration, "30d", "how long a copy of another registry's image is kept after its last pull", "TIME"
    ),
    "proxy-networks": Setting(
        _words, "", "networks that other registries may redirect to, besides public addresses", "CIDR,…"
    ),
    "replicate-every": Setting(duration, "5s", "how often the worker looks for changes to copy", "TIME"),
    "collect-every": Setting(duration, "10s", "how often the worker looks for work", "TIME"),
    "public": Setting(boolean, "false", "whether repositories that are created by a push are public", "BOOL"),
    "pull-limit": Setting(limit, "", "limit of anonymous pulls from one network: 100/6h", "N/TIME"),
    "pull-limit-account": Setting(limit, "", "limit of pulls by one account", "N/TIME"),
    "webhook-http": Setting(boolean, "false", "whether webhooks may use plain http", "BOOL"),
    "webhook-networks": Setting(
        _words, "", "networks that webhooks may reach, besides public addresses", "CIDR,…"
    ),
    "title": Setting(str, "wherry hub", "the hub's name on its pages", "TEXT"),
    "sign-up": Setting(sign_up, "closed", "who can sign up: open, invitation or closed", "MODE"),
    "mail": Setting(str, "", "send mail: smtp://USER:PASSWORD@HOST, smtps://…, file:///DIR", "URL"),
    "mail-from": Setting(str, "", "the sender of mail", "ADDRESS"),
    "admin-second-factor": Setting(
        boolean, "true", "whether administrators need a second factor on pages", "BOOL"
    ),
    "oidc": Setting(str, "", "issuer of another service that people can sign in with", "URL"),
    "oidc-client": Setting(str, "", "the hub's client id there", "ID"),
    "oidc-secret": Setting(str, "", "its secret", "SECRET"),
    "oidc-name": Setting(str, "single sign-on", "what the button says", "TEXT"),
    "oidc-sign-up": Setting(boolean, "true", "whether people from there can get an account", "BOOL"),
    "log-level": Setting(str, "info", "debug, info, warning or error", "LEVEL"),
    "log-format": Setting(str, "text", "text or json", "FORMAT"),
}
"""Further settings of ``serve``."""


@dataclass(frozen=True)
class HubConfig:
    """The values as read; by name with ``_`` for ``-``."""

    values: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name.replace("_", "-")]
        except KeyError:
            raise AttributeError(name) from None

    def webhook_rules(self) -> Rules:
        """:raises InvalidArgument:"""
        return Rules(reach.networks(self.webhook_networks), self.webhook_http)

    def proxy_rules(self) -> Rules:
        """:raises InvalidArgument:"""
        return Rules(reach.networks(self.proxy_networks))

    def settings(self) -> HubSettings:
        usual = HubSettings()
        if "grace" not in self.values:
            return usual
        return HubSettings(
            grace=self.grace, keep_deleted=self.keep_deleted, keep_untagged=self.keep_untagged,
            trash=self.trash, proxy_keep=self.proxy_keep, public=self.public,
        )  # fmt: skip


def arguments(parser: argparse.ArgumentParser, *, serving: bool = False) -> None:
    """Add the flags."""
    parser.add_argument("--config", metavar="FILE", help="TOML file (default: hub.toml below the root)")
    for name, setting in {**SETTINGS, **(SERVING if serving else {})}.items():
        usual = f" (default: {setting.default})" if setting.default else ""
        parser.add_argument(f"--{name}", metavar=setting.metavar, help=f"{setting.help}{usual}")


def load(given: argparse.Namespace, environment: Mapping[str, str], *, serving: bool = False) -> HubConfig:
    """:raises InvalidArgument: an invalid value, or an unknown key in the file."""
    known = {**SETTINGS, **SERVING}
    root = given.root or environment.get("WHERRY_HUB_ROOT", DEFAULT_ROOT)
    file = _file(given.config or environment.get("WHERRY_HUB_CONFIG", ""), Path(root))
    for name in file:
        if name not in known:
            raise InvalidArgument(f"unknown setting in the configuration file: {name}")
    values: dict[str, Any] = {}
    # Every command needs the server's times of retention, so the whole file is read; only ``serve`` has the
    # flags.
    for name, setting in known.items():
        # A command may have an argument with the same name as a setting of the server.
        flag = serving or name in SETTINGS
        text = getattr(given, name.replace("-", "_"), None) if flag else None
        if text is None:
            text = environment.get("WHERRY_HUB_" + name.upper().replace("-", "_"))
        if text is None:
            text = file.get(name, setting.default)
        try:
            values[name] = setting.read(text)
        except InvalidArgument as e:
            raise InvalidArgument(f"{name}: {e.message}") from e
    return check(HubConfig(values), serving=serving)


def _file(path: str, root: Path) -> dict[str, str]:
    place = Path(path) if path else root / "hub.toml"
    try:
        with place.open("rb") as file:
            import tomllib  # most hubs have no file

            content = tomllib.load(file)
    except FileNotFoundError:
        if path:
            raise InvalidArgument(f"no configuration file {place}") from None
        return {}
    except (ValueError, OSError) as e:
        raise InvalidArgument(f"cannot read {place}: {e}") from e
    return {
        name: ",".join(map(str, value)) if isinstance(value, list) else _text(value)
        for name, value in content.items()
    }


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def check(config: HubConfig, *, serving: bool) -> HubConfig:
    """:raises InvalidArgument: values that contradict each other."""
    if config.database and not config.database.startswith(("postgresql://", "postgres://")):
        raise InvalidArgument("database: use postgresql://…, or nothing for SQLite")
    if config.objects and not config.objects.startswith("s3://"):
        raise InvalidArgument("objects: use s3://BUCKET/PREFIX, or nothing for files")
    if not serving:
        return config
    if bool(config.tls_cert) != bool(config.tls_key):
        raise InvalidArgument("tls-cert and tls-key must be used together")
    if config.log_format not in ("text", "json"):
        raise InvalidArgument("log-format: use text or json")
    if config.log_level not in ("debug", "info", "warning", "error"):
        raise InvalidArgument("log-level: use debug, info, warning or error")
    host = config.listen[0]
    if not config.tls_cert and not config.insecure_http and not _is_loopback(host):
        raise InvalidArgument(
            f"{host} can be reached from other machines, and passwords would be sent over plain HTTP: use"
            " --tls-cert and --tls-key, or --insecure-http true if a front proxy provides TLS"
        )
    if "web" in config.role:
        check_pages(config)
    config.webhook_rules()
    config.proxy_rules()
    Trusted(addresses.networks(config.trusted_proxies))
    return config


def check_pages(config: HubConfig) -> None:
    """:raises InvalidArgument: settings of pages that contradict each other."""
    if config.mail and not config.url:
        raise InvalidArgument("mail needs url: links in mails must not follow what a request says")
    if config.mail and not config.mail.startswith(("smtp://", "smtps://", "file:///")):
        raise InvalidArgument("mail: use smtp://[USER:PASSWORD@]HOST[:PORT], smtps://… or file:///DIRECTORY")
    if config.url and not config.url.startswith(("https://", "http://")):
        raise InvalidArgument("url: use https://HOST")
    if config.sign_up == "open" and not config.mail:
        raise InvalidArgument("sign-up open needs mail, to confirm addresses; invitation and closed do not")
    if bool(config.oidc) != bool(config.oidc_client):
        raise InvalidArgument("oidc and oidc-client must be used together")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def environment() -> Mapping[str, str]:
    return os.environ
