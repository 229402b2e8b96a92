"""What refers to an image comes with it, from registries that keep lists and from those that do not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakelab import Lab
from fakeregistry import Asked, FakeRegistry, serving
from image_tools import descriptor, open_library

from wherry.engine.images import referrers
from wherry.model import digest as digests
from wherry.model import oci
from wherry.model.digest import Digest
from wherry.registry.referrers import tag_of

pytestmark = pytest.mark.kernel

SBOM = b'{"packages": []}'
EMPTY = b"{}"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    library = open_library(tmp_path / "root")
    with serving(FakeRegistry()) as registry:
        yield Lab(library, registry)
    library.layers.close()


def refer(lab: Lab, subject: str, payload: bytes = SBOM, **more: Any) -> tuple[str, dict[str, Any]]:
    """Put a referrer into the registry; its digest, and its entry in a list."""
    for data in (payload, EMPTY):
        lab.registry.blob(data)
    raw = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "artifactType": "application/spdx+json",
        "config": descriptor(EMPTY, "application/vnd.oci.empty.v1+json"),
        "layers": [descriptor(payload, "application/spdx+json")],
        "subject": {"mediaType": oci.MANIFEST, "digest": subject, "size": 100},
        **more,
    }
    data = json.dumps(raw).encode()
    digest = lab.registry.manifest(digests.of(data), oci.MANIFEST, data)
    return digest, descriptor(data, oci.MANIFEST)


def subject_of(lab: Lab) -> str:
    return digests.of(lab.registry.manifests["1"][1])


def index(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": entries}).encode()


def serve_list(lab: Lab, subject: str, data: bytes) -> None:
    def lie(asked: Asked) -> tuple[int, dict[str, str], bytes] | None:
        if asked.path.endswith(f"/referrers/{subject}"):
            return 200, {"Content-Type": oci.INDEX}, data
        return None

    lab.registry.lie = lie


def kept(lab: Lab) -> list[Digest]:
    images = lab.library.images
    (image,) = images.list()
    return [found.digest for found, _, _ in referrers.kept(images, image.id)]


@pytest.mark.parametrize("native", [True, False])
def test_they_come_with_the_image_and_leave_with_it(lab: Lab, native: bool) -> None:
    subject = subject_of(lab)
    digest, entry = refer(lab, subject)
    if native:
        serve_list(lab, subject, index(entry))
    else:
        lab.registry.manifest(tag_of(Digest(subject)), oci.INDEX, index(entry))
    lab.pull()
    assert kept(lab) == [digest]
    images = lab.library.images
    images.collect()
    assert images.content.read(Digest(digests.of(SBOM)), limit=100) == SBOM
    (image,) = images.list()
    images.rows.move(str(lab.name), None, actor="", why="untag")
    images.rows.delete(image.id)
    images.collect()
    assert not images.content.has(Digest(digests.of(SBOM)))


def test_what_is_wrong_with_one_does_not_fail_the_pull(lab: Lab) -> None:
    subject = subject_of(lab)
    good, entry = refer(lab, subject)
    other, other_entry = refer(lab, "sha256:" + "0" * 64, b"of another")
    lost, lost_entry = refer(lab, subject, b"gone")
    del lab.registry.blobs[digests.of(b"gone")]
    huge = {**descriptor(b"huge", "a/b"), "size": 1 << 40}
    large, large_entry = refer(lab, subject, b"large", layers=[huge])
    missing = descriptor(b"nowhere", oci.MANIFEST)
    entries = (missing, other_entry, lost_entry, large_entry, entry, {**entry, "mediaType": "text/html"})
    serve_list(lab, subject, index(*entries))
    assert "Downloaded newer image" in lab.pull()[-1]
    assert kept(lab) == [good]
    assert not {other, lost, large} & set(kept(lab))


@pytest.mark.parametrize("data", [b"", b"[]", b'{"manifests": 1}', b"x" * 1000])
def test_a_list_that_is_none(lab: Lab, data: bytes) -> None:
    serve_list(lab, subject_of(lab), data)
    assert "Downloaded newer image" in lab.pull()[-1]
    assert kept(lab) == []


def test_a_registry_that_fails_is_asked_no_more_than_it_takes(lab: Lab) -> None:
    def lie(asked: Asked) -> tuple[int, dict[str, str], bytes] | None:
        return (500, {}, b"") if "/referrers/" in asked.path else None

    lab.registry.lie = lie
    assert "Downloaded newer image" in lab.pull()[-1]
    assert len(lab.registry.asked("GET", "/referrers/")) == 2  # its attempts


def test_many_are_bounded(lab: Lab) -> None:
    subject = subject_of(lab)
    entries = [refer(lab, subject, f"number {n}".encode())[1] for n in range(70)]
    serve_list(lab, subject, index(*entries))
    lab.pull()
    assert len(kept(lab)) == 64
