"""The single worker: the description of the builder that clients read first."""

from __future__ import annotations

from wherry import __version__
from wherry.buildkit.proto import ops_pb2, worker_pb2
from wherry.engine.engine import Engine
from wherry.model import oci

BUILDKIT_VERSION = "v0.26.0"
"""The protocol's owner and version; clients only show it."""
DOCKERFILE_VERSION = "1.20.0"


class BuildkitWorker:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @staticmethod
    def version() -> worker_pb2.BuildkitVersion:
        return worker_pb2.BuildkitVersion(
            package="wherry",
            version=BUILDKIT_VERSION,
            revision=__version__,
            dockerfileVersion=DOCKERFILE_VERSION,
        )

    def record(self) -> worker_pb2.WorkerRecord:
        """The snapshotter's label makes clients offer the features of an engine with an image store: several
        platforms, OCI archives, pushes by the daemon, caches, attestations.
        """
        labels = {
            "org.mobyproject.buildkit.worker.executor": "oci",
            "org.mobyproject.buildkit.worker.snapshotter": "overlayfs",
            "org.mobyproject.buildkit.worker.network": "host",
        }
        gateway = self._gateway()
        if gateway:
            labels["org.mobyproject.buildkit.worker.moby.host-gateway-ip"] = gateway
        return worker_pb2.WorkerRecord(
            ID=self._engine.settings.engine_id,
            Labels=labels,
            platforms=platforms(),
            buildkit_version=self.version(),
        )

    def _gateway(self) -> str:
        """The address for ``--add-host NAME:host-gateway``; clients insert it themselves."""
        return self._engine.settings.host_gateway_ip or self._engine.builds.host_gateway()


def platforms() -> list[ops_pb2.Platform]:
    host = oci.host()
    found = [ops_pb2.Platform(OS="linux", Architecture=host.architecture, Variant=host.variant or "")]
    if host.architecture == "amd64":
        found.append(ops_pb2.Platform(OS="linux", Architecture="386"))
    return found
