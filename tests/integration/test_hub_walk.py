"""A hub under a whole conformance walk: each kind of content is pushed, listed, pulled and deleted again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import hubstores
import hubwalk
import pytest
from hublab import CONFIG, INDEX, LabHub, hub, sha
from hubwalk import Content, Document, Walker

pytestmark = [pytest.mark.xdist_group("hub-walk")]


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


@pytest.fixture(params=["bearer", "basic"])
def walker(lab: LabHub, request: pytest.FixtureRequest) -> Iterator[Walker]:
    made = Walker(lab, bearer=request.param == "bearer")
    yield made
    made.close()


@pytest.fixture
def repo(name: str) -> str:
    return f"walk/{name}"


ALGORITHMS = pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
BOTH = pytest.mark.parametrize(
    ("walker", "algorithm"), [("bearer", "sha256"), ("basic", "sha512")], indirect=["walker"]
)
WAYS = (Walker.post_put, Walker.post_only, Walker.streamed, Walker.chunked, Walker.chunked_put)


@ALGORITHMS
def test_blobs_by_every_way(walker: Walker, repo: str, algorithm: str) -> None:
    for data in (b"", b"x", os.urandom(3 * 1024 - 5)):
        digest = sha(data, algorithm)
        for way in WAYS:
            walker.ask("HEAD", f"/v2/{repo}/blobs/{digest}").expect(404)
            walker.verified(repo, data, digest, way(walker, repo, data, digest))
            walker.delete(repo, "blobs", digest)


@ALGORITHMS
def test_blobs_that_are_broken_on_the_way(walker: Walker, repo: str, algorithm: str) -> None:
    data = os.urandom(3 * 1024 - 5)
    digest = sha(data, algorithm)
    for way in WAYS:
        assert way(walker, repo, data, digest, data[:-1] + b"!!"[: 1 + (data[-1] == ord("!"))]).expect(
            400
        ).codes == ["DIGEST_INVALID"]
        walker.ask("GET", f"/v2/{repo}/blobs/{digest}").expect(404)
    for wrong in ("sha256:baddigeststring", "sha999:" + "0" * 64, f"{algorithm}:"):
        assert walker.post_put(repo, data, wrong).expect(400).codes == ["DIGEST_INVALID"]
        assert walker.post_only(repo, data, wrong).expect(400).codes == ["DIGEST_INVALID"]
    refused = walker.ask("POST", f"/v2/{repo}/blobs/uploads/?digest-algorithm=sha999", b"")
    assert refused.expect(400).codes == ["DIGEST_INVALID"]


@ALGORITHMS
def test_chunks_out_of_order(walker: Walker, repo: str, algorithm: str) -> None:
    place, least = walker.begin(repo, f"?digest-algorithm={algorithm}")
    data = os.urandom(3 * least - 5)
    digest = sha(data, algorithm)
    spans = [(at, data[at : at + least]) for at in range(0, len(data), least)]

    def send(method: str, at: int, chunk: bytes, path: str) -> Any:
        span = {**hubwalk.OCTETS, "Content-Range": f"{at}-{at + len(chunk) - 1}"}
        return walker.ask(method, path, chunk, span)

    send("PATCH", *spans[1], place).expect(416)
    assert walker.ask("GET", place).expect(204).headers["Location"]
    done = send("PATCH", *spans[0], place).expect(202)
    for method in ("PATCH", "PUT"):
        path = done.headers["Location"]
        path = path if method == "PATCH" else hubwalk.with_digest(path, digest)
        for wrong in (spans[0], spans[2]):
            refused = send(method, *wrong, path).expect(416)
            assert refused.headers["Range"] == f"0-{least - 1}"
            told = walker.ask("GET", refused.headers["Location"]).expect(204)
            assert told.headers["Range"] == f"0-{least - 1}" and told.body == b""
    done = send("PATCH", *spans[1], told.headers["Location"]).expect(202)
    walker.verified(
        repo, data, digest, send("PUT", *spans[2], hubwalk.with_digest(done.headers["Location"], digest))
    )


def test_an_upload_is_cancelled(walker: Walker, repo: str) -> None:
    for sent in (b"", b"some"):
        place, _ = walker.begin(repo)
        if sent:
            place = walker.ask("PATCH", place, sent, hubwalk.OCTETS).expect(202).headers["Location"]
        gone = walker.ask("DELETE", place, b"", {"Content-Length": "0"}).expect(204)
        assert gone.body == b""
        for method in ("GET", "PATCH", "PUT", "DELETE"):
            path = hubwalk.with_digest(place, sha(b"some")) if method == "PUT" else place
            assert walker.ask(method, path, b"").expect(404).codes == ["BLOB_UPLOAD_UNKNOWN"]


def test_uploads_that_nobody_finishes(walker: Walker, repo: str) -> None:
    """They are not in the way of others, as after many interrupted runs of a program."""
    for _ in range(150):
        walker.begin(repo)
    walker.verified(repo, b"after", sha(b"after"), walker.post_put(repo, b"after", sha(b"after")))


@ALGORITHMS
def test_blobs_are_mounted(walker: Walker, repo: str, algorithm: str) -> None:
    """A deletion in one of two repositories leaves the other one's copy."""
    data = os.urandom(2000)
    digest, other = sha(data, algorithm), f"{repo}/other"
    walker.post_put(other, data, digest).expect(201)
    for query in (f"?mount={digest}&from={other}", f"?from={other}&mount={digest}", f"?mount={digest}"):
        done = walker.ask("POST", f"/v2/{repo}/blobs/uploads/{query}", b"", {"Content-Length": "0"})
        walker.verified(repo, data, digest, done)
        walker.delete(repo, "blobs", digest)
        walker.ask("HEAD", f"/v2/{other}/blobs/{digest}").expect(200)
    walker.delete(other, "blobs", digest)
    for query in (f"?mount={digest}&from={other}", f"?mount={digest}", f"?mount={digest}&from=walk/never"):
        refused = walker.ask("POST", f"/v2/{repo}/blobs/uploads/{query}", b"").expect(202)
        done = walker.ask("PUT", hubwalk.with_digest(refused.headers["Location"], digest), data)
        walker.verified(repo, data, digest, done)
        walker.delete(repo, "blobs", digest)
    bad = walker.ask("POST", f"/v2/{repo}/blobs/uploads/?mount=sha256:x&from={other}", b"")
    assert bad.expect(400).codes == ["DIGEST_INVALID"]


@pytest.mark.parametrize(
    ("span", "status", "first", "last"),
    [
        ("500-1499", 206, 500, 1499),
        ("500-", 206, 500, 2047),
        ("-500", 206, 1548, 2047),
        ("2000-5000", 206, 2000, 2047),
        ("500-0", 416, 0, 0),
        ("5000-10000", 416, 0, 0),
    ],
)
def test_parts_of_a_blob(walker: Walker, repo: str, span: str, status: int, first: int, last: int) -> None:
    data = os.urandom(2048)
    digest = sha(data)
    walker.post_put(repo, data, digest).expect(201)
    got = walker.ask("GET", f"/v2/{repo}/blobs/{digest}", headers={"Range": f"bytes={span}"}).expect(status)
    if status == 206:
        assert got.body == data[first : last + 1]
        assert got.headers["Content-Range"] == f"bytes {first}-{last}/2048"
        assert got.headers["Content-Length"] == str(last - first + 1)


# ---- the whole of it -----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("kind", hubwalk.KINDS)
def test_every_kind_of_content(walker: Walker, repo: str, algorithm: str, kind: str) -> None:
    for order in ("manifests first", "blobs first", "members first"):
        made = hubwalk.content(kind, algorithm)
        _push(walker, repo, made)
        _pull(walker, repo, made)
        _discover(walker, repo, made)
        _remove(walker, repo, made, order)


@BOTH
def test_every_kind_at_once(walker: Walker, repo: str, algorithm: str) -> None:
    """Everything is pushed before anything is deleted."""
    kinds = [hubwalk.content(kind, algorithm) for kind in hubwalk.KINDS]
    for made in kinds:
        _push(walker, repo, made)
    tags = [one.tag for made in kinds for one in made.documents if one.tag]
    _list(walker, repo, tags)
    for made in kinds:
        _pull(walker, repo, made)
        _refer(walker, repo, made)
    for made in kinds:
        for one in reversed(made.documents):
            walker.delete(repo, "manifests", one.digest)
    for digest in {digest for made in kinds for digest in made.blobs}:
        walker.delete(repo, "blobs", digest)
    assert walker.ask("GET", f"/v2/{repo}/tags/list").expect(200).json == {"name": repo, "tags": []}


def _push(walker: Walker, repo: str, made: Content) -> None:
    for digest, data in made.blobs.items():
        if walker.ask("HEAD", f"/v2/{repo}/blobs/{digest}").expect(200, 404).status == 404:
            walker.verified(repo, data, digest, walker.post_put(repo, data, digest))
    for one in made.documents:
        for reference in filter(None, (one.digest, one.tag)):
            walker.ask("HEAD", f"/v2/{repo}/manifests/{reference}").expect(404)
            if reference == one.tag and made.algorithm != "sha256":  # a PUT by tag alone means sha256
                done = _put(walker, repo, one, one.digest, f"?tag={one.tag}")
                assert done.headers["OCI-Tag"] == one.tag
            else:
                _put(walker, repo, one, reference)


def _put(walker: Walker, repo: str, one: Document, reference: str, query: str = "") -> Any:
    path = f"/v2/{repo}/manifests/{reference}{query}"
    done = walker.ask("PUT", path, one.body, {"Content-Type": one.media_type}).expect(201)
    assert done.headers["Docker-Content-Digest"] == one.digest
    subject = one.value.get("subject", {}).get("digest")
    assert done.headers["OCI-Subject"] == subject
    assert walker.ask("GET", done.headers["Location"]).expect(200).body == one.body
    return done


def _pull(walker: Walker, repo: str, made: Content) -> None:
    for one in made.documents:
        for reference in filter(None, (one.digest, one.tag)):
            for method in ("HEAD", "GET"):
                send = {"Accept": f"{INDEX}, {one.media_type}"}
                got = walker.ask(method, f"/v2/{repo}/manifests/{reference}", headers=send).expect(200)
                assert got.headers["Content-Type"] == one.media_type
                assert got.headers["Docker-Content-Digest"] == one.digest
                assert got.headers["Content-Length"] == str(len(one.body))
                assert got.body == (one.body if method == "GET" else b"")
    for digest, data in made.blobs.items():
        assert walker.ask("GET", f"/v2/{repo}/blobs/{digest}").expect(200).body == data


def _discover(walker: Walker, repo: str, made: Content) -> None:
    _list(walker, repo, [one.tag for one in made.documents if one.tag])
    _refer(walker, repo, made)


def _list(walker: Walker, repo: str, tags: list[str]) -> None:
    path = f"/v2/{repo}/tags/list"
    whole = walker.ask("GET", path).expect(200).json
    assert whole["name"] == repo and set(tags) <= set(whole["tags"])
    assert whole["tags"] == sorted(whole["tags"])
    every: list[str] = whole["tags"]
    middle = every[(len(every) - 1) // 2]
    rest = walker.ask("GET", f"{path}?last={middle}").expect(200).json["tags"]
    assert rest == [tag for tag in every if tag > middle]
    none = walker.ask("GET", f"{path}?n=0").expect(200)
    assert none.json["tags"] == [] and "Link" not in none.headers
    walked: list[str] = []
    path += "?n=2"
    while path:
        page = walker.ask("GET", path).expect(200)
        walked += page.json["tags"]
        path = page.headers.get("Link", "").partition("<")[2].partition(">")[0]
    assert walked == every


def _expected(one: Document) -> dict[str, Any]:
    """The descriptor of a referrer."""
    value = one.value
    kind = value.get("artifactType") or value.get("config", {}).get("mediaType")
    more = {"artifactType": kind} if kind else {}
    notes = {"annotations": value["annotations"]} if "annotations" in value else {}
    return one.descriptor(**more, **notes)


def _refer(walker: Walker, repo: str, made: Content) -> None:
    subjects: dict[str, list[dict[str, Any]]] = {one.digest: [] for one in made.documents}
    for one in made.documents:
        if subject := one.value.get("subject"):
            subjects.setdefault(subject["digest"], []).append(_expected(one))
    for subject, expected in subjects.items():
        path = f"/v2/{repo}/referrers/{subject}"
        got = walker.ask("GET", path).expect(200)
        assert got.headers["Content-Type"] == INDEX and "OCI-Filters-Applied" not in got.headers
        assert got.json == {"schemaVersion": 2, "mediaType": INDEX, "manifests": expected}
        kinds = {one.get("artifactType", CONFIG) for one in expected} | {"application/vnd.example.none"}
        for kind in kinds:
            got = walker.ask("GET", f"{path}?artifactType={kind.replace('+', '%2B')}").expect(200)
            assert got.headers["OCI-Filters-Applied"] == "artifactType"
            assert got.json["manifests"] == [one for one in expected if one.get("artifactType") == kind]


def _remove(walker: Walker, repo: str, made: Content, order: str) -> None:
    if order == "blobs first":
        named = {d["digest"] for one in made.documents for d in _named(one)}
        for digest in made.blobs:
            walker.ask("DELETE", f"/v2/{repo}/blobs/{digest}").expect(405 if digest in named else 202)
    for one in made.documents:
        if one.tag:
            walker.delete(repo, "manifests", one.tag)
            walker.ask("HEAD", f"/v2/{repo}/manifests/{one.digest}").expect(200)
    for one in made.documents if order == "members first" else reversed(made.documents):
        walker.delete(repo, "manifests", one.digest)
    for digest in made.blobs:
        walker.delete(repo, "blobs", digest)
    assert walker.ask("GET", f"/v2/{repo}/tags/list").expect(200).json["tags"] == []
    for one in made.documents:
        got = walker.ask("GET", f"/v2/{repo}/referrers/{one.digest}").expect(200)
        assert got.json["manifests"] == []


def _named(one: Document) -> list[dict[str, Any]]:
    value = one.value
    return [d for d in (value.get("config"), *value.get("layers", ())) if d is not None]


# ---- manifests -----------------------------------------------------------------------------------------


@ALGORITHMS
def test_several_tags_by_one_put(walker: Walker, repo: str, algorithm: str) -> None:
    made = Content(algorithm)
    one = made.image()
    for digest, data in made.blobs.items():
        walker.post_put(repo, data, digest).expect(201)
    tags = [f"tag{i}" for i in range(10)]
    done = _put(walker, repo, one, one.digest, "?" + "&".join(f"tag={tag}" for tag in tags))
    assert done.headers.get_all("OCI-Tag") == tags
    for tag in tags:
        got = walker.ask("GET", f"/v2/{repo}/manifests/{tag}").expect(200)
        assert got.headers["Docker-Content-Digest"] == one.digest and got.body == one.body
    walker.delete(repo, "manifests", "tag0")
    walker.delete(repo, "manifests", one.digest)
    for tag in tags:
        walker.ask("HEAD", f"/v2/{repo}/manifests/{tag}").expect(404)


def test_manifests_with_a_wrong_digest(walker: Walker, repo: str) -> None:
    made = Content("sha256")
    one = made.image()
    for digest, data in made.blobs.items():
        walker.post_put(repo, data, digest).expect(201)
    for wrong in ("sha256:baddigeststring", sha(b"other"), sha(b"other", "sha512"), "sha999:00"):
        path = f"/v2/{repo}/manifests/{wrong}"
        refused = walker.ask("PUT", path, one.body, {"Content-Type": one.media_type}).expect(400)
        assert refused.codes == ["DIGEST_INVALID"]
        walker.ask("GET", path).expect(400, 404)
        walker.ask("HEAD", path).expect(400, 404)
        walker.ask("DELETE", path).expect(400, 404)
    layer = {**one.value["layers"][0], "digest": "sha256:baddigeststring"}
    bad = made.document({**one.value, "layers": [layer]})
    for reference in (bad.digest, "bad"):
        path = f"/v2/{repo}/manifests/{reference}"
        walker.ask("PUT", path, bad.body, {"Content-Type": bad.media_type}).expect(400)
        walker.ask("GET", path).expect(404)


def test_an_error_is_an_error_of_the_specification(walker: Walker, repo: str) -> None:
    for method, path, body in (
        ("PUT", f"/v2/{repo}/manifests/sha256:totallywrong", b"blablabla"),
        ("PUT", f"/v2/{repo}/manifests/tag", b"blablabla"),
        ("GET", f"/v2/{repo}/manifests/none", None),
        ("GET", f"/v2/{repo}/blobs/{sha(b'none')}", None),
        ("GET", f"/v2/{repo}/blobs/sha256:x", None),
        ("GET", f"/v2/{repo}/referrers/sha256:x", None),
        ("DELETE", f"/v2/{repo}/manifests/{sha(b'none')}", None),
        ("DELETE", f"/v2/{repo}/blobs/{sha(b'none')}", None),
        ("GET", f"/v2/{repo}/tags/list?n=x", None),
        ("GET", f"/v2/{repo}/blobs/uploads/none", None),
    ):
        answer = walker.ask(method, path, body, {"Content-Type": "application/json"}).expect(400, 404)
        assert set(answer.codes) <= hubwalk.CODES | {"PAGINATION_NUMBER_INVALID"}, path
        assert all(one["message"] for one in answer.json["errors"])


def test_a_repository_that_does_not_exist(walker: Walker, repo: str) -> None:
    for method in ("GET", "HEAD"):
        for path in ("tags/list", "manifests/latest", f"blobs/{sha(b'x')}"):
            walker.ask(method, f"/v2/{repo}/never/{path}").expect(404)
    for path in ("manifests/latest", f"manifests/{sha(b'x')}", f"blobs/{sha(b'x')}"):
        walker.ask("DELETE", f"/v2/{repo}/never/{path}").expect(404)
    found = walker.ask("GET", f"/v2/{repo}/never/referrers/{sha(b'x')}").expect(200)
    assert found.json == {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
