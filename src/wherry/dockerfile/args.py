"""Build arguments: those of ARG, of ``--build-arg`` and of the builder itself.

Global arguments (before the first FROM) are for FROM lines; a stage must declare them again with ARG. The
platform arguments are declared the same way. Proxy arguments need no ARG, and appear neither in keys nor in
the history.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from wherry.dockerfile import instructions as ins
from wherry.dockerfile.expand import expand_text
from wherry.model import oci
from wherry.model.oci import Platform

PROXIES = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
EPOCH = "SOURCE_DATE_EPOCH"
_BUILDER = "BUILDKIT_"
"""Arguments with this prefix are options of the builder; they need no ARG."""


class Arguments:
    """The arguments of one build."""

    def __init__(self, dockerfile: ins.Dockerfile, given: Mapping[str, str], platform: Platform) -> None:
        self.given = dict(given)
        self.automatic = platform_arguments(platform)
        self._declared: set[str] = set()
        self._escape = dockerfile.escape
        self.global_values: dict[str, str] = dict(self.automatic)
        self._defaults: dict[str, str] = dict(self.automatic)
        for declaration in dockerfile.global_args:
            for pair in declaration.pairs:
                name, value = self._pair(pair, declaration, self.global_values)
                if value is None:
                    value = self.automatic.get(name)
                if value is not None:
                    self.global_values[name] = self._defaults[name] = value
        for name, value in self.automatic.items():
            if name in self.given:
                self.global_values[name] = self._defaults[name] = self.given[name]
            else:
                self.global_values.setdefault(name, value)

    def declare(
        self, pair: tuple[str, str | None], declaration: ins.Arg, env: Mapping[str, str]
    ) -> tuple[str, str | None]:
        """The name and value of one ``name[=default]`` of ARG in a stage; ``None`` if it has no value.

        The pairs of a line are declared in order: a later default can use the earlier ones.
        :raises DockerfileError: an invalid substitution.
        """
        name, value = self._pair(pair, declaration, env)
        return name, value if value is not None else self._defaults.get(name)

    def _pair(
        self, pair: tuple[str, str | None], declaration: ins.Arg, env: Mapping[str, str]
    ) -> tuple[str, str | None]:
        name = expand_text(pair[0], env, declaration.location, escape=self._escape)
        self._declared.add(name)
        if name in self.given or pair[1] is None:
            return name, self.given.get(name)
        return name, expand_text(pair[1], env, declaration.location, escape=self._escape)

    @property
    def proxies(self) -> dict[str, str]:
        return {name: value for name, value in self.given.items() if name in PROXIES}

    def unused(self, valueless: Collection[str] = ()) -> list[str]:
        """Arguments that were given, with or without a value, but that no ARG declares."""
        known = self._declared | PROXIES | {EPOCH}
        named = {*self.given, *valueless}
        return sorted(n for n in named if n not in known and not n.startswith(_BUILDER))


def platform_arguments(target: Platform) -> dict[str, str]:
    """BuildKit's eight platform arguments: TARGET and BUILD, each with PLATFORM, OS, ARCH, VARIANT."""
    found: dict[str, str] = {}
    for prefix, platform in (("TARGET", target), ("BUILD", oci.host().normalised())):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant or ""
    return found
