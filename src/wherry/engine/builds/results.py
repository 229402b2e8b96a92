"""The results of a build's steps, before outputs are made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wherry.model.digest import Digest
from wherry.model.images import Image
from wherry.model.oci import Platform
from wherry.solver.graph import Plan, Vertex
from wherry.solver.solve import Result


@dataclass(frozen=True)
class PlatformResult:
    """The result for one platform of a build."""

    platform: Platform
    plan: Plan
    results: Mapping[Vertex, Result]
    bases: Mapping[Digest, Image]

    @property
    def files(self) -> Result:
        return self.results[self.plan.target.vertex]
