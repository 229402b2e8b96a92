"""Lists of packages: SPDX and CycloneDX documents, plain or in the in-toto statements of build attestations.
They come from users, so every field is checked; what cannot be read is an empty list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SIZE_MAX = 16 << 20
"""The largest document that is read, in bytes."""
TYPES = (
    "application/spdx+json",
    "text/spdx+json",
    "application/vnd.cyclonedx+json",
    "application/vnd.in-toto+json",
    "application/vnd.dev.sigstore.bundle.v0.3+json",
)
"""Media types of layers that can be such a document."""
_PACKAGES_MAX = 20_000


@dataclass(frozen=True, order=True)
class Package:
    """``kind`` is the type of its package URL: ``deb``, ``pypi``, ``npm``, …"""

    name: str
    version: str
    kind: str = ""
    licence: str = ""


def parse(data: bytes) -> list[Package]:
    """The packages, sorted and without duplicates."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return []
    found = set[Package]()
    for one in _packages(document):
        if one.name:
            found.add(one)
        if len(found) >= _PACKAGES_MAX:
            break
    return sorted(found)


def _text(value: Any) -> str:
    return value[:300] if isinstance(value, str) else ""


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (one for one in value if isinstance(one, dict))


def _packages(document: Any) -> Iterator[Package]:
    if not isinstance(document, dict):
        return
    inner = document.get("predicate")
    if isinstance(inner, dict):  # an in-toto statement
        yield from _packages(inner.get("Data", inner))
        return
    for one in _dicts(document.get("packages")):  # SPDX 2
        urls = [_text(ref.get("referenceLocator")) for ref in _dicts(one.get("externalRefs"))]
        url = next((text for text in urls if text.startswith("pkg:")), "")
        if _text(one.get("primaryPackagePurpose")) in ("CONTAINER", "OPERATING-SYSTEM"):
            continue  # the image itself
        licence = _text(one.get("licenseConcluded")) or _text(one.get("licenseDeclared"))
        yield Package(
            _text(one.get("name")), _text(one.get("versionInfo")), _kind(url),
            "" if licence in ("NOASSERTION", "NONE") else licence,
        )  # fmt: skip
    for one in _dicts(document.get("components")):  # CycloneDX
        if _text(one.get("type")) in ("file", "operating-system", "container"):
            continue
        words = [_licence(entry) for entry in _dicts(one.get("licenses"))]
        yield Package(
            _text(one.get("name")), _text(one.get("version")), _kind(_text(one.get("purl"))),
            ", ".join(word for word in words if word)[:300],
        )  # fmt: skip


def _licence(entry: dict[str, Any]) -> str:
    inner = entry.get("license")
    if isinstance(inner, dict):
        return _text(inner.get("id")) or _text(inner.get("name"))
    return _text(entry.get("expression"))


def _kind(url: str) -> str:
    return url.removeprefix("pkg:").partition("/")[0] if url.startswith("pkg:") else ""
