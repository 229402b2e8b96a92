"""Attestations: the origin of an image (SLSA provenance) and its contents (SPDX), as in-toto statements.

Beside each platform's image the index has one attestation manifest, where BuildKit's clients look for it
(``vnd.docker.reference.type``). It also names the image as its ``subject``, so it is a referrer as defined by
the distribution spec. Possible secrets are removed from addresses. Build arguments are included only in mode
``max``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from wherry import __version__
from wherry.dockerfile import instructions as ins
from wherry.engine.builds.assembling import Assembled, timestamp
from wherry.engine.builds.cache import BuildCache
from wherry.engine.builds.requests import BuildRequest
from wherry.engine.builds.results import PlatformResult
from wherry.errors import InvalidArgument, NotImplemented_
from wherry.images.archive_index import encode_document
from wherry.images.compare import Software, software
from wherry.images.store import ImageStore
from wherry.model import digest as digests
from wherry.model import oci
from wherry.model.oci import Descriptor, Manifest, Platform
from wherry.registry.download import shown
from wherry.solver.graph import FetchOp, ImageOp, RunOp, Vertex, walk
from wherry.solver.solve import Result
from wherry.storage.leases import Lease

_IN_TOTO = "application/vnd.in-toto+json"
_EMPTY_TYPE, _EMPTY = "application/vnd.oci.empty.v1+json", b"{}"
_ARTIFACT = "application/vnd.docker.attestation.manifest.v1+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PROVENANCE, _SPDX = "https://slsa.dev/provenance/v1", "https://spdx.dev/Document"
_BUILD_TYPE = "https://mobyproject.org/buildkit@v1"


@dataclass(frozen=True)
class BuildFacts:
    """Facts about the build as a whole. ``started`` in nanoseconds since the epoch."""

    request: BuildRequest
    dockerfile: ins.Dockerfile
    build_id: str
    started: int
    epoch: int | None


_FIELDS = {
    "provenance": {"type", "mode", "builder-id", "inline-only", "version", "disabled", "reproducible"},
    "sbom": {"type", "generator", "disabled"},
}


def asked(attestations: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The requested kinds with their fields. A value is ``true``, or fields separated by commas.

    ``inline-only`` changes nothing: here only images have attestations.
    :raises InvalidArgument: an unknown field or value. :raises NotImplemented_: one that is not supported.
    """
    found: dict[str, dict[str, str]] = {}
    for kind, text in attestations.items():
        fields = dict(one.strip().partition("=")[::2] for one in text.split(",") if one.strip())
        if fields.pop("true", None) is not None or fields.pop("false", None) is not None:
            fields["disabled"] = "false" if text.startswith("true") else "true"
        if unknown := set(fields) - _FIELDS[kind]:
            raise InvalidArgument(f"invalid {kind} {text!r}: unknown field {min(unknown)!r}")
        if fields.get("mode", "min") not in ("min", "max"):
            raise InvalidArgument(f"invalid provenance {text!r}: mode=min or mode=max")
        if fields.get("version", "v1") != "v1":
            raise NotImplemented_(f"provenance of version {fields['version']} is not supported: v1 is")
        if fields.get("generator"):
            raise NotImplemented_("generators of SBOMs are not supported: the built-in one is")
        if fields.get("disabled", "false") not in ("true", "1"):
            found[kind] = fields
    return found


def attestation(
    images: ImageStore,
    cache: BuildCache,
    facts: BuildFacts,
    result: PlatformResult,
    image: Assembled,
    lease: Lease,
    *,
    finished: int,
) -> Descriptor | None:
    """The manifest with all requested attestations of one image; ``None`` if none was requested. Blocks."""
    wanted = asked(facts.request.attestations)
    predicates: list[tuple[str, dict[str, Any]]] = []
    if "sbom" in wanted:
        predicates.append((_SPDX, _spdx(cache, result, image, facts)))
    if "provenance" in wanted:
        predicates.append((_PROVENANCE, provenance(facts, result, finished)))
    if not predicates:
        return None
    content = images.content
    layers: list[Descriptor] = []
    for kind, predicate in predicates:
        data = msgspec.json.encode(_statement(kind, predicate, facts, image, result.platform))
        digest = content.put(data, _IN_TOTO, lease=lease.id)
        layers.append(
            Descriptor(
                media_type=_IN_TOTO,
                digest=digest,
                size=len(data),
                annotations={"in-toto.io/predicate-type": kind},
            )
        )
    empty = content.put(_EMPTY, _EMPTY_TYPE, lease=lease.id)
    manifest = Manifest(
        media_type=oci.MANIFEST,
        artifact_type=_ARTIFACT,
        config=Descriptor(media_type=_EMPTY_TYPE, digest=empty, size=len(_EMPTY)),
        layers=layers,
        subject=image.target,
    )
    document = encode_document(manifest)
    return Descriptor(
        media_type=oci.MANIFEST,
        digest=content.put(document, oci.MANIFEST, lease=lease.id),
        size=len(document),
        platform=Platform(os="unknown", architecture="unknown"),
        annotations={
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": image.target.digest,
        },
    )


def _statement(
    kind: str, predicate: dict[str, Any], facts: BuildFacts, image: Assembled, platform: Platform
) -> dict[str, Any]:
    names = [f"pkg:docker/{quote(t.familiar_name)}@{t.tag}" for t in facts.request.tags] or ["_"]
    subject = [
        {
            "name": f"{name}?platform={quote(str(platform), safe='')}" if name != "_" else name,
            "digest": {"sha256": digests.hex_of(image.target.digest)},
        }
        for name in names
    ]
    return {"_type": _STATEMENT, "predicateType": kind, "subject": subject, "predicate": predicate}


# ---- provenance --------------------------------------------------------------------------------------------


def provenance(facts: BuildFacts, result: PlatformResult, finished: int) -> dict[str, Any]:
    """The predicate in the requested mode; the smallest one if no mode was given."""
    request = facts.request
    fields = asked(request.attestations).get("provenance", {})
    vertices = list(walk([result.plan.target.vertex]))
    everything = fields.get("mode") == "max"
    parameters: dict[str, Any] = {
        "configSource": {
            "path": request.dockerfile,
            **({"uri": shown(request.remote)} if request.remote else {}),
        },
        "request": {
            "frontend": "dockerfile.v0",
            "args": {"target": request.target} if request.target else {},
            "locals": [{"name": "context"}],
        },
    }
    if everything:
        parameters["request"]["args"] |= {f"build-arg:{k}": v for k, v in sorted(request.build_args.items())}
        parameters["request"]["args"] |= {f"label:{k}": v for k, v in sorted(request.labels.items())}
        parameters["request"]["secrets"] = [
            {"id": name, "optional": True} for name in sorted(_secrets(vertices))
        ]
    internal: dict[str, Any] = {"builderPlatform": str(oci.host())}
    if everything:
        internal["buildConfig"] = {"llbDefinition": [_step(n, v, vertices) for n, v in enumerate(vertices)]}
    return {
        "buildDefinition": {
            "buildType": _BUILD_TYPE,
            "externalParameters": parameters,
            "internalParameters": internal,
            "resolvedDependencies": list(_materials(vertices)),
        },
        "runDetails": {
            "builder": {"id": fields.get("builder-id") or f"wherry/{__version__}"},
            "metadata": {
                # A timestamp or the id of one run would make every build different.
                **({"invocationId": facts.build_id} if facts.epoch is None else {}),
                "startedOn": _moment(facts.started, facts.epoch),
                "finishedOn": _moment(finished, facts.epoch),
                "buildkit_reproducible": False,
                "buildkit_completeness": {"request": everything, "resolvedDependencies": False},
            },
        },
    }


def _moment(nanoseconds: int, epoch: int | None) -> str:
    return timestamp(nanoseconds // 10**9) if epoch is None else timestamp(epoch)


def _secrets(vertices: list[Vertex]) -> set[str]:
    return {m.id for v in vertices if isinstance(v.op, RunOp) for m in v.op.mounts if m.type == "secret"}


def _step(number: int, vertex: Vertex, vertices: list[Vertex]) -> dict[str, Any]:
    return {
        "id": f"step{number}",
        "op": {"text": shown(vertex.text) if isinstance(vertex.op, FetchOp) else vertex.text},
        "inputs": [f"step{vertices.index(one)}" for one in vertex.inputs],
    }


def _materials(vertices: list[Vertex]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for vertex in vertices:
        if isinstance(vertex.op, ImageOp):
            image = vertex.op.image
            uri = f"pkg:docker/{quote(image.name, safe='/@:')}?platform={quote(vertex.platform, safe='')}"
            found[uri] = {"uri": uri, "digest": {"sha256": digests.hex_of(image.digest)}}
        elif isinstance(vertex.op, FetchOp):
            uri = shown(vertex.op.url)
            checksum = vertex.op.checksum.removeprefix("sha256:")
            found[uri] = {"uri": uri, **({"digest": {"sha256": checksum}} if checksum else {})}
    return list(found.values())


# ---- contents ----------------------------------------------------------------------------------------------


def _spdx(cache: BuildCache, result: PlatformResult, image: Assembled, facts: BuildFacts) -> dict[str, Any]:
    """An SPDX 2.3 document of the packages that the dpkg, apk and Python databases list."""
    snapshot = cache.snapshot_of(_final(result))
    packages = [_package(number, one) for number, one in enumerate(software(cache.snapshotter, snapshot), 1)]
    created = timestamp(facts.epoch) if facts.epoch is not None else timestamp(facts.started // 10**9)
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": "sbom",
        "documentNamespace": f"https://spdx.org/spdxdocs/{digests.hex_of(image.target.digest)}",
        "creationInfo": {"created": created, "creators": [f"Tool: wherry-{__version__}"]},
        "packages": packages,
        "relationships": [
            {
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": one["SPDXID"],
            }
            for one in packages
        ],
    }


def _final(result: PlatformResult) -> Result:
    return result.files


def _package(number: int, one: Software) -> dict[str, Any]:
    spaces = {"deb": "deb/debian", "apk": "apk/alpine", "pypi": "pypi"}
    name = one.name.lower().replace("_", "-") if one.kind == "pypi" else one.name
    locator = f"pkg:{spaces[one.kind]}/{quote(name)}@{quote(one.version)}"
    if one.architecture:
        locator += f"?arch={one.architecture}"
    return {
        "SPDXID": f"SPDXRef-Package-{number}",
        "name": one.name,
        "versionInfo": one.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": locator,
            }
        ],
    }
