"""What handlers may call: the engine's use cases, one field a noun."""

from __future__ import annotations

from dataclasses import dataclass

from wherry.engine.builds.service import BuildService
from wherry.engine.commit import CommitService
from wherry.engine.containers import ContainerService
from wherry.engine.control import Control
from wherry.engine.copies import CopyService
from wherry.engine.disk import DiskService
from wherry.engine.events import EventBus
from wherry.engine.execcontrol import ExecControl
from wherry.engine.execs import ExecService
from wherry.engine.files import FileService
from wherry.engine.fsck import FsckService
from wherry.engine.images import ImageService
from wherry.engine.lifecycle import Lifecycle
from wherry.engine.listing import ListingService
from wherry.engine.logs import LogService
from wherry.engine.networks import NetworkService
from wherry.engine.prune import PruneService
from wherry.engine.pulls import PullService
from wherry.engine.pushes import PushService
from wherry.engine.registries import RegistryService
from wherry.engine.removal import Removal
from wherry.engine.secrets import SecretService
from wherry.engine.stats import StatsService
from wherry.engine.system import SystemService
from wherry.engine.top import TopService
from wherry.engine.update import UpdateService
from wherry.engine.upkeep import Upkeep
from wherry.engine.volumefiles import VolumeFileService
from wherry.engine.volumeregistry import VolumeRegistryService
from wherry.engine.volumes import VolumeService
from wherry.engine.volumeversions import VolumeVersionService


@dataclass(frozen=True)
class Services:
    containers: ContainerService
    listing: ListingService
    lifecycle: Lifecycle
    control: Control
    removal: Removal
    update: UpdateService
    execs: ExecService
    exec_control: ExecControl
    files: FileService
    commit: CommitService
    logs: LogService
    top: TopService
    stats: StatsService
    images: ImageService
    disk: DiskService
    fsck: FsckService
    upkeep: Upkeep
    builds: BuildService
    pulls: PullService
    pushes: PushService
    copies: CopyService
    registries: RegistryService
    volumes: VolumeService
    volume_versions: VolumeVersionService
    volume_files: VolumeFileService
    volume_registry: VolumeRegistryService
    networks: NetworkService
    secrets: SecretService
    prune: PruneService
    system: SystemService
    events: EventBus
