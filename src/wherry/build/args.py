"""Build arguments: what ARG, ``--build-arg`` and the builder itself give names to.

Global arguments (before the first FROM) are for FROM lines; a stage sees one only where it says ARG. The
platform arguments are declared the same way. Proxy arguments need no ARG, and stay out of keys and history.
"""

from __future__ import annotations

from collections.abc import Mapping

from wherry.build import instructions as ins
from wherry.build.expand import expand
from wherry.model import oci
from wherry.model.oci import Platform

PROXIES = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
EPOCH = "SOURCE_DATE_EPOCH"
_BUILDER = "BUILDKIT_"
"""Arguments of this beginning speak to the builder; nobody has to declare them."""


class Arguments:
    """The arguments of one build."""

    def __init__(self, dockerfile: ins.Dockerfile, given: Mapping[str, str], platform: Platform) -> None:
        self.given = dict(given)
        self.automatic = platform_arguments(platform)
        self._declared: set[str] = set()
        self.global_values: dict[str, str] = dict(self.automatic)
        self._defaults: dict[str, str] = dict(self.automatic)
        for declaration in dockerfile.global_args:
            expanded = expand(declaration, self.global_values, escape=dockerfile.escape)
            assert isinstance(expanded, ins.Arg)
            for name, default in expanded.pairs:
                self._declared.add(name)
                value = self.given.get(name, default)
                if value is None:
                    value = self.automatic.get(name)
                if value is not None:
                    self.global_values[name] = self._defaults[name] = value
        for name, value in self.automatic.items():
            if name in self.given:
                self.global_values[name] = self._defaults[name] = self.given[name]
            else:
                self.global_values.setdefault(name, value)

    def declare(self, name: str, default: str | None) -> str | None:
        """The value of ``ARG name[=default]`` in a stage; ``None`` while it has none."""
        self._declared.add(name)
        if name in self.given:
            return self.given[name]
        return default if default is not None else self._defaults.get(name)

    @property
    def proxies(self) -> dict[str, str]:
        return {name: value for name, value in self.given.items() if name in PROXIES}

    def unused(self) -> list[str]:
        """Arguments that were given and that no ARG asked for."""
        known = self._declared | PROXIES | {EPOCH}
        return sorted(n for n in self.given if n not in known and not n.startswith(_BUILDER))


def platform_arguments(target: Platform) -> dict[str, str]:
    """The eight of BuildKit: TARGET and BUILD, each PLATFORM, OS, ARCH, VARIANT."""
    found: dict[str, str] = {}
    for prefix, platform in (("TARGET", target), ("BUILD", oci.host().normalised())):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant or ""
    return found
