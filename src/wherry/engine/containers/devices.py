"""Device requests (``--gpus``, CDI names), resolved to the devices that vendors describe on this host."""

from __future__ import annotations

from collections.abc import Sequence

from wherry.errors import InvalidArgument
from wherry.model.container import DeviceRequest
from wherry.runtime.cdi import CdiRegistry, Injection, is_qualified

_GPU_KINDS = (("nvidia", "nvidia.com/gpu"), ("amd", "amd.com/gpu"), ("intel", "intel.com/gpu"))
_ALL = "all"


class Devices:
    """``registry`` reads the spec directories whenever a container asks for a device."""

    def __init__(self, registry: CdiRegistry) -> None:
        self.registry = registry

    def resolve(self, requests: Sequence[DeviceRequest]) -> Injection:
        """:raises InvalidArgument: a device or driver that is not there, in Docker's words."""
        names: list[str] = []
        for request in requests:
            names += self._cdi(request) if request.driver == "cdi" else self._gpus(request)
        return self.registry.inject(names)

    @staticmethod
    def _cdi(request: DeviceRequest) -> list[str]:
        names = list(request.device_ids or ())
        for name in names:
            if not is_qualified(name):
                raise InvalidArgument(
                    f"invalid CDI device name {name[:128]!r}: it must be vendor.com/class=name"
                )
        if request.count:
            raise InvalidArgument("invalid device request: CDI devices are asked for by name, not by count")
        return names

    def _gpus(self, request: DeviceRequest) -> list[str]:
        """GPUs by number or all of them, from the first vendor whose devices are described."""
        asked = request.capabilities or []
        known = self.registry.names() if any("gpu" in together for together in asked) else []
        for driver, kind in _GPU_KINDS:
            if request.driver not in ("", driver):
                continue
            here = [name for name in known if name.startswith(f"{kind}=")]
            if here:
                return _choose(kind, here, request)
        shown = " ".join(f"[{' '.join(together)}]" for together in asked)
        raise InvalidArgument(
            f'could not select device driver "{request.driver}" with capabilities: [{shown}]'
        )


def _choose(kind: str, known: Sequence[str], request: DeviceRequest) -> list[str]:
    if request.device_ids:
        if request.count:
            raise InvalidArgument("cannot set both Count and DeviceIDs on device request")
        return [f"{kind}={device}" for device in request.device_ids]
    every = f"{kind}={_ALL}"
    single = [name for name in known if name != every]
    if request.count < 0:
        return [every] if every in known else single
    numbered = sorted(single, key=lambda name: (len(name), name))
    if request.count > len(numbered):
        raise InvalidArgument(
            f"cannot give {request.count} GPUs: this host describes {len(numbered)} of {kind}"
        )
    return numbered[: request.count]
