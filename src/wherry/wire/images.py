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
    Untagged,
)
from wherry.wire.times import rfc3339


def summary(image: ImageSummary, containers: int, *, with_manifests: bool) -> dict[str, Any]:
    """One element of ``GET /images/json``."""
    out: dict[str, Any] = {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Created": image.created,
        "Size": image.size,
        "SharedSize": image.shared_size,
        "Labels": image.labels,
        "Containers": containers,
        "Descriptor": to_builtins(image.target),
    }
    if with_manifests:
        out["Manifests"] = [manifest(m) for m in image.manifests]
    return out


def manifest(value: ManifestSummary) -> dict[str, Any]:
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
            "Containers": [],
            "Size": {"Unpacked": value.unpacked_size},
        }
    elif value.kind == "attestation":
        out["AttestationData"] = {"For": value.attests or ""}
    return out


def inspect(
    image: Image, size: int, manifests: Sequence[ManifestSummary], *, driver: str, with_manifests: bool
) -> dict[str, Any]:
    """``GET /images/{name}/json``."""
    config = image.config
    run = to_builtins(config.config)
    out: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Comment": next((h.comment for h in reversed(config.history) if h.comment), ""),
        "Created": config.created or "",
        "Author": config.author or "",
        "Config": {
            "User": run.get("User", ""),
            **({"ExposedPorts": run["ExposedPorts"]} if run.get("ExposedPorts") else {}),
            "Env": run.get("Env") or [],
            "Cmd": run.get("Cmd"),
            **({"Volumes": run["Volumes"]} if run.get("Volumes") else {}),
            "WorkingDir": run.get("WorkingDir", ""),
            "Entrypoint": run.get("Entrypoint"),
            "OnBuild": run.get("OnBuild"),
            "Labels": run.get("Labels") or {},
            **{k: run[k] for k in ("StopSignal", "Healthcheck", "Shell", "ArgsEscaped") if run.get(k)},
        },
        "Architecture": config.architecture,
        **({"Variant": config.variant} if config.variant else {}),
        "Os": config.os,
        **({"OsVersion": config.os_version} if config.os_version else {}),
        "Size": size,
        "GraphDriver": {"Name": driver, "Data": None},
        "RootFS": {"Type": "layers", "Layers": list(config.rootfs.diff_ids)},
        "Metadata": {"LastTagTime": rfc3339(image.last_tagged_ns)},
        "Descriptor": to_builtins(image.target),
    }
    if with_manifests:
        out["Manifests"] = [manifest(m) for m in manifests]
    return out


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
    """``GET /images/{name}/diff``: ours."""

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
