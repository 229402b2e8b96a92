"""The paths of ``/v2/`` (distribution-spec, "Endpoints"): a repository's name may have any number of
components, so paths are parsed from the right."""

from __future__ import annotations

from dataclasses import dataclass

BASE, CATALOG, TAGS, MANIFEST, BLOB, UPLOADS, UPLOAD, REFERRERS = (
    "base", "catalog", "tags", "manifest", "blob", "uploads", "upload", "referrers",
)  # fmt: skip


@dataclass(frozen=True)
class RequestPath:
    kind: str
    name: str = ""
    reference: str = ""


def place(path: str) -> RequestPath | None:
    """Parse a path below ``/v2/``; none if it is not an endpoint."""
    if path in ("/v2/", "/v2"):
        return RequestPath(BASE)
    parts = path[len("/v2/") :].split("/")
    if parts == ["_catalog"]:
        return RequestPath(CATALOG)
    if len(parts) < 3:
        return None
    if len(parts) >= 4 and parts[-3:-1] == ["blobs", "uploads"]:
        kind = UPLOAD if parts[-1] else UPLOADS
        return RequestPath(kind, "/".join(parts[:-3]), parts[-1])
    head, last = "/".join(parts[:-2]), parts[-1]
    if parts[-2:] == ["blobs", "uploads"]:
        return RequestPath(UPLOADS, head)
    if parts[-2:] == ["tags", "list"]:
        return RequestPath(TAGS, head)
    kinds = {"manifests": MANIFEST, "blobs": BLOB, "referrers": REFERRERS}
    if parts[-2] in kinds and last:
        return RequestPath(kinds[parts[-2]], head, last)
    return None
