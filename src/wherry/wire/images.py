"""Images as the Engine API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wherry.model.base import to_builtins
from wherry.model.comparison import Comparison, LayerSize
from wherry.model.images import (
    Deleted,
    HistoryEntry,
    Image,
    ImageSummary,
    ManifestSummary,
    NameVersion,
    Statement,
    Untagged,
)
from wherry.wire.times import ZERO, rfc3339


def summary(
    image: ImageSummary,
    containers: int,
    version: tuple[int, int],
    *,
    with_manifests: bool,
    pulled: Sequence[str] = (),
) -> dict[str, Any]:
    """One element of ``GET /images/json``. :param pulled: see :func:`identity`."""
    out: dict[str, Any] = {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Created": image.created,
        "Size": image.size,
        "SharedSize": image.shared_size if version >= (1, 42) else -1,
        "Labels": image.labels or None,
        "Containers": containers if version >= (1, 51) else -1,
    }
    if version < (1, 43) and not image.repo_tags and not image.repo_digests:
        out |= {"RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"]}
    if version < (1, 44):
        out["VirtualSize"] = image.size
    if version >= (1, 48):
        out["Descriptor"] = to_builtins(image.target)
    if with_manifests and version >= (1, 47):
        out["Manifests"] = [manifest(m, pulled) for m in image.manifests]
    return out


def identity(pulled: Sequence[str]) -> dict[str, Any]:
    """``Identity``: where an image came from. :param pulled: repositories with their hosts."""
    return {"Pull": [{"Repository": name} for name in pulled]}


def manifest(value: ManifestSummary, pulled: Sequence[str] = ()) -> dict[str, Any]:
    out: dict[str, Any] = {
        "ID": value.descriptor.digest,
        "Descriptor": to_builtins(value.descriptor),
        "Available": value.available,
        "Size": {"Content": value.content_size, "Total": value.content_size + value.unpacked_size},
        "Kind": value.kind,
    }
    if value.kind == "image":
        out["ImageData"] = {
            "Platform": to_builtins(value.platform),
            "Containers": None,
            "Size": {"Unpacked": value.unpacked_size},
            **({"Identity": identity(pulled)} if pulled else {}),
        }
    elif value.kind == "attestation":
        out["AttestationData"] = {"For": value.attests or ""}
    return out


def statement(value: Statement) -> dict[str, Any]:
    """One element of ``GET /images/{name}/attestations``."""
    out = {"Descriptor": to_builtins(value.descriptor), "PredicateType": value.predicate}
    return out if value.body is None else {**out, "Statement": value.body}


def inspect(
    image: Image,
    size: int,
    manifests: Sequence[ManifestSummary],
    version: tuple[int, int],
    *,
    driver: str,
    with_manifests: bool,
    pulled: Sequence[str] = (),
) -> dict[str, Any]:
    """``GET /images/{name}/json``. From 1.52 on empty members are left out; older versions contain them."""
    config = image.config
    comment = next((h.comment for h in reversed(config.history) if h.comment), "")
    out: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        **({"Created": config.created} if config.created else {}),
        **({"Comment": comment} if comment else {}),
        **({"Author": config.author} if config.author else {}),
        "Config": {key: value for key, value in to_builtins(config.config).items() if value},
        "Architecture": config.platform.architecture,
        **({"Variant": config.variant} if config.variant else {}),
        "Os": config.platform.os,
        **({"OsVersion": config.os_version} if config.os_version else {}),
        "Size": size,
        "RootFS": {"Type": "layers", "Layers": list(config.rootfs.diff_ids)},
        "Metadata": {"LastTagTime": rfc3339(image.last_tagged_ns)},
    }
    if version >= (1, 53) and pulled:
        out["Identity"] = identity(pulled)
    if version < (1, 52):
        _add_older(out, version, driver)
    if version >= (1, 48):
        out["Descriptor"] = to_builtins(image.target)
        if with_manifests:
            out["Manifests"] = [manifest(m) for m in manifests]
    return out


_CONFIG_BEFORE_1_52: dict[str, Any] = {
    "Cmd": None,
    "Entrypoint": None,
    "Env": None,
    "Labels": None,
    "OnBuild": None,
    "User": "",
    "Volumes": None,
    "WorkingDir": "",
}
_CONFIG_BEFORE_1_50: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Image": "",
}


def _add_older(out: dict[str, Any], version: tuple[int, int], driver: str) -> None:
    before = {"Parent": "", "Comment": "", "DockerVersion": "", "Author": ""}
    config = {**_CONFIG_BEFORE_1_52, **(_CONFIG_BEFORE_1_50 if version < (1, 50) else {})}
    out |= {name: out.get(name, value) for name, value in before.items()}
    out["Config"] = {**config, **out["Config"]}
    out["GraphDriver"] = {"Name": driver, "Data": None}
    if version < (1, 45):
        empty = {**_CONFIG_BEFORE_1_52, **_CONFIG_BEFORE_1_50}
        out |= {"Container": "", "ContainerConfig": empty}
    if version < (1, 44):
        out["VirtualSize"] = out["Size"]
        out.setdefault("Created", ZERO)


def history(entries: Sequence[HistoryEntry]) -> list[dict[str, Any]]:
    """``GET /images/{name}/history``."""
    return [
        {
            "Id": entry.id,
            "Created": entry.created,
            "CreatedBy": entry.created_by,
            "Tags": list(entry.tags) or None,
            "Size": entry.size,
            "Comment": entry.comment,
        }
        for entry in entries
    ]


def removed(items: Sequence[Untagged | Deleted]) -> list[dict[str, str]]:
    """The answer of delete and prune."""
    return [
        {"Untagged": item.reference} if isinstance(item, Untagged) else {"Deleted": item.id} for item in items
    ]


def version(value: NameVersion) -> dict[str, Any]:
    """One element of ``GET /images/{name}/versions``."""
    return {
        "Version": value.number,
        "Id": value.target,
        "Since": rfc3339(value.since),
        "Until": rfc3339(value.until) if value.until else "",
        "By": value.by,
        "Why": value.why,
        "Present": value.present,
    }


def comparison(value: Comparison) -> dict[str, Any]:
    """``GET /images/{name}/diff`` (an addition)."""

    def layers(found: Sequence[LayerSize]) -> list[dict[str, Any]]:
        return [{"DiffId": one.diff_id, "Size": one.size} for one in found]

    return {
        "Layers": {
            "Shared": layers(value.shared),
            "OnlyFrom": layers(value.only_before),
            "OnlyTo": layers(value.only_after),
        },
        "Configuration": [
            {"Key": one.key, "From": one.before, "To": one.after} for one in value.configuration
        ],
        "Packages": [{"Name": one.name, "From": one.before, "To": one.after} for one in value.packages],
        "Files": [
            {"Path": one.path, "Kind": one.kind, "From": one.before, "To": one.after} for one in value.files
        ],
    }
