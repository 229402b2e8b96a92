"""Results that are kept by name until their build ends: meanwhile other builds may start from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from wherry import threads
from wherry.dockerfile import instructions as ins
from wherry.engine.builds.assembling import Assembler, ImageForm
from wherry.engine.builds.requests import BuildRequest
from wherry.engine.builds.results import PlatformResult
from wherry.engine.builds.worker import BuildWorker, Inputs
from wherry.errors import InvalidArgument, NotFound
from wherry.model import digest as digests
from wherry.model.images import Image
from wherry.model.oci import Platform
from wherry.storage.leases import Lease


@dataclass(frozen=True)
class Solved:
    """The result of a solved request: files only; no outputs were made yet."""

    request: BuildRequest
    dockerfile: ins.Dockerfile
    inputs: Inputs
    results: Sequence[PlatformResult]
    worker: BuildWorker

    def of(self, platform: Platform) -> PlatformResult:
        """:raises NotFound: it was not built for that platform."""
        for one in self.results:
            if one.platform.satisfies(platform):
                return one
        raise NotFound(f"the result does not provide the platform {platform}")


class HeldResults:
    """Held results by name. Used on the loop."""

    def __init__(self, assembler: Assembler) -> None:
        self._assembler = assembler
        self._held: dict[str, tuple[Solved, Lease]] = {}

    def keep(self, name: str, solved: Solved, lease: Lease) -> None:
        self._held[name] = (solved, lease)

    def get(self, name: str) -> Solved:
        """:raises NotFound: there is none, or its build has ended."""
        found = self._held.get(name)
        if found is None:
            raise NotFound(f"No such result: {name}")
        return found[0]

    def drop(self, name: str) -> None:
        self._held.pop(name, None)

    async def image(self, name: str, platform: Platform) -> Image:
        """A held result as an image that another build starts from. It is internal and has no row."""
        solved, lease = self._held.get(name) or self._missing(name)
        one = solved.of(platform)

        def work() -> Image:
            form = ImageForm(epoch=solved.inputs.epoch)
            made = self._assembler.assemble(one.plan.target, one.results, one.bases, form, lease)
            chains = accumulate(made.config.rootfs.diff_ids, digests.chain_id)
            return Image(
                id=made.target.digest,
                target=made.target,
                manifest_descriptor=made.target,
                manifest=made.manifest,
                config_descriptor=made.manifest.config,
                config=made.config,
                names=(),
                chain_ids=tuple(chains),
                last_tagged_ns=0,
            )

        return await threads.child(work)

    @staticmethod
    def _missing(name: str) -> tuple[Solved, Lease]:
        raise InvalidArgument(f"the result {name} is gone: its build has ended")
