"""What every room of the engine uses."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.engine.events import EventBus
from wherry.engine.live import LiveSet
from wherry.engine.settings import Settings
from wherry.images.store import ImageStore
from wherry.network.room import NetworkRoom
from wherry.registry.distribution import Distribution
from wherry.runtime.task import Runtime
from wherry.state.builds import BuildRows
from wherry.state.containers import Containers
from wherry.state.database import Database
from wherry.state.volume_snapshots import VolumeSnapshots
from wherry.storage.confined.unpack import Unpacker
from wherry.storage.snapshots import Snapshotter
from wherry.volumes.secrets import SecretStore
from wherry.volumes.store import VolumeStore
from wherry.volumes.versions import VolumeVersions


@dataclass(frozen=True)
class Ground:
    """Settings, the containers' rows, the event bus, and the state that exists only in memory."""

    settings: Settings
    containers: Containers
    events: EventBus
    live: LiveSet


@dataclass(frozen=True)
class Stores:
    """The rooms below the engine, opened on one root. The code that opened them closes them."""

    images: ImageStore
    distribution: Distribution
    unpacker: Unpacker
    snapshotter: Snapshotter
    volumes: VolumeStore
    volume_versions: VolumeVersions
    volume_snapshots: VolumeSnapshots
    secrets: SecretStore
    builds: BuildRows
    network: NetworkRoom
    runtimes: dict[str, Runtime]
    database: Database
