"""Image references: ``[domain/]path[:tag][@digest]``, normalised as Docker's clients do.

Grammar: distribution/reference. ``busybox`` is ``docker.io/library/busybox:latest`` and shown short again
by :meth:`Reference.familiar`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from wherry.errors import InvalidArgument
from wherry.model import digest as digests
from wherry.model.digest import Digest

DEFAULT_DOMAIN = "docker.io"
OFFICIAL_PREFIX = "library/"
DEFAULT_TAG = "latest"
NAME_TOTAL_LENGTH_MAX = 255

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_DOMAIN_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_VERSION = re.compile(r"([^@]+)@\{([0-9]{1,4})\}")
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)


@dataclass(frozen=True)
class Reference:
    """A parsed, normalised reference. ``tag`` and ``digest`` may both be absent (a bare repository)."""

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """``docker.io/library/busybox``"""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """``busybox``"""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        if self.path.startswith(OFFICIAL_PREFIX) and "/" not in self.path[len(OFFICIAL_PREFIX) :]:
            return self.path[len(OFFICIAL_PREFIX) :]
        return self.path

    def familiar(self) -> str:
        """The short form people type: ``busybox:latest``."""
        return self.familiar_name + self._suffix()

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return tag + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> Reference:
        """Add ``:latest`` where neither tag nor digest is given."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> Reference:
        return replace(self, tag=check_tag(tag), digest=None)


def split_version(text: str) -> tuple[str, int | None]:
    """``app:latest@{2}`` as the name and how many versions back; ``None`` for what is no such thing."""
    found = _VERSION.fullmatch(text)
    return (found[1], int(found[2])) if found is not None else (text, None)


def check_tag(tag: str) -> str:
    """:raises InvalidArgument: the tag does not follow ``[\\w][\\w.-]{0,127}``."""
    if not _TAG.fullmatch(tag):
        raise InvalidArgument("invalid tag format")
    return tag


def parse(text: str) -> Reference:
    """Parse and normalise a reference; no default tag is added.

    :raises InvalidArgument: ``invalid reference format``, with the reason, in Docker's words.
    """
    if digests.is_digest("sha256:" + text):
        raise InvalidArgument(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    rest, at, digest_text = text.partition("@")
    try:
        digest = digests.parse(digest_text) if at else None
    except InvalidArgument as e:
        raise InvalidArgument("invalid reference format") from e
    head, slash, tail = rest.partition("/")
    if slash and (head == "localhost" or "." in head or ":" in head or head != head.lower()):
        domain, remainder = head, tail
    else:
        domain, remainder = DEFAULT_DOMAIN, rest
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    path, colon, tag = remainder.partition(":")
    if domain == DEFAULT_DOMAIN and path and "/" not in path:
        path = OFFICIAL_PREFIX + path
    if path != path.lower():
        raise InvalidArgument(f"invalid reference format: repository name ({path}) must be lowercase")
    if not _PATH.fullmatch(path) or not _DOMAIN.fullmatch(domain) or (colon and not _TAG.fullmatch(tag)):
        raise InvalidArgument("invalid reference format")
    if len(domain) + 1 + len(path) > NAME_TOTAL_LENGTH_MAX:
        raise InvalidArgument(
            "invalid reference format: "
            f"repository name must not be more than {NAME_TOTAL_LENGTH_MAX} characters"
        )
    return Reference(domain, path, tag if colon else None, digest)
