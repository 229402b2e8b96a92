"""The OCI distribution specification, section by section, asked of a hub by plain HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import hubstores
import pytest
from hublab import INDEX, LAYER, MANIFEST, LabHub, hub, sha

pytestmark = [pytest.mark.xdist_group("hub-spec")]

EMPTY = "application/vnd.oci.empty.v1+json"


@pytest.fixture(scope="module", params=["sqlite-files", pytest.param("postgres-s3", marks=pytest.mark.slow)])
def lab(request: pytest.FixtureRequest) -> Iterator[LabHub]:
    if request.param == "sqlite-files":
        with hub() as made:
            yield made
        return
    if not hubstores.HAVE_POSTGRES:
        pytest.skip("PostgreSQL's programs are not here, or we are not root")
    with hubstores.postgres() as database, hubstores.s3() as objects:
        urls = database.database(), objects.bucket()
        with hubstores.replicas(1, *urls, objects.env) as (made,):
            yield made


@pytest.fixture
def repo(name: str) -> str:
    return f"spec/{name}"


def test_base(lab: LabHub) -> None:
    answer = lab.ask("GET", "/v2/").expect(200)
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    lab.ask("HEAD", "/v2/").expect(200)
    refused = lab.ask("GET", "/v2/", user=None).expect(401)
    assert refused.headers["WWW-Authenticate"].startswith(f'Bearer realm="http://{lab.host}/token",service=')
    assert refused.codes == ["UNAUTHORIZED"]


# ---- blobs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("size", [0, 1, 3_000_000], ids=["empty", "byte", "megabytes"])
def test_a_blob_by_post_and_put(lab: LabHub, repo: str, algorithm: str, size: int) -> None:
    data = os.urandom(size)
    digest = sha(data, algorithm)
    place = lab.begin(repo)
    assert place.startswith("/")
    done = lab.ask(
        "PUT", f"{place}?digest={digest}", data, {"Content-Type": "application/octet-stream"}
    ).expect(201)
    assert done.headers["Docker-Content-Digest"] == digest
    where = done.headers["Location"]
    got = lab.ask("GET", where).expect(200)
    assert got.body == data
    assert got.headers["Docker-Content-Digest"] == digest
    head = lab.ask("HEAD", where).expect(200)
    assert head.headers["Content-Length"] == str(size)
    assert head.headers["Docker-Content-Digest"] == digest
    assert head.body == b""


def test_a_blob_by_one_post(lab: LabHub, repo: str) -> None:
    data = os.urandom(100_000)
    done = lab.ask("POST", f"/v2/{repo}/blobs/uploads/?digest={sha(data)}", data).expect(201)
    assert lab.ask("GET", done.headers["Location"]).expect(200).body == data
    wrong = lab.ask("POST", f"/v2/{repo}/blobs/uploads/?digest={sha(b'other')}", data).expect(400)
    assert wrong.codes == ["DIGEST_INVALID"]


@pytest.mark.parametrize("algorithm", ["", "?digest-algorithm=sha512"])
@pytest.mark.parametrize("form", ["{}-{}", "bytes {}-{}/*"])
@pytest.mark.parametrize("last_by_put", [True, False])
def test_a_blob_in_chunks(lab: LabHub, repo: str, form: str, last_by_put: bool, algorithm: str) -> None:
    chunks = [os.urandom(70_000), os.urandom(1), os.urandom(1_200_000)]
    place, offset = lab.begin(repo, algorithm), 0
    for chunk in chunks[: -1 if last_by_put else None]:
        span = form.format(offset, offset + len(chunk) - 1)
        done = lab.ask("PATCH", place, chunk, {"Content-Range": span}).expect(202)
        offset += len(chunk)
        assert done.headers["Range"] == f"0-{offset - 1}"
        assert done.headers["Content-Length"] == "0"
        place = done.headers["Location"]
    data = b"".join(chunks)
    digest = sha(data, "sha512" if algorithm else "sha256")
    if last_by_put:
        span = form.format(offset, len(data) - 1)
        lab.ask("PUT", f"{place}?digest={digest}", chunks[-1], {"Content-Range": span}).expect(201)
    else:
        lab.ask("PUT", f"{place}?digest={digest}", b"").expect(201)
    assert lab.ask("GET", f"/v2/{repo}/blobs/{digest}").expect(200).body == data


def test_a_streamed_blob(lab: LabHub, repo: str) -> None:
    """One PATCH without a length, as docker pushes."""
    data = [os.urandom(100_000) for _ in range(30)]
    place = lab.begin(repo)
    done = lab.ask("PATCH", place, iter(data)).expect(202)
    assert done.headers["Range"] == "0-2999999"
    digest = sha(b"".join(data))
    lab.ask("PUT", f"{done.headers['Location']}?digest={digest}", b"").expect(201)
    assert lab.ask("GET", f"/v2/{repo}/blobs/{digest}").body == b"".join(data)


def test_chunks_out_of_order(lab: LabHub, repo: str) -> None:
    place = lab.begin(repo)
    lab.ask("PATCH", place, b"0123456789", {"Content-Range": "0-9"}).expect(202)
    for span in ("20-29", "5-14", "0-9"):
        refused = lab.ask("PATCH", place, b"0123456789", {"Content-Range": span}).expect(416)
        assert refused.headers["Range"] == "0-9", span
    lab.ask("PATCH", place, b"0123456789", {"Content-Range": "10-12"}).expect(416)  # of another length
    lab.ask("PATCH", place, b"0123456789", {"Content-Range": "what"}).expect(416)
    where = lab.ask("GET", place).expect(204)
    assert where.headers["Range"] == "0-9"
    assert where.headers["Location"] == place
    lab.ask("PATCH", place, b"abc", {"Content-Range": "10-12"}).expect(202)
    lab.ask("PUT", f"{place}?digest={sha(b'0123456789abc')}", b"x", {"Content-Range": "20-20"}).expect(416)
    lab.ask("PUT", f"{place}?digest={sha(b'0123456789abc')}", b"").expect(201)


def test_an_upload_is_cancelled(lab: LabHub, repo: str) -> None:
    place = lab.begin(repo)
    lab.ask("PATCH", place, b"some").expect(202)
    lab.ask("DELETE", place, b"").expect(204)
    for method in ("GET", "DELETE", "PATCH"):
        answer = lab.ask(method, place, b"x" if method == "PATCH" else b"").expect(404)
        assert answer.codes == ["BLOB_UPLOAD_UNKNOWN"]


def test_a_wrong_digest_ends_an_upload(lab: LabHub, repo: str) -> None:
    place = lab.begin(repo)
    wrong = lab.ask("PUT", f"{place}?digest={sha(b'other')}", b"this").expect(400)
    assert wrong.codes == ["DIGEST_INVALID"]
    lab.ask("GET", f"/v2/{repo}/blobs/{sha(b'other')}").expect(404)
    lab.ask("GET", f"/v2/{repo}/blobs/{sha(b'this')}").expect(404)


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:abc",
        "sha256:" + "G" * 64,
        "sha256:" + "A" * 64,
        "md5:" + "a" * 32,
        "sha512:" + "a" * 64,
        "x",
        ":",
    ],
)
def test_digests_of_the_wrong_form(lab: LabHub, repo: str, digest: str) -> None:
    place = lab.begin(repo)
    assert lab.ask("PUT", f"{place}?digest={digest}", b"this").expect(400).codes == ["DIGEST_INVALID"]
    assert lab.ask("GET", f"/v2/{repo}/blobs/{digest}").expect(400).codes == ["DIGEST_INVALID"]
    assert lab.ask("GET", f"/v2/{repo}/referrers/{digest}").expect(400).codes == ["DIGEST_INVALID"]
    assert lab.ask("PUT", place, b"this").expect(400).codes == ["DIGEST_INVALID"]


@pytest.mark.parametrize(
    ("asked", "status", "span"),
    [
        ("bytes=0-0", 206, (0, 0)),
        ("bytes=10-19", 206, (10, 19)),
        ("bytes=990-", 206, (990, 999)),
        ("bytes=990-5000", 206, (990, 999)),
        ("bytes=-10", 206, (990, 999)),
        ("bytes=-5000", 206, (0, 999)),
        ("bytes=1000-", 416, None),
        ("bytes=1000-1001", 416, None),
        ("bytes=20-10", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=a-b", 416, None),
        ("bytes=0-1,5-6", 416, None),
        ("lines=0-1", 200, (0, 999)),
    ],
)
def test_ranges_of_blobs(lab: LabHub, asked: str, status: int, span: tuple[int, int] | None) -> None:
    data = bytes(i % 251 for i in range(1000))
    digest = lab.blob("spec/ranges", data)
    answer = lab.ask("GET", f"/v2/spec/ranges/blobs/{digest}", headers={"Range": asked}).expect(status)
    if span is None:
        assert answer.headers["Content-Range"] == "bytes */1000"
        return
    assert answer.body == data[span[0] : span[1] + 1]
    if status == 206:
        assert answer.headers["Content-Range"] == f"bytes {span[0]}-{span[1]}/1000"
        assert answer.headers["Accept-Ranges"] == "bytes"


def test_a_blob_is_mounted(lab: LabHub, repo: str) -> None:
    data = os.urandom(1000)
    digest = lab.blob(f"{repo}/source", data)
    done = lab.ask("POST", f"/v2/{repo}/blobs/uploads/?mount={digest}&from={repo}/source", b"").expect(201)
    assert done.headers["Location"] == f"/v2/{repo}/blobs/{digest}"
    assert lab.ask("GET", done.headers["Location"]).expect(200).body == data
    lab.ask("POST", f"/v2/{repo}/other/blobs/uploads/?mount={digest}", b"").expect(201)
    unknown = lab.ask("POST", f"/v2/{repo}/blobs/uploads/?mount={sha(b'?')}&from={repo}/source", b"").expect(
        202
    )
    lab.ask("PUT", f"{unknown.headers['Location']}?digest={sha(b'?')}", b"?").expect(201)


def test_a_blob_is_deleted(lab: LabHub, repo: str) -> None:
    digest = lab.blob(repo, b"gone soon")
    lab.ask("DELETE", f"/v2/{repo}/blobs/{digest}").expect(202)
    assert lab.ask("GET", f"/v2/{repo}/blobs/{digest}").expect(404).codes == ["BLOB_UNKNOWN"]
    assert lab.ask("DELETE", f"/v2/{repo}/blobs/{digest}").expect(404).codes == ["BLOB_UNKNOWN"]
    lab.blob(repo, b"gone soon")
    lab.ask("GET", f"/v2/{repo}/blobs/{digest}").expect(200)


def test_what_an_image_names_is_not_deleted(lab: LabHub, repo: str) -> None:
    image = lab.image(repo, "v1", b"held")
    layer = sha(b"layer of held")
    assert lab.ask("DELETE", f"/v2/{repo}/blobs/{layer}").expect(405).codes == ["UNSUPPORTED"]
    lab.ask("GET", f"/v2/{repo}/blobs/{layer}").expect(200)
    lab.ask("DELETE", f"/v2/{repo}/manifests/{image}").expect(202)
    lab.ask("DELETE", f"/v2/{repo}/blobs/{layer}").expect(202)
    lab.ask("GET", f"/v2/{repo}/blobs/{layer}").expect(404)


# ---- manifests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_manifest_by_tag_and_digest(lab: LabHub, repo: str, algorithm: str) -> None:
    body = json.dumps(lab.document(repo, b"one"), indent=3).encode()
    digest = sha(body, algorithm)
    done = lab.ask("PUT", f"/v2/{repo}/manifests/{digest}", body, {"Content-Type": MANIFEST}).expect(201)
    assert done.headers["Location"] == f"/v2/{repo}/manifests/{digest}"
    assert done.headers["Docker-Content-Digest"] == digest
    for method in ("GET", "HEAD"):
        got = lab.ask(method, f"/v2/{repo}/manifests/{digest}", headers={"Accept": MANIFEST}).expect(200)
        assert got.headers["Content-Type"] == MANIFEST
        assert got.headers["Docker-Content-Digest"] == digest
        assert got.headers["Content-Length"] == str(len(body))
    assert lab.ask("GET", f"/v2/{repo}/manifests/{digest}").body == body
    lab.ask("PUT", f"/v2/{repo}/manifests/v1", body, {"Content-Type": f"{MANIFEST}; charset=utf-8"}).expect(
        201
    )
    assert lab.ask("GET", f"/v2/{repo}/manifests/v1").body == body


def test_several_tags_by_one_put(lab: LabHub, repo: str) -> None:
    body = json.dumps(lab.document(repo, b"many tags")).encode()
    tags = [f"t{i}" for i in range(12)]
    query = "&".join(f"tag={tag}" for tag in tags)
    done = lab.ask(
        "PUT", f"/v2/{repo}/manifests/{sha(body, 'sha512')}?{query}", body, {"Content-Type": MANIFEST}
    ).expect(201)
    assert done.headers.get_all("OCI-Tag") == tags
    for tag in tags:
        got = lab.ask("HEAD", f"/v2/{repo}/manifests/{tag}").expect(200)
        assert got.headers["Docker-Content-Digest"] == sha(body, "sha512")
    many = "&".join(f"tag=u{i}" for i in range(60))
    lab.ask("PUT", f"/v2/{repo}/manifests/{sha(body)}?{many}", body, {"Content-Type": MANIFEST}).expect(414)
    lab.ask("PUT", f"/v2/{repo}/manifests/{sha(body)}?tag=b%20d", body, {"Content-Type": MANIFEST}).expect(
        400
    )


def test_a_manifest_names_what_is_missing(lab: LabHub, repo: str) -> None:
    document = lab.document(repo, b"partly")
    document["layers"].append({"mediaType": LAYER, "digest": sha(b"no"), "size": 2})
    answer = lab.ask(
        "PUT", f"/v2/{repo}/manifests/v1", json.dumps(document).encode(), {"Content-Type": MANIFEST}
    ).expect(404)
    assert answer.codes == ["MANIFEST_BLOB_UNKNOWN"]
    assert answer.json["errors"][0]["detail"] == {"digest": sha(b"no")}
    lab.ask("GET", f"/v2/{repo}/manifests/v1").expect(404)


def test_layers_that_are_elsewhere(lab: LabHub, repo: str) -> None:
    document = lab.document(repo, b"foreign")
    kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    document["layers"].append({"mediaType": kind, "digest": sha(b"far"), "size": 3, "urls": ["https://x/y"]})
    digest = lab.manifest(repo, document, "v1")
    assert lab.ask("HEAD", f"/v2/{repo}/manifests/v1").headers["Docker-Content-Digest"] == digest


def _bad(**changes: Any) -> bytes:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": EMPTY, "digest": sha(b"{}"), "size": 2},
        "layers": [],
    }
    return json.dumps({k: v for k, v in {**document, **changes}.items() if v is not None}).encode()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(b"", MANIFEST, id="nothing"),
        pytest.param(b"[]", MANIFEST, id="no object"),
        pytest.param(b"{" * 100_000, MANIFEST, id="deep"),
        pytest.param(b'{"a":' * 5000 + b"1" + b"}" * 5000, MANIFEST, id="deep and closed"),
        pytest.param(b'{"schemaVersion":2,"schemaVersion":2}', MANIFEST, id="twice"),
        pytest.param(_bad(size=float("nan")), MANIFEST, id="nan"),
        pytest.param(_bad(schemaVersion=1), MANIFEST, id="schema 1"),
        pytest.param(_bad(config=None), MANIFEST, id="no config"),
        pytest.param(_bad(layers=None), MANIFEST, id="no layers"),
        pytest.param(_bad(layers=[{"digest": sha(b""), "size": -1}]), MANIFEST, id="negative"),
        pytest.param(_bad(layers=[{"digest": sha(b""), "size": 2**60}]), MANIFEST, id="huge size"),
        pytest.param(_bad(layers=[{"digest": "sha256:../x", "size": 1}]), MANIFEST, id="no digest"),
        pytest.param(_bad(layers=[{"size": 1}] * 2000), MANIFEST, id="many"),
        pytest.param(_bad(manifests=[]), MANIFEST, id="layers and manifests"),
        pytest.param(_bad(annotations={"a": 1}), MANIFEST, id="annotation of a number"),
        pytest.param(_bad(), INDEX, id="another type"),
        pytest.param(_bad(mediaType="text/plain"), "text/plain", id="no manifest"),
        pytest.param(b"\xff\xfe", MANIFEST, id="no text"),
        pytest.param(b"1" * 10_000, MANIFEST, id="number"),
    ],
)
def test_manifests_that_are_none(lab: LabHub, repo: str, body: bytes, kind: str) -> None:
    lab.blob(repo, b"{}")
    answer = lab.ask("PUT", f"/v2/{repo}/manifests/v1", body, {"Content-Type": kind}).expect(400)
    assert answer.codes[0] in ("MANIFEST_INVALID", "DIGEST_INVALID")
    lab.ask("GET", f"/v2/{repo}/manifests/v1").expect(404)


def test_a_manifest_that_is_too_large(lab: LabHub, repo: str) -> None:
    lab.blob(repo, b"{}")
    fits = _bad(annotations={"a": "x" * 200_000}, more="y" * 3_700_000)
    lab.ask("PUT", f"/v2/{repo}/manifests/v1", fits, {"Content-Type": MANIFEST}).expect(201)
    large = _bad(more="y" * (4 << 20))
    lab.ask("PUT", f"/v2/{repo}/manifests/v2", large, {"Content-Type": MANIFEST}).expect(413)


def test_a_manifest_without_a_content_type(lab: LabHub, repo: str) -> None:
    document = lab.document(repo, b"untyped")
    lab.ask("PUT", f"/v2/{repo}/manifests/v1", json.dumps(document).encode()).expect(201)
    assert lab.ask("HEAD", f"/v2/{repo}/manifests/v1").headers["Content-Type"] == MANIFEST


def test_manifests_and_tags_are_deleted(lab: LabHub, repo: str) -> None:
    digest = lab.image(repo, "v1")
    lab.ask("DELETE", f"/v2/{repo}/manifests/v1").expect(202)
    assert lab.ask("GET", f"/v2/{repo}/manifests/v1").expect(404).codes == ["MANIFEST_UNKNOWN"]
    lab.ask("GET", f"/v2/{repo}/manifests/{digest}").expect(200)
    lab.ask("DELETE", f"/v2/{repo}/manifests/v1").expect(404)
    other = lab.image(repo, "v2")
    lab.ask("DELETE", f"/v2/{repo}/manifests/{other}").expect(202)
    for reference in (other, "v2"):
        lab.ask("GET", f"/v2/{repo}/manifests/{reference}").expect(404)
    assert lab.ask("DELETE", f"/v2/{repo}/manifests/{other}").expect(404).codes == ["MANIFEST_UNKNOWN"]
    assert lab.ask("DELETE", f"/v2/{repo}-no/manifests/{other}").expect(404).codes == ["NAME_UNKNOWN"]
    assert lab.ask("GET", f"/v2/{repo}/tags/list").json == {"name": repo, "tags": []}


def test_what_was_deleted_is_pushed_again(lab: LabHub, repo: str) -> None:
    document = lab.document(repo, b"again")
    digest = lab.manifest(repo, document, "v1")
    lab.ask("DELETE", f"/v2/{repo}/manifests/{digest}").expect(202)
    lab.manifest(repo, document, "v1")
    lab.ask("GET", f"/v2/{repo}/manifests/{digest}").expect(200)


# ---- indexes, subjects ---------------------------------------------------------------------------------


def _member(digest: str, size: int, machine: str) -> dict[str, Any]:
    platform = {"os": "linux", "architecture": machine}
    return {"mediaType": MANIFEST, "digest": digest, "size": size, "platform": platform}


def test_a_sparse_index_and_its_member(lab: LabHub, repo: str) -> None:
    first = lab.image(repo, "", b"amd")
    later = json.dumps(lab.document(repo, b"arm")).encode()
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [_member(first, 300, "amd64"), _member(sha(later), len(later), "arm64")],
    }
    lab.manifest(repo, index, "v1")
    lab.ask("GET", f"/v2/{repo}/manifests/{sha(later)}").expect(404)
    lab.ask("PUT", f"/v2/{repo}/manifests/{sha(later)}", later, {"Content-Type": MANIFEST}).expect(201)
    lab.ask("GET", f"/v2/{repo}/manifests/{sha(later)}").expect(200)
    nested = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [_member(first, 300, "amd64")] * 2}
    lab.manifest(repo, nested, "v2")
    assert lab.ask("GET", f"/v2/{repo}/tags/list").json["tags"] == ["v1", "v2"]


def test_referrers(lab: LabHub, repo: str) -> None:
    empty = lab.ask("GET", f"/v2/{repo}/referrers/{sha(b'nobody')}").expect(200)
    assert empty.json == {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    assert empty.headers["Content-Type"] == INDEX
    subject = sha(b"not here yet")
    config = {"mediaType": EMPTY, "digest": sha(b"{}"), "size": 2}
    lab.blob(repo, b"{}")
    base = {"schemaVersion": 2, "subject": {"mediaType": MANIFEST, "digest": subject, "size": 9}}
    image = {**base, "mediaType": MANIFEST, "config": config, "layers": []}
    documents = [
        {**image, "artifactType": "a/sbom", "annotations": {"x": "y"}},
        {**image, "config": {**config, "mediaType": "c/signature"}},
        {**base, "mediaType": INDEX, "manifests": []},
        {**base, "mediaType": INDEX, "manifests": [], "artifactType": "a/sbom"},
    ]
    digests = []
    for document in documents:
        body = json.dumps(document).encode()
        kind = {"Content-Type": document["mediaType"]}
        done = lab.ask("PUT", f"/v2/{repo}/manifests/{sha(body)}", body, kind).expect(201)
        assert done.headers["OCI-Subject"] == subject
        digests.append(sha(body))
    found = lab.ask("GET", f"/v2/{repo}/referrers/{subject}").expect(200)
    assert [(m["digest"], m.get("artifactType")) for m in found.json["manifests"]] == list(
        zip(digests, ["a/sbom", "c/signature", None, "a/sbom"], strict=True)
    )
    assert found.json["manifests"][0]["annotations"] == {"x": "y"}
    assert "OCI-Filters-Applied" not in found.headers
    filtered = lab.ask("GET", f"/v2/{repo}/referrers/{subject}?artifactType=a%2Fsbom").expect(200)
    assert [m["digest"] for m in filtered.json["manifests"]] == [digests[0], digests[3]]
    assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
    lab.ask("DELETE", f"/v2/{repo}/manifests/{digests[0]}").expect(202)
    left = lab.ask("GET", f"/v2/{repo}/referrers/{subject}").json["manifests"]
    assert [m["digest"] for m in left] == digests[1:]


def test_referrers_by_pages(lab: LabHub, repo: str) -> None:
    lab.blob(repo, b"{}")
    subject = sha(b"much talked about")
    sent = set()
    for i in range(105):
        document = json.loads(_bad(annotations={"n": str(i)}))
        document["subject"] = {"mediaType": MANIFEST, "digest": subject, "size": 9}
        sent.add(lab.manifest(repo, document))
    pages = _referrers_by_pages(lab, f"/v2/{repo}/referrers/{subject}")
    assert [len(page) for page in pages] == [100, 5]
    assert {one["digest"] for page in pages for one in page} == sent


def _referrers_by_pages(lab: LabHub, path: str) -> list[list[dict[str, Any]]]:
    pages = []
    while path:
        page = lab.ask("GET", path).expect(200)
        pages.append(page.json["manifests"])
        path = page.headers.get("Link", "").partition("<")[2].partition(">")[0]
    return pages


def test_referrers_with_large_annotations(lab: LabHub, repo: str) -> None:
    """A page stays below the 4 MiB that clients accept."""
    lab.blob(repo, b"{}")
    subject = sha(b"annotated at length")
    notes = [{"n": str(i), "text": str(i) * 900_000} for i in range(3)]
    for one in notes:
        document = json.loads(_bad(annotations=one))
        document["subject"] = {"mediaType": MANIFEST, "digest": subject, "size": 9}
        lab.manifest(repo, document)
    pages = _referrers_by_pages(
        lab, f"/v2/{repo}/referrers/{subject}?artifactType=application%2Fvnd.oci.empty.v1%2Bjson"
    )
    assert [len(page) for page in pages] == [2, 1]
    assert [one["annotations"] for page in pages for one in page] == notes


# ---- lists ---------------------------------------------------------------------------------------------


def test_tags_by_pages(lab: LabHub, repo: str) -> None:
    document = lab.document(repo, b"tagged")
    tags = ["Z", "_x", "a", "a-1", "a.1", "a1", "b"]
    for tag in tags:
        lab.manifest(repo, document, tag)
    path = f"/v2/{repo}/tags/list"
    assert lab.ask("GET", path).json == {"name": repo, "tags": sorted(tags)}
    none = lab.ask("GET", f"{path}?n=0").expect(200)
    assert none.json["tags"] == [] and "Link" not in none.headers
    first = lab.ask("GET", f"{path}?n=3").expect(200)
    assert first.json["tags"] == sorted(tags)[:3]
    assert first.headers["Link"] == f'<{path}?n=3&last={sorted(tags)[2]}>; rel="next"'
    rest = lab.ask("GET", f"{path}?n=4&last={sorted(tags)[2]}").expect(200)
    assert rest.json["tags"] == sorted(tags)[3:] and "Link" not in rest.headers
    assert lab.ask("GET", f"{path}?last=a1").json["tags"] == ["b"]
    assert lab.ask("GET", f"{path}?last=zzz").json["tags"] == []
    for n in ("-1", "x", "1e3"):
        assert lab.ask("GET", f"{path}?n={n}").expect(400).codes == ["PAGINATION_NUMBER_INVALID"]
    assert lab.ask("GET", "/v2/spec/never/tags/list").expect(404).codes == ["NAME_UNKNOWN"]


def test_catalog(lab: LabHub, name: str) -> None:
    for part in ("b", "a", "c"):
        lab.blob(f"catalog/{name}/{part}", b"x")
    page = lab.ask("GET", f"/v2/_catalog?n=2&last=catalog/{name}").expect(200)
    assert page.json == {"repositories": [f"catalog/{name}/a", f"catalog/{name}/b"]}
    assert 'rel="next"' in page.headers["Link"]


# ---- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name_", ["UPPER/case", "a//b", "a/", "-a/b", "a/b-", "a/.b", "a" * 256, "a___b/c", "ä/b"]
)
def test_names_of_the_wrong_form(lab: LabHub, name_: str) -> None:
    from urllib.parse import quote

    answer = lab.ask("GET", f"/v2/{quote(name_)}/tags/list").expect(400, 404)
    assert answer.codes[0] in ("NAME_INVALID", "NAME_UNKNOWN")
    answer = lab.ask("POST", f"/v2/{quote(name_)}/blobs/uploads/", b"").expect(400, 404)


def test_methods_that_do_not_exist(lab: LabHub, repo: str) -> None:
    for method, path in (
        ("POST", f"/v2/{repo}/manifests/v1"),
        ("PATCH", f"/v2/{repo}/manifests/v1"),
        ("PUT", f"/v2/{repo}/blobs/{sha(b'')}"),
        ("PUT", f"/v2/{repo}/tags/list"),
        ("DELETE", "/v2/"),
    ):
        answer = lab.ask(method, path, b"").expect(405)
        assert answer.codes == ["UNSUPPORTED"] and answer.headers["Allow"]


def test_what_is_unknown(lab: LabHub, repo: str) -> None:
    lab.blob(repo, b"there")
    for path, code in (
        (f"/v2/{repo}/blobs/{sha(b'not')}", "BLOB_UNKNOWN"),
        (f"/v2/{repo}/manifests/{sha(b'not')}", "MANIFEST_UNKNOWN"),
        (f"/v2/{repo}/manifests/nope", "MANIFEST_UNKNOWN"),
        (f"/v2/{repo}/manifests/.NO_TAG_HAS_THIS_FORM", "MANIFEST_UNKNOWN"),
        (f"/v2/{repo}/blobs/uploads/{'a' * 32}", "BLOB_UPLOAD_UNKNOWN"),
        ("/v2/spec/never/manifests/v1", "NAME_UNKNOWN"),
        (f"/v2/spec/never/blobs/{sha(b'not')}", "NAME_UNKNOWN"),
    ):
        answer = lab.ask("GET", path).expect(404)
        assert answer.codes == [code], path
        assert answer.headers["Content-Type"] == "application/json"
        assert lab.ask("HEAD", path).status == 404 or "uploads" in path
