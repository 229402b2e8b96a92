"""Files for browsers: named by their content, so that a browser keeps them for ever.

``assets/`` has ours and vendored ones (``assets/VENDORED.md`` names their sources); allauth's scripts for
passkeys come from its package."""

from __future__ import annotations

import base64
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PREFIX = "/static/"
_OURS = Path(__file__).parent / "assets"
_THEIRS = ("account/js/onload.js", "account/js/account.js", "mfa/js/webauthn-json.js", "mfa/js/webauthn.js",
           "mfa/js/recovery_codes.js")  # fmt: skip


@dataclass(frozen=True)
class Asset:
    body: bytes
    kind: str
    path: str


def _sources() -> dict[str, Path]:
    found = {path.name: path for path in _OURS.iterdir() if path.suffix in (".css", ".js", ".svg", ".txt")}
    package = find_spec("allauth")
    if package is not None and package.submodule_search_locations:
        base = Path(package.submodule_search_locations[0])
        for name in _THEIRS:
            path = base / name.partition("/")[0] / "static" / name
            if path.exists():
                found[name] = path
    return found


@cache
def by_name() -> dict[str, Asset]:
    """Name -> file. ``hub.css`` is served as ``/static/hub.1f2e3d4c5b6a.css``."""
    found: dict[str, Asset] = {}
    for name, path in _sources().items():
        body = path.read_bytes()
        mark = hashlib.sha256(body).hexdigest()[:12]
        stem, _, suffix = path.name.rpartition(".")
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if kind.startswith("text/") or kind.endswith("javascript"):
            kind += "; charset=utf-8"
        found[name] = Asset(body, kind, f"{PREFIX}{stem}.{mark}.{suffix}")
    return found


@cache
def by_path() -> dict[str, Asset]:
    return {asset.path: asset for asset in by_name().values()}


def integrity(name: str) -> str:
    """For ``<script integrity=…>``."""
    return "sha256-" + base64.b64encode(hashlib.sha256(by_name()[name].body).digest()).decode()


class HubAssets:
    """What Django's ``{% static %}`` asks."""

    def __init__(self, **options: object) -> None:
        """Django gives options that are not needed here."""

    def url(self, name: str) -> str:
        return by_name()[name].path
