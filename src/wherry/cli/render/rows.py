"""The rows of ``ps``, ``images``, ``history``, ``volume ls`` and ``network ls``: API objects as columns."""

from __future__ import annotations

from wherry.cli.render import units
from wherry.cli.render.table import Row
from wherry.cli.render.template.values import NOTHING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Object = dict[str, Any]

NONE = "<none>"
NOT_KNOWN = "N/A"


def fields(names: str) -> tuple[str, ...]:
    return tuple(names.split())


def labels_text(labels: Object | None) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted((labels or {}).items()))


class PlatformText(dict):  # type: ignore[type-arg]
    """A platform: ``linux/arm64/v8`` in text, an object in JSON."""

    def go_string(self) -> str:
        parts = (self.get(name) for name in ("os", "architecture", "variant"))
        return "/".join(str(part) for part in parts if part)


class ContainerLine(Row):
    """One container of ``/containers/json``."""

    TYPE = "formatter.ContainerContext"
    FIELDS = fields(
        "Command CreatedAt ID Image Labels LocalVolumes Mounts Names Networks Platform Ports RunningFor Size "
        "State Status"
    )
    HEADERS = {
        "ID": "CONTAINER ID",
        "Names": "NAMES",
        "Image": "IMAGE",
        "Command": "COMMAND",
        "CreatedAt": "CREATED AT",
        "RunningFor": "CREATED",
        "Ports": "PORTS",
        "State": "STATE",
        "Status": "STATUS",
        "Size": "SIZE",
        "Labels": "LABELS",
        "Mounts": "MOUNTS",
        "LocalVolumes": "LOCAL VOLUMES",
        "Networks": "NETWORKS",
        "Platform": "PLATFORM",
    }
    TABLE = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
    TABLE_SIZE = TABLE + "\t{{.Size}}"
    RAW = (
        "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\n"
        "state: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\n"
        "labels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n"
    )

    def __init__(self, container: Object, *, truncate: bool = True) -> None:
        self.c, self.truncate = container, truncate

    def get_id(self) -> str:
        identifier = str(self.c.get("Id", ""))
        return units.short_id(identifier) if self.truncate else identifier

    def get_names(self) -> str:
        names = [str(name).removeprefix("/") for name in self.c.get("Names") or []]
        if self.truncate:
            names = [name for name in names if "/" not in name] or names
        return ",".join(names)

    def get_image(self) -> str:
        image, identifier = str(self.c.get("Image") or ""), str(self.c.get("ImageID") or "")
        if not image:
            return "<no image>"
        if not self.truncate:
            return image
        if units.short_id(image) == units.short_id(identifier):
            return units.short_id(image)
        name, at, _ = image.partition("@")
        return name if at and ":" in name.rpartition("/")[2] else image

    def get_command(self) -> str:
        command = str(self.c.get("Command") or "")
        return go_quote(units.ellipsis(command, 20) if self.truncate else command)

    def get_createdat(self) -> str:
        return units.go_time(int(self.c.get("Created") or 0))

    def get_runningfor(self) -> str:
        return units.ago(int(self.c.get("Created") or 0))

    def get_ports(self) -> str:
        return ports_text(self.c.get("Ports") or [])

    def get_state(self) -> str:
        return str(self.c.get("State") or "")

    def get_status(self) -> str:
        return str(self.c.get("Status") or "")

    def get_size(self) -> str:
        own, virtual = int(self.c.get("SizeRw") or 0), int(self.c.get("SizeRootFs") or 0)
        return units.size(own) + (f" (virtual {units.size(virtual)})" if virtual > 0 else "")

    def get_labels(self) -> str:
        return labels_text(self.c.get("Labels"))

    def get_label(self, name: str) -> str:
        return str((self.c.get("Labels") or {}).get(name, ""))

    def get_mounts(self) -> str:
        shown = []
        for mount in self.c.get("Mounts") or []:
            name = str(mount.get("Name") or mount.get("Source") or "")
            shown.append(units.ellipsis(name, 15) if self.truncate else name)
        return ",".join(shown)

    def get_localvolumes(self) -> str:
        return str(sum(1 for mount in self.c.get("Mounts") or [] if mount.get("Driver") == "local"))

    def get_networks(self) -> str:
        return ",".join(sorted(((self.c.get("NetworkSettings") or {}).get("Networks")) or {}))

    def get_platform(self) -> Any:
        platform = (self.c.get("ImageManifestDescriptor") or {}).get("platform")
        return PlatformText(platform) if platform else NOTHING


def go_quote(text: str) -> str:
    """Go's ``strconv.Quote`` for text on a terminal."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    shown = "".join(
        escapes.get(c)
        or (c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 0x80 else f"\\u{ord(c):04x}")
        for c in text
    )
    return f'"{shown}"'


def ports_text(ports: Iterable[Object]) -> str:
    """Ports as ``0.0.0.0:8080->80/tcp, 53/udp``; neighbouring ports that map to themselves become ranges."""
    ordered = sorted(
        ports,
        key=lambda p: (p.get("PrivatePort", 0), p.get("IP", ""), p.get("PublicPort", 0), p.get("Type", "")),
    )
    groups: dict[tuple[str, str], tuple[int, int]] = {}
    done: list[str] = []
    mapped: list[str] = []
    for port in ordered:
        private, kind, address = (
            int(port.get("PrivatePort", 0)),
            str(port.get("Type", "")),
            str(port.get("IP", "")),
        )
        public = int(port.get("PublicPort", 0))
        if address and public != private:
            mapped.append(f"{_host_port(address, str(public))}->{private}/{kind}")
            continue
        key = (address, kind)
        first, last = groups.get(key, (private, private - 1))
        if private == last + 1:
            groups[key] = (first, private)
        else:
            done.append(_group_text(key, first, last))
            groups[key] = (private, private)
    return ", ".join(done + [_group_text(key, *span) for key, span in groups.items()] + mapped)


def _group_text(key: tuple[str, str], first: int, last: int) -> str:
    address, kind = key
    span = str(first) if first == last else f"{first}-{last}"
    return f"{_host_port(address, span)}->{span}/{kind}" if address else f"{span}/{kind}"


def _host_port(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class ImageLine(Row):
    """One name of one image of ``/images/json``."""

    TYPE = "formatter.imageContext"
    FIELDS = fields(
        "Containers CreatedAt CreatedSince Digest ID Repository SharedSize Size Tag UniqueSize VirtualSize"
    )
    HEADERS = {
        "ID": "IMAGE ID",
        "Repository": "REPOSITORY",
        "Tag": "TAG",
        "Digest": "DIGEST",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "Size": "SIZE",
        "Containers": "CONTAINERS",
        "VirtualSize": "SIZE",
        "SharedSize": "SHARED SIZE",
        "UniqueSize": "UNIQUE SIZE",
    }
    TABLE = (
        "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}"
        "\t{{.Size}}"
    )
    RAW = (
        "repository: {{.Repository}}\ntag: {{.Tag}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\n"
        "virtual_size: {{.Size}}\n"
    )
    TABLE_DIGEST = TABLE.replace("{{.ID}}", "{{.Digest}}\t{{.ID}}", 1)

    def __init__(
        self, image: Object, repository: str, tag: str, digest: str, *, truncate: bool = True
    ) -> None:
        self.i, self.repository, self.tag, self.digest = image, repository, tag, digest
        self.truncate = truncate

    def get_id(self) -> str:
        identifier = str(self.i.get("Id", ""))
        return units.short_id(identifier) if self.truncate else identifier

    def get_repository(self) -> str:
        return self.repository

    def get_tag(self) -> str:
        return self.tag

    def get_digest(self) -> str:
        return self.digest

    def get_createdsince(self) -> str:
        return units.ago(int(self.i.get("Created") or 0))

    def get_createdat(self) -> str:
        return units.go_time(int(self.i.get("Created") or 0))

    def get_size(self) -> str:
        return units.size(int(self.i.get("Size") or 0))

    def get_virtualsize(self) -> str:
        return units.size(int(self.i.get("Size") or 0), 4)

    def get_containers(self) -> str:
        count = int(self.i.get("Containers", -1))
        return NOT_KNOWN if count < 0 else str(count)

    def get_sharedsize(self) -> str:
        shared = int(self.i.get("SharedSize", -1))
        return NOT_KNOWN if shared < 0 else units.size(shared, 4)

    def get_uniquesize(self) -> str:
        shared, whole = int(self.i.get("SharedSize", -1)), int(self.i.get("Size", -1))
        return NOT_KNOWN if shared < 0 or whole < 0 else units.size(whole - shared, 4)

    def get_label(self, name: str) -> str:
        return str((self.i.get("Labels") or {}).get(name, ""))


def image_rows(
    images: Iterable[Object], *, digests: bool, truncate: bool, digest_rows: bool = False
) -> Iterator[ImageLine]:
    """A row for every tag, or every tag and digest; a nameless image has one row of ``<none>``.

    ``digest_rows`` gives names that have a digest and no tag a row for every digest.
    """
    for image in images:
        tags = _by_repository(image.get("RepoTags"), ":")
        digest_map = _by_repository(image.get("RepoDigests"), "@")
        if not tags and not digest_map:
            yield ImageLine(image, NONE, NONE, NONE, truncate=truncate)
            continue
        for repository, names in tags.items():
            own = digest_map.pop(repository, []) if digests else []
            digest_map.pop(repository, None)
            for name in names:
                for digest in own or [NONE]:
                    yield ImageLine(image, repository, name, digest, truncate=truncate)
        for repository, own in digest_map.items():
            for digest in own if digest_rows else [""]:
                yield ImageLine(image, repository, NONE, digest, truncate=truncate)


def _by_repository(references: Iterable[str] | None, separator: str) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for reference in references or []:
        repository, _, suffix = reference.rpartition(separator)
        if repository != NONE:
            grouped.setdefault(repository, []).append(suffix)
    return grouped


class HistoryLine(Row):
    """One step of ``/images/{name}/history``."""

    TYPE = "formatter.historyContext"
    FIELDS = fields("Comment CreatedAt CreatedBy CreatedSince ID Size")
    HEADERS = {
        "ID": "IMAGE",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "CreatedBy": "CREATED BY",
        "Size": "SIZE",
        "Comment": "COMMENT",
    }
    TABLE = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"

    def __init__(self, step: Object, *, truncate: bool = True, human: bool = True) -> None:
        self.h, self.truncate, self.human = step, truncate, human

    def get_id(self) -> str:
        identifier = str(self.h.get("Id") or "<missing>")
        return units.short_id(identifier) if self.truncate else identifier

    def get_createdat(self) -> str:
        return units.rfc3339(int(self.h.get("Created") or 0))

    def get_createdsince(self) -> str:
        if not self.human:
            return self.get_createdat()
        created = int(self.h.get("Created") or 0)
        return units.ago(created) if created > 0 else NOT_KNOWN

    def get_createdby(self) -> str:
        text = str(self.h.get("CreatedBy") or "").replace("\t", " ")
        return units.ellipsis(text, 45) if self.truncate else text

    def get_size(self) -> str:
        count = int(self.h.get("Size") or 0)
        return units.size(count) if self.human else str(count)

    def get_comment(self) -> str:
        return str(self.h.get("Comment") or "")


class VolumeLine(Row):
    """One volume of ``/volumes``."""

    TYPE = "formatter.volumeContext"
    FIELDS = fields("Availability Driver Group Labels Links Mountpoint Name Scope Size Status")
    HEADERS = {
        "Name": "VOLUME NAME",
        "Driver": "DRIVER",
        "Scope": "SCOPE",
        "Availability": "AVAILABILITY",
        "Mountpoint": "MOUNTPOINT",
        "Labels": "LABELS",
        "Links": "LINKS",
        "Size": "SIZE",
        "Group": "GROUP",
        "Status": "STATUS",
    }
    TABLE = "{{.Driver}}\t{{.Name}}"

    RAW = "name: {{.Name}}\ndriver: {{.Driver}}\n"

    def __init__(self, volume: Object) -> None:
        self.v = volume

    def get_name(self) -> str:
        return str(self.v.get("Name", ""))

    def get_driver(self) -> str:
        return str(self.v.get("Driver", ""))

    def get_scope(self) -> str:
        return str(self.v.get("Scope", ""))

    def get_mountpoint(self) -> str:
        return str(self.v.get("Mountpoint", ""))

    def get_labels(self) -> str:
        return labels_text(self.v.get("Labels"))

    def get_label(self, name: str) -> str:
        return str((self.v.get("Labels") or {}).get(name, ""))

    def get_links(self) -> str:
        usage = self.v.get("UsageData")
        return str(usage.get("RefCount", -1)) if usage else NOT_KNOWN

    def get_size(self) -> str:
        usage = self.v.get("UsageData")
        return units.size(int(usage.get("Size", 0)), 4) if usage else NOT_KNOWN

    def get_availability(self) -> str:
        return NOT_KNOWN

    get_group = get_status = get_availability


class NetworkLine(Row):
    """One network of ``/networks``."""

    TYPE = "network.networkContext"
    FIELDS = fields("CreatedAt Driver ID IPv4 IPv6 Internal Labels Name Scope")
    HEADERS = {
        "ID": "NETWORK ID",
        "Name": "NAME",
        "Driver": "DRIVER",
        "Scope": "SCOPE",
        "IPv4": "IPV4",
        "IPv6": "IPV6",
        "Internal": "INTERNAL",
        "Labels": "LABELS",
        "CreatedAt": "CREATED AT",
    }
    TABLE = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}"

    RAW = "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n"

    def __init__(self, network: Object, *, truncate: bool = True) -> None:
        self.n, self.truncate = network, truncate

    def get_id(self) -> str:
        identifier = str(self.n.get("Id", ""))
        return units.short_id(identifier) if self.truncate else identifier

    def get_name(self) -> str:
        return str(self.n.get("Name", ""))

    def get_driver(self) -> str:
        return str(self.n.get("Driver", ""))

    def get_scope(self) -> str:
        return str(self.n.get("Scope", ""))

    def get_ipv4(self) -> str:
        return "true" if self.n.get("EnableIPv4") else "false"

    def get_ipv6(self) -> str:
        return "true" if self.n.get("EnableIPv6") else "false"

    def get_internal(self) -> str:
        return "true" if self.n.get("Internal") else "false"

    def get_labels(self) -> str:
        return labels_text(self.n.get("Labels"))

    def get_label(self, name: str) -> str:
        return str((self.n.get("Labels") or {}).get(name, ""))

    def get_createdat(self) -> str:
        created = str(self.n.get("Created", ""))
        seconds = units.parse_time(created)
        if not seconds:
            return created
        fraction = created[19:].partition(".")[2].rstrip("Zz").partition("+")[0].rstrip("0")
        shown = units.go_time(seconds)
        return f"{shown[:19]}.{fraction}{shown[19:]}" if fraction.isdecimal() else shown
