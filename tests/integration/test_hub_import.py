"""Taking over a registry of the common kind: by HTTP while it runs, and its directory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from hublab import CONFIG, INDEX, LAYER, MANIFEST, LabHub, hub, sha
from registrylab import LabRegistry, registry

pytestmark = [pytest.mark.kernel, pytest.mark.xdist_group("hub-import")]


@pytest.fixture(scope="module")
def old() -> Iterator[LabRegistry]:
    with registry() as made:
        yield made


@pytest.fixture
def lab() -> Iterator[LabHub]:
    with hub() as made:
        yield made


def image(old: LabRegistry, repository: str, tag: str) -> dict[str, object]:
    layer, config = os.urandom(3_000_000), b'{"os":"linux","n":"%s"}' % os.urandom(4).hex().encode()
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, **old.put_blob(repository, config)},
        "layers": [{"mediaType": LAYER, **old.put_blob(repository, layer)}],
    }
    return old.put_manifest(repository, json.dumps(document).encode(), MANIFEST, tag)


@pytest.mark.parametrize("way", ["running", "directory"])
def test_all_of_it_is_taken_over(old: LabRegistry, lab: LabHub, name: str, way: str) -> None:
    one = image(old, f"{name}/app", "v1")
    member = image(old, f"{name}/multi", "")
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [member]}
    both = old.put_manifest(f"{name}/multi", json.dumps(index).encode(), INDEX, "all")
    source = f"http://{old.host}" if way == "running" else str(old.base / "blobs")
    said = lab.command("import", source, "--repository", f"{name}/*")
    assert "2 repositories, 2 tags" in said and "0 failed" in said
    for repository, reference, want in (
        ("app", "v1", one), ("multi", "all", both), ("multi", str(member["digest"]), member),
    ):  # fmt: skip
        got = lab.ask("GET", f"/v2/{name}/{repository}/manifests/{reference}").expect(200)
        assert sha(got.body) == want["digest"] and got.headers["Content-Type"] == want["mediaType"]
        for part in got.json.get("layers", []):
            blob = lab.ask("GET", f"/v2/{name}/{repository}/blobs/{part['digest']}").expect(200)
            assert sha(blob.body) == part["digest"]
    again = image(old, f"{name}/app", "v1")
    said = lab.command("import", source, "--repository", f"{name}/*")
    assert "1 new manifests, 2 new blobs" in said
    got = lab.ask("HEAD", f"/v2/{name}/app/manifests/v1")
    assert got.headers["Docker-Content-Digest"] == again["digest"]
    assert lab.command("fsck", "--digests").strip() == ""


@pytest.mark.slow
def test_a_hub_takes_over_a_hub(lab: LabHub, name: str) -> None:
    from hublab import ADMIN

    digest = lab.image(f"{name}/app", "v1")
    with hub() as other:
        said = other.command(
            "import", f"http://{lab.host}", "--username", ADMIN[0], "--password-stdin", stdin=ADMIN[1]
        )
        assert "1 repositories, 1 tags" in said
        got = other.ask("HEAD", f"/v2/{name}/app/manifests/v1").expect(200)
        assert got.headers["Docker-Content-Digest"] == digest


def test_what_cannot_be_taken_over_is_said(lab: LabHub, old: LabRegistry, name: str) -> None:
    wrong = image(old, f"{name}/app", "v1")
    hexes = str(wrong["digest"]).partition(":")[2]
    data = old.base / "blobs/docker/registry/v2/blobs/sha256" / hexes[:2] / hexes / "data"
    layer = json.loads(data.read_text())["layers"][0]["digest"].partition(":")[2]
    place = old.base / "blobs/docker/registry/v2/blobs/sha256" / layer[:2] / layer / "data"
    place.write_bytes(b"other bytes")
    said = lab.command("import", str(old.base / "blobs"), "--repository", f"{name}/*", status=1)
    assert "another digest" in said and f"{name}/app:v1" in said
    lab.ask("GET", f"/v2/{name}/app/manifests/v1").expect(404)
    assert "not the data directory of a registry" in lab.command("import", "/nowhere", status=1)
    assert "does not answer" in lab.command("import", "http://127.0.0.1:1", status=1)
