"""The structures of Docker's client for the output of ``inspect``, from the Engine API's definition.

In templates every field of a structure exists, and is empty if the daemon omitted it; an unknown field is an
error. Each line has a structure's fields with their types: ``s`` text, ``i`` a number, ``b`` a boolean, ``a``
anything, a structure by its name, ``[]`` a list and ``{}`` an object of such, ``*`` and ``?`` what may be
nil. The fields are in the order in which Go prints them.
"""

from __future__ import annotations

from functools import cache

from wherry.cli.render.template.values import go_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TABLE = """\
ConfigReference: Network=s
ContainerConfig: Hostname=s Domainname=s User=s AttachStdin=b AttachStdout=b AttachStderr=b
  ExposedPorts={}{}a Tty=b OpenStdin=b StdinOnce=b Env=[]s Cmd=[]s Healthcheck=*HealthConfig
  ArgsEscaped=?b Image=s Volumes={}{}a WorkingDir=s Entrypoint=[]s NetworkDisabled=?b OnBuild=[]s
  Labels={}s StopSignal=s StopTimeout=?i Shell=[]s
ContainerInspectResponse: Id=s Created=s Path=s Args=[]s State=ContainerState Image=s ResolvConfPath=s
  HostnamePath=s HostsPath=s LogPath=s Name=s RestartCount=i Driver=s Platform=s
  ImageManifestDescriptor=*OCIDescriptor MountLabel=s ProcessLabel=s AppArmorProfile=s ExecIDs=[]s
  HostConfig=HostConfig GraphDriver=DriverData Storage=Storage SizeRw=?i SizeRootFs=?i Mounts=[]MountPoint
  Config=ContainerConfig NetworkSettings=NetworkSettings
ContainerState: Status=s Running=b Paused=b Restarting=b OOMKilled=b Dead=b Pid=i ExitCode=i Error=s
  StartedAt=s FinishedAt=s Health=*Health
DeviceMapping: PathOnHost=s PathInContainer=s CgroupPermissions=s
DeviceRequest: Driver=s Count=i DeviceIDs=[]s Capabilities=[][]s Options={}s
DriverData: Data={}s Name=s
EndpointIPAMConfig: IPv4Address=s IPv6Address=s LinkLocalIPs=[]s
EndpointResource: Name=s EndpointID=s MacAddress=s IPv4Address=s IPv6Address=s
EndpointSettings: IPAMConfig=*EndpointIPAMConfig Links=[]s Aliases=[]s MacAddress=s DriverOpts={}s
  GwPriority=i NetworkID=s EndpointID=s Gateway=s IPAddress=s IPPrefixLen=i IPv6Gateway=s
  GlobalIPv6Address=s GlobalIPv6PrefixLen=i DNSNames=[]s
Health: Status=s FailingStreak=i Log=[]HealthcheckResult
HealthConfig: Test=[]s Interval=i Timeout=i Retries=i StartPeriod=i StartInterval=i
HealthcheckResult: Start=s End=s ExitCode=i Output=s
HostConfig: CpuShares=i Memory=i CgroupParent=s BlkioWeight=i
  BlkioWeightDevice=[]HostConfigBlkioWeightDeviceItem BlkioDeviceReadBps=[]ThrottleDevice
  BlkioDeviceWriteBps=[]ThrottleDevice BlkioDeviceReadIOps=[]ThrottleDevice
  BlkioDeviceWriteIOps=[]ThrottleDevice CpuPeriod=i CpuQuota=i CpuRealtimePeriod=i CpuRealtimeRuntime=i
  CpusetCpus=s CpusetMems=s Devices=[]DeviceMapping DeviceCgroupRules=[]s DeviceRequests=[]DeviceRequest
  MemoryReservation=i MemorySwap=i MemorySwappiness=?i NanoCpus=i OomKillDisable=?b Init=?b PidsLimit=?i
  Ulimits=[]HostConfigUlimitsItem CpuCount=i CpuPercent=i IOMaximumIOps=i IOMaximumBandwidth=i Binds=[]s
  ContainerIDFile=s LogConfig=HostConfigLogConfig NetworkMode=s PortBindings={}[]PortBinding
  RestartPolicy=RestartPolicy AutoRemove=b VolumeDriver=s VolumesFrom=[]s Mounts=[]Mount ConsoleSize=[]i
  Annotations={}s CapAdd=[]s CapDrop=[]s CgroupnsMode=s Dns=[]s DnsOptions=[]s DnsSearch=[]s
  ExtraHosts=[]s GroupAdd=[]s IpcMode=s Cgroup=s Links=[]s OomScoreAdj=i PidMode=s Privileged=b
  PublishAllPorts=b ReadonlyRootfs=b SecurityOpt=[]s StorageOpt={}s Tmpfs={}s UTSMode=s UsernsMode=s
  ShmSize=i Sysctls={}s Runtime=s Isolation=s MaskedPaths=[]s ReadonlyPaths=[]s
HostConfigBlkioWeightDeviceItem: Path=s Weight=i
HostConfigLogConfig: Type=s Config={}s
HostConfigUlimitsItem: Name=s Soft=i Hard=i
IPAM: Driver=s Options={}s Config=[]IPAMConfig
IPAMConfig: Subnet=s IPRange=s Gateway=s AuxiliaryAddresses={}s
IPAMStatus: Subnets={}SubnetStatus
ImageConfig: User=s ExposedPorts={}{}a Env=[]s Cmd=[]s Healthcheck=*HealthConfig ArgsEscaped=?b
  Volumes={}{}a WorkingDir=s Entrypoint=[]s OnBuild=[]s Labels={}s StopSignal=s Shell=[]s
ImageInspect: Id=s Descriptor=*OCIDescriptor Manifests=[]ImageManifestSummary Identity=a RepoTags=[]s
  RepoDigests=[]s Comment=s Created=s Author=s Config=ImageConfig Architecture=s Variant=s Os=s
  OsVersion=s Size=i GraphDriver=DriverData RootFS=ImageInspectRootFS Metadata=ImageInspectMetadata
ImageInspectMetadata: LastTagTime=s
ImageInspectRootFS: Type=s Layers=[]s
ImageManifestSummary: ID=s Descriptor=*OCIDescriptor Available=b Size=ImageManifestSummarySize Kind=s
  ImageData=ImageManifestSummaryImageData AttestationData=ImageManifestSummaryAttestationData
ImageManifestSummaryAttestationData: For=s
ImageManifestSummaryImageData: Platform=*OCIPlatform Identity=a Containers=[]s
  Size=ImageManifestSummaryImageDataSize
ImageManifestSummaryImageDataSize: Unpacked=i
ImageManifestSummarySize: Total=i Content=i
Mount: Target=s Source=s Type=s ReadOnly=b Consistency=s BindOptions=MountBindOptions
  VolumeOptions=MountVolumeOptions ImageOptions=MountImageOptions TmpfsOptions=MountTmpfsOptions
MountBindOptions: Propagation=s NonRecursive=b CreateMountpoint=b ReadOnlyNonRecursive=b
  ReadOnlyForceRecursive=b
MountImageOptions: Subpath=s
MountPoint: Type=s Name=s Source=s Destination=s Driver=s Mode=s RW=b Propagation=s
MountTmpfsOptions: SizeBytes=i Mode=i Options=[][]s
MountVolumeOptions: NoCopy=b Labels={}s DriverConfig=MountVolumeOptionsDriverConfig Subpath=s
MountVolumeOptionsDriverConfig: Name=s Options={}s
NetworkInspect: Name=s Id=s Created=s Scope=s Driver=s EnableIPv4=b EnableIPv6=b IPAM=IPAM Internal=b
  Attachable=b Ingress=b ConfigFrom=ConfigReference ConfigOnly=b Options={}s Labels={}s Peers=[]PeerInfo
  Containers={}EndpointResource Services={}a Status=NetworkStatus
NetworkSettings: SandboxID=s SandboxKey=s Ports={}[]PortBinding Networks={}EndpointSettings
NetworkStatus: IPAM=IPAMStatus
OCIDescriptor: mediaType=s digest=s size=i urls=[]s annotations={}s data=s platform=*OCIPlatform
  artifactType=s
OCIPlatform: architecture=s os=s os.version=s os.features=[]s variant=s
PeerInfo: Name=s IP=s
PortBinding: HostIp=s HostPort=s
RestartPolicy: Name=s MaximumRetryCount=i
RootFSStorage: Snapshot=RootFSStorageSnapshot
RootFSStorageSnapshot: Name=s
Storage: RootFS=RootFSStorage
SubnetStatus: IPsInUse=i DynamicIPsAvailable=i
ThrottleDevice: Path=s Rate=i
Volume: Name=s Driver=s Mountpoint=s CreatedAt=s Status={}{}a Labels={}s Scope=s ClusterVolume=a
  Options={}s UsageData=*VolumeUsageData
VolumeUsageData: Size=i RefCount=i
"""

_MOVED = {
    "NetworkSettings": (
        "Bridge Gateway IPAddress IPPrefixLen MacAddress GlobalIPv6Address GlobalIPv6PrefixLen IPv6Gateway "
        "EndpointID",
        "each network has its own: {{{{range .NetworkSettings.Networks}}}}{{{{.{name}}}}}{{{{end}}}}",
    ),
    "ImageInspect": ("ContainerConfig VirtualSize Parent Container DockerVersion", "see {instead}"),
}
_INSTEAD = {"ContainerConfig": ".Config", "VirtualSize": ".Size"}


class Struct(dict):  # type: ignore[type-arg]
    """An object with known fields; ``kind`` is the structure's name."""

    __slots__ = ("kind",)

    def __init__(self, kind: str, members: dict[str, Any]) -> None:
        self.kind = kind
        fields = _tables()[kind]
        super().__init__({name: typed(value, fields.get(name, "a")) for name, value in members.items()})

    def field(self, name: str) -> tuple[str, str]:
        """The JSON name and type of a field; ``""`` if the structure does not have it."""
        fields = _tables()[self.kind]
        if name in fields or name in self:
            return name, fields.get(name, "a" if name in self else "")
        if not name[:1].isupper():
            return name, ""
        # Go's names of fields are in other letters: ID is Id, MediaType mediaType, OsVersion os.version.
        lower = name.lower()
        return next(((key, code) for key, code in fields.items() if key.lower() == lower), (name, ""))

    def go_string(self) -> str:
        """As Go prints a structure: the values of all its fields, in their order."""
        shown = []
        for name, code in _tables()[self.kind].items():
            value = self.get(name)
            shown.append(go_text(empty(code) if value is None else value, True))
        return "{" + " ".join(shown) + "}"

    def advice(self, name: str) -> str:
        """Where a field went that older daemons had."""
        names, advice = _MOVED.get(self.kind, ("", ""))
        if name not in names.split() or ("{instead}" in advice and name not in _INSTEAD):
            return ""
        return f" ({advice.format(name=name, instead=_INSTEAD.get(name, ''))})"


def typed(value: Any, code: str) -> Any:
    """A value with its structures known, as far as it is what it should be."""
    code = code.lstrip("*?")
    if code.startswith("[]") and isinstance(value, list):
        return [typed(one, code[2:]) for one in value]
    if isinstance(value, dict) and code.startswith("{}"):
        return {key: typed(one, code[2:]) for key, one in value.items()}
    if isinstance(value, dict) and code in _tables():
        return Struct(code, value)
    return value


def empty(code: str) -> Any:
    """What a field is that was left out: lists and objects are told from each other by their types."""
    if code in ("s", "i", "b"):
        return {"s": "", "i": 0, "b": False}[code]
    if code.startswith("[]"):
        return []
    if code.startswith("{}"):
        return {}
    return Struct(code, {}) if code in _tables() else None


@cache
def _tables() -> dict[str, dict[str, str]]:
    tables: dict[str, dict[str, str]] = {}
    fields: dict[str, str] = {}
    for word in _TABLE.split():
        name, equals, code = word.partition("=")
        if equals:
            fields[name] = code
        else:
            fields = tables[name.rstrip(":")] = {}
    return tables
