"""What ``build`` of a service and the flags of a command come to, for whoever carries it out."""

from __future__ import annotations

import os

from wherry.compose.paths import is_remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class BuildChoices:
    """The flags for all builds."""

    def __init__(
        self,
        *,
        quiet: bool = False,
        no_cache: bool = False,
        pull: bool = False,
        push: bool = False,
        check: bool = False,
        arguments: Sequence[str] = (),
        ssh: str = "",
        provenance: str = "",
        sbom: str = "",
        memory: str = "",
    ) -> None:
        self.quiet, self.no_cache, self.pull, self.push, self.check = quiet, no_cache, pull, push, check
        self.arguments, self.ssh = list(arguments), ssh
        self.provenance, self.sbom, self.memory = provenance, sbom, memory


def platforms(service: Any) -> list[str]:
    """The platforms to build for; empty for the daemon's own."""
    given = service["build"].get("platforms")
    return list(given or ([service["platform"]] if service.get("platform") else []))


def dockerfile(spec: Any) -> str:
    """The path of ``dockerfile``, which is on this machine unless the context is elsewhere; empty if it is
    not given."""
    given = str(spec.get("dockerfile") or "")
    return os.path.join(spec["context"], given) if given and not is_remote(spec["context"]) else given
