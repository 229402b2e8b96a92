"""Choose the platform that a host runs best."""

from __future__ import annotations

from collections.abc import Iterable

from wherry.model.oci import Platform


def preferred_platforms(host: Platform) -> list[Platform]:
    """What this host can run, best first."""
    found = [host.normalised()]
    older = {"v8": ("v7", "v6", "v5"), "v7": ("v6", "v5"), "v6": ("v5",)}
    if host.architecture == "arm":
        found += [
            Platform(os="linux", architecture="arm", variant=v) for v in older.get(host.variant or "v7", ())
        ]
    if host.architecture == "arm64":
        found += [Platform(os="linux", architecture="arm", variant=v) for v in ("v7", "v6", "v5")]
    if host.architecture == "amd64":
        found.append(Platform(os="linux", architecture="386"))
    return found


def rank(platform: Platform, preferred: Iterable[Platform]) -> int:
    """The rank of a platform; 0 is best."""
    count = 0
    for candidate in preferred:
        if platform.normalised() == candidate.normalised():
            return count
        count += 1
    # a newer variant of the right architecture may not run, but is nearer than another architecture
    first = next(iter(preferred))
    return count if platform.satisfies(Platform(os=first.os, architecture=first.architecture)) else count + 1
