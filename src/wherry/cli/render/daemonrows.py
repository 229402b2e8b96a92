"""One line per daemon: ``version`` and ``info`` of several daemons."""

from __future__ import annotations

from wherry.cli.render import units
from wherry.cli.render.rows import fields
from wherry.cli.render.table import Row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Object = dict[str, Any]


class VersionLine(Row):
    """One answer of ``/version``."""

    FIELDS = fields("APIVersion KernelVersion Platform Version")
    HEADERS = {
        "Platform": "OS/ARCH",
        "Version": "VERSION",
        "APIVersion": "API VERSION",
        "KernelVersion": "KERNEL",
    }
    TABLE = "{{.Version}}\t{{.APIVersion}}\t{{.Platform}}\t{{.KernelVersion}}"

    def __init__(self, version: Object) -> None:
        self.v = version

    def get_version(self) -> str:
        return str(self.v.get("Version") or "")

    def get_apiversion(self) -> str:
        return str(self.v.get("ApiVersion") or "")

    def get_platform(self) -> str:
        return f"{self.v.get('Os', '')}/{self.v.get('Arch', '')}"

    def get_kernelversion(self) -> str:
        return str(self.v.get("KernelVersion") or "")


class InfoLine(Row):
    """One answer of ``/info``."""

    FIELDS = fields("CPUs Containers Images Memory Name OperatingSystem Running ServerVersion")
    HEADERS = {
        "Name": "NAME",
        "ServerVersion": "VERSION",
        "Running": "RUNNING",
        "Containers": "CONTAINERS",
        "Images": "IMAGES",
        "CPUs": "CPUS",
        "Memory": "MEMORY",
        "OperatingSystem": "OPERATING SYSTEM",
    }
    TABLE = (
        "{{.Name}}\t{{.ServerVersion}}\t{{.Running}}\t{{.Containers}}\t{{.Images}}\t{{.CPUs}}\t{{.Memory}}"
        "\t{{.OperatingSystem}}"
    )

    def __init__(self, info: Object) -> None:
        self.i = info

    def get_name(self) -> str:
        return str(self.i.get("Name") or "")

    def get_serverversion(self) -> str:
        return str(self.i.get("ServerVersion") or "")

    def get_running(self) -> str:
        return str(self.i.get("ContainersRunning", 0))

    def get_containers(self) -> str:
        return str(self.i.get("Containers", 0))

    def get_images(self) -> str:
        return str(self.i.get("Images", 0))

    def get_cpus(self) -> str:
        return str(self.i.get("NCPU", 0))

    def get_memory(self) -> str:
        return units.binary_size(int(self.i.get("MemTotal") or 0))

    def get_operatingsystem(self) -> str:
        return str(self.i.get("OperatingSystem") or "")
