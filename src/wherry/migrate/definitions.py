"""What dockerd has written down, turned into requests of the Engine API that make the same again."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Object = dict[str, Any]

PREDEFINED = ("bridge", "host", "none")
_SWARM_LABEL = "com.docker.swarm.service.id"
_GENERIC = "com.docker.network.generic"
_OF_THE_HOST = ("MaskedPaths", "ReadonlyPaths")
"""Lists that dockerd writes out; the daemon that makes the container again has its own."""
_ENDPOINT = ("IPAMConfig", "Links", "Aliases", "DriverOpts", "GwPriority")


class LeftOut(Exception):
    """Why something is left where it is."""


# ---- networks and volumes --------------------------------------------------------------------------------


def network(stored: Object) -> Object:
    """The body of ``POST /networks/create``.

    :raises LeftOut: every daemon has it by itself, or it belongs to swarm mode."""
    name, driver = str(stored.get("name", "")), str(stored.get("networkType", ""))
    if name in PREDEFINED:
        raise LeftOut("every daemon has it")
    if stored.get("scope") == "swarm" or stored.get("ingress") or name == "docker_gwbridge":
        raise LeftOut("it belongs to swarm mode, which wherry does not have")
    generic = (stored.get("generic") or {}).get(_GENERIC) or {}
    configs = []
    for key in ("ipamV4Config", "ipamV6Config"):
        for pool in _list(stored.get(key)):
            config = {
                "Subnet": pool.get("PreferredPool") or "",
                "IPRange": pool.get("SubPool") or "",
                "Gateway": pool.get("Gateway") or "",
                "AuxiliaryAddresses": pool.get("AuxAddresses") or {},
            }
            if config["Subnet"]:
                configs.append({key: value for key, value in config.items() if value})
    ipam: Object = {"Driver": stored.get("ipamType") or "default", "Config": configs}
    if stored.get("ipamOptions"):
        ipam["Options"] = stored["ipamOptions"]
    return {
        "Name": name,
        "Driver": driver,
        "Internal": bool(stored.get("internal")),
        "Attachable": bool(stored.get("attachable")),
        "EnableIPv4": stored.get("enableIPv4", True) is not False,
        "EnableIPv6": bool(stored.get("enableIPv6")),
        "IPAM": ipam,
        "Options": {str(key): str(value) for key, value in generic.items()},
        "Labels": stored.get("labels") or {},
    }


def _list(stored: Any) -> list[Object]:
    """A list that is stored as JSON within JSON."""
    found = json.loads(stored) if isinstance(stored, str) else stored
    return found or []


def volume(stored: Object) -> Object:
    """The body of ``POST /volumes/create``."""
    return {
        "Name": stored["Name"],
        "Driver": stored["Driver"],
        "DriverOpts": stored.get("Options") or {},
        "Labels": stored.get("Labels") or {},
    }


def has_own_files(stored: Object) -> bool:
    """Whether a volume's files lie below the root: not with a plugin, and not what options mount there."""
    options = stored.get("Options") or {}
    return (
        stored["Driver"] == "local"
        and bool(stored["Data"])
        and not (options.get("type") or options.get("device"))
    )


# ---- containers ------------------------------------------------------------------------------------------


class ContainerPlan:
    """A container as it was, and the request that makes it again.

    :ivar comes_back: dockerd would start it at its own start.
    :ivar needs: names of containers that must be there before."""

    def __init__(self, stored: Object) -> None:
        """:raises LeftOut: it belongs to swarm mode."""
        config, host = stored["config"], stored["host"]
        self.id = str(config["ID"])
        self.name = str(config["Name"]).lstrip("/")
        self.image = str(config.get("Image") or "")
        self.image_name = str((config.get("Config") or {}).get("Image") or "")
        if _SWARM_LABEL in ((config.get("Config") or {}).get("Labels") or {}):
            raise LeftOut("it is a task of a swarm service")
        manifest = config.get("ImageManifest") or {}
        self.manifest = str(manifest.get("digest") or "")
        self.comes_back = _comes_back(config, host)
        self._config, self._host = config, host
        self.needs: list[str] = []

    def body(self, names: Mapping[str, str], image: str) -> Object:
        """The body of ``POST /containers/create``.

        :param names: of all containers by their old ids. :param image: what its image is called now."""
        old = self._config.get("Config") or {}
        body: Object = {key: value for key, value in old.items() if value is not None}
        body["Image"] = image
        if body.get("Hostname") == self.id[:12]:
            del body["Hostname"]  # its own new id is used
        if str(self._host.get("NetworkMode", "")).startswith(("container:", "host")):
            for key in ("Hostname", "Domainname", "ExposedPorts"):  # written down, but the other one's
                body.pop(key, None)
        host = {
            key: value for key, value in self._host.items() if key not in _OF_THE_HOST and value is not None
        }
        for key in _OF_THE_HOST:
            if self._host.get(key) == []:  # --security-opt systempaths=unconfined
                host[key] = []
        if host.get("Runtime") in ("runc", "io.containerd.runc.v2"):
            del host["Runtime"]
        for key in ("NetworkMode", "IpcMode", "PidMode"):
            kind, colon, target = str(host.get(key, "")).partition(":")
            if kind == "container" and colon:
                host[key] = f"container:{names.get(target, target)}"
        if host.get("Links"):
            host["Links"] = [_link(text) for text in host["Links"]]
        points = self._config.get("MountPoints") or {}
        host["Mounts"] = [_named(mount, points) for mount in host.get("Mounts") or ()]
        host["Binds"] = [*(host.get("Binds") or ()), *self._unnamed(host)]
        body["HostConfig"] = host
        body["NetworkingConfig"] = {"EndpointsConfig": self._endpoints()}
        return body

    def _unnamed(self, host: Object) -> list[str]:
        """Volumes that nobody named, by the names that dockerd gave them: their data are taken along."""
        said = {bind.split(":")[1] for bind in host.get("Binds") or () if ":" in bind}
        said |= {mount.get("Target") for mount in host.get("Mounts") or ()}
        return [
            f"{point['Name']}:{target}" + ("" if point.get("RW", True) else ":ro")
            for target, point in (self._config.get("MountPoints") or {}).items()
            if point.get("Type") == "volume" and point.get("Name") and target not in said
        ]

    def _endpoints(self) -> Object:
        found = {}
        for name, stored in ((self._config.get("NetworkSettings") or {}).get("Networks") or {}).items():
            endpoint = {key: stored[key] for key in _ENDPOINT if stored.get(key)}
            if "Aliases" in endpoint:
                endpoint["Aliases"] = [alias for alias in endpoint["Aliases"] if alias != self.id[:12]]
            if stored.get("DesiredMacAddress"):
                endpoint["MacAddress"] = stored["DesiredMacAddress"]
            found[name] = endpoint
        return found

    def look(self, names: Mapping[str, str]) -> None:
        """Find out which containers it needs. :param names: of all containers by their old ids."""
        wanted = [
            str(self._host.get(key, "")).partition(":")[2]
            for key in ("NetworkMode", "IpcMode", "PidMode")
            if str(self._host.get(key, "")).startswith("container:")
        ]
        networks = (self._config.get("NetworkSettings") or {}).get("Networks") or {}
        linked = [*(self._host.get("Links") or ())]
        for endpoint in networks.values():
            linked += endpoint.get("Links") or ()
        wanted += [link.split(":")[0].lstrip("/").split("/")[0] for link in linked]
        wanted += [source.split(":")[0] for source in self._host.get("VolumesFrom") or ()]
        self.needs = [names.get(each, each) for each in wanted if names.get(each, each) != self.name]


def _named(mount: Object, points: Mapping[str, Object]) -> Object:
    """A mount of a volume that nobody named, by the name that dockerd gave it."""
    point = points.get(str(mount.get("Target")), {})
    if mount.get("Type") == "volume" and not mount.get("Source") and point.get("Name"):
        return {**mount, "Source": point["Name"]}
    return mount


def _link(text: str) -> str:
    """``/database:/web/db``, as an inspect has it, as ``database:db``."""
    name, colon, alias = text.partition(":")
    return f"{name.lstrip('/')}{colon}{alias.rpartition('/')[2]}"


def _comes_back(config: Object, host: Object) -> bool:
    policy = (host.get("RestartPolicy") or {}).get("Name")
    if policy == "unless-stopped":
        return bool(config.get("HasBeenStartedBefore")) and not config.get("HasBeenManuallyStopped")
    return policy == "always" and bool(config.get("HasBeenStartedBefore"))


def in_order(plans: list[ContainerPlan]) -> list[ContainerPlan]:
    """Each after what it needs; what needs itself in a circle stays where it is."""
    by_name = {plan.name: plan for plan in plans}
    done: dict[str, ContainerPlan] = {}
    begun: set[str] = set()

    def visit(plan: ContainerPlan) -> None:
        if plan.name in begun:
            return
        begun.add(plan.name)
        for name in plan.needs:
            if name in by_name:
                visit(by_name[name])
        done[plan.name] = plan

    for plan in plans:
        visit(plan)
    return list(done.values())
